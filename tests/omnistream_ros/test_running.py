# SPDX-License-Identifier: Apache-2.0
"""What keeps an executor at work: subscriptions may go in other threads, but what a callback raises ends it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String

from omnistream_ros.processes import ChildProcess, stop_all
from omnistream_ros.running import spin

pytestmark = pytest.mark.ros


class Spun:
    """A node on an executor in a thread of its own."""

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("spun", context=self.context)
        self.executor = MultiThreadedExecutor(2, context=self.context)
        self.executor.add_node(self.node)
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _spin(self) -> None:
        try:
            spin(self.executor)
        except ExternalShutdownException:
            pass
        except BaseException as error:
            self.errors.append(error)

    def close(self) -> None:
        self.executor.shutdown()
        self.thread.join(5)
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def spun(ros_domain: int) -> Iterator[Spun]:
    spun = Spun(ros_domain)
    yield spun
    spun.close()


def test_subscriptions_may_go_while_it_gathers_them(spun: Spun) -> None:
    """Plain `executor.spin` ends here with InvalidHandle after some hundred rounds, and with it the node's process."""
    spun.node.create_timer(0.001, lambda: None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(1000):
            spun.node.destroy_subscription(spun.node.create_subscription(String, "topic", lambda _: None, 1))
    finally:
        sys.setswitchinterval(before)
    assert spun.thread.is_alive() and not spun.errors


def test_what_a_callback_raises_ends_it(spun: Spun) -> None:
    publisher = spun.node.create_publisher(String, "topic", 1)
    spun.node.destroy_publisher(publisher)
    spun.node.create_timer(0.001, lambda: publisher.publish(String()))  # InvalidHandle too
    spun.thread.join(5)
    assert not spun.thread.is_alive() and spun.errors


def test_a_node_hears_first_that_it_is_to_leave(ros_domain: int) -> None:
    """A callback hangs: whoever has something to say at the end (a stop command) says it before that is waited for."""
    child = ChildProcess("hanging", "tests.omnistream_ros.hanging_node")
    try:
        end = time.monotonic() + 60
        while "hangs" not in child.lines() and time.monotonic() < end:
            time.sleep(0.02)
        child.send(signal.SIGTERM)
        assert child.wait(30) == 0, child.tail()
        assert "leaving" in child.lines()
    finally:
        stop_all([child])
