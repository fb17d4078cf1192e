# SPDX-License-Identifier: Apache-2.0
"""Domains of our own: no two at once, and none that a foreign process is in."""

import os
import subprocess
import sys

import pytest

from omnistream_ros import domains
from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import MAX_DOMAIN_ID

pytestmark = pytest.mark.ros


def test_reservations_differ_and_end() -> None:
    with reserved_domain_id() as first, reserved_domain_id() as second:
        assert first != second and {first, second} <= set(range(1, MAX_DOMAIN_ID + 1))


FOREIGN = """
import sys, rclpy
rclpy.init()
for _ in range(int(sys.argv[1])):  # a process that has had participants before
    other = rclpy.Context()
    rclpy.init(context=other)
    rclpy.create_node("earlier", context=other)
    rclpy.shutdown(context=other)
node = rclpy.create_node("foreign")
print("here", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("earlier", [0, 10])
def test_a_domain_with_a_participant_is_not_given_out(
    monkeypatch: pytest.MonkeyPatch, ros_domain: int, earlier: int
) -> None:
    command = [sys.executable, "-c", FOREIGN, str(earlier)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as foreign:
        assert foreign.stdin is not None and foreign.stdout is not None
        try:
            assert foreign.stdout.readline() == "here\n"
            # The foreign process does not know our locks, so take them away too; and try its domain first.
            monkeypatch.setattr(domains, "_lock", lambda _: os.open(os.devnull, os.O_RDONLY))
            monkeypatch.setattr(
                "random.SystemRandom.shuffle", lambda _self, items: items.sort(key=lambda d: d != ros_domain)
            )
            with reserved_domain_id() as other:
                assert other != ros_domain
            monkeypatch.setattr(domains, "_discovery_ports_are_free", lambda _: False)
            with pytest.raises(RuntimeError, match="are in use on this machine; set ROS_DOMAIN_ID"):
                reserved_domain_id().__enter__()
        finally:
            foreign.stdin.close()
