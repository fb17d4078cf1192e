# SPDX-License-Identifier: Apache-2.0
"""What keeps an executor at work: subscriptions may go in other threads, but what a callback raises ends it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.node import Node
from std_msgs.msg import String

from omnistream_ros.processes import ChildProcess, stop_all
from omnistream_ros.running import Spinner

pytestmark = pytest.mark.ros


@pytest.fixture
def context(ros_domain: int) -> Iterator[rclpy.Context]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    yield context
    rclpy.shutdown(context=context)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads are switched as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def spun(context: rclpy.Context) -> Iterator[Spinner]:
    node = Node("spun", context=context)
    spun = Spinner(node, threads=2)
    yield spun
    assert spun.end(5)
    node.destroy_node()


def test_subscriptions_may_go_while_it_gathers_them(spun: Spinner, hasty: None) -> None:
    """Plain `executor.spin` ends here with InvalidHandle after some hundred rounds, and with it the node's process."""
    spun.node.create_timer(0.001, lambda: None)
    for _ in range(1000):
        spun.node.destroy_subscription(spun.node.create_subscription(String, "topic", lambda _: None, 1))
    assert spun.is_alive() and not spun.error


def test_what_a_callback_raises_ends_it(spun: Spinner) -> None:
    publisher = spun.node.create_publisher(String, "topic", 1)
    spun.node.destroy_publisher(publisher)
    spun.node.create_timer(0.001, lambda: publisher.publish(String()))  # InvalidHandle too
    end = time.monotonic() + 5
    while spun.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    assert not spun.is_alive() and spun.error


@pytest.mark.parametrize("threads", [1, 2])
def test_a_busy_node_ends_without_an_error(context: rclpy.Context, hasty: None, threads: int) -> None:
    """`executor.shutdown` under a plain `executor.spin` raises in the spinning thread, once in some tens of rounds."""
    node = Node("busy", context=context)
    for _ in range(5):
        node.create_timer(1e-4, lambda: None)
    for _ in range(100):
        spinner = Spinner(node, threads)
        time.sleep(0.002)
        assert spinner.end(5) and spinner.error is None
    node.destroy_node()


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
