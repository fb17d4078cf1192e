# SPDX-License-Identifier: Apache-2.0
"""Every test here gets a ROS domain of its own, on loopback."""

from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed (extra `ros`, or a sourced ROS 2)")

from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import loopback_environment


@pytest.fixture
def domain_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A free domain; this process and its children are set to it, traffic stays on loopback."""
    with reserved_domain_id() as number:
        for name, value in loopback_environment(number).items():
            monkeypatch.setenv(name, value)
        yield number
