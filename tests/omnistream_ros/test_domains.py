# SPDX-License-Identifier: Apache-2.0
"""Domains of our own: no two at once, and none that a foreign process is in."""

import os

import pytest
import rclpy

from omnistream_ros import domains
from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import MAX_DOMAIN_ID

pytestmark = pytest.mark.ros


def test_reservations_differ_and_end() -> None:
    with reserved_domain_id() as first, reserved_domain_id() as second:
        assert first != second and {first, second} <= set(range(1, MAX_DOMAIN_ID + 1))


def test_a_domain_with_a_participant_is_not_given_out(monkeypatch: pytest.MonkeyPatch, ros_domain: int) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node("foreign", context=context)
    try:
        # The foreign process does not know our locks, so take them away too.
        monkeypatch.setattr(domains, "_lock", lambda _: os.open(os.devnull, os.O_RDONLY))
        monkeypatch.setattr(domains, "MAX_DOMAIN_ID", ros_domain)
        monkeypatch.setattr("random.SystemRandom.shuffle", lambda _self, items: items.reverse())
        if ros_domain == 1:
            with pytest.raises(RuntimeError, match="in use"), reserved_domain_id():
                pass
        else:
            with reserved_domain_id() as other:
                assert other != ros_domain
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
