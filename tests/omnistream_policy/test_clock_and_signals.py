# SPDX-License-Identifier: Apache-2.0
"""Time that jumps or stands still, and every way in which the process can end."""

from __future__ import annotations

import signal
import threading
import time
import types
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from rclpy.duration import Duration
from rosgraph_msgs.msg import Clock

from omnistream_msgs.msg import PolicyStatus
from omnistream_policy.node import PolicyNode
from omnistream_ros.images import seconds_to_stamp
from omnistream_ros.nodes import NODES
from omnistream_ros.processes import ChildProcess, ros_parameters, stop_all
from omnistream_ros.testing import Graph
from tests.omnistream_policy.conftest import GIVEN, RATE, Robot, moves

S = PolicyStatus
T = 1 / RATE


class Simulated:
    """/clock, which goes on while `going` is set."""

    def __init__(self, graph: Graph) -> None:
        self.now = 100.0
        self.going = threading.Event()
        self.going.set()
        self._publisher = graph.node.create_publisher(Clock, "/clock", 10)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.01):
            if self.going.is_set():
                self.now += 0.01
                self._publisher.publish(Clock(clock=seconds_to_stamp(self.now)))

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def clock(graph: Graph) -> Iterator[Simulated]:
    simulated = Simulated(graph)
    yield simulated
    simulated.close()


def test_a_clock_that_stops_stops_the_robot(
    clock: Simulated, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot]
) -> None:
    """No tick is due any more; the watchdog is on the steady clock."""
    start_node(use_sim_time=True, max_tick_gap=0.5, max_observation_age=5.0)
    one = robot(stamped=lambda: clock.now)
    one.run()
    clock.going.clear()
    one.stopped(S.STATE_HOLDING, "tick_late")


@pytest.mark.parametrize("jump", [-50.0, 500.0])
def test_a_clock_that_jumps_stops_it_until_somebody_looks(
    clock: Simulated, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot], jump: float
) -> None:
    start_node(use_sim_time=True)
    one = robot(stamped=lambda: clock.now)
    one.run()
    clock.now += jump
    one.stopped(S.STATE_DISABLED, "clock_jump")
    assert one.call("start").success
    count = len(one.twists)
    one.graph.wait(lambda: any(map(moves, one.twists[count:])), "it to move again", 20)


@pytest.mark.parametrize("phase", [0.3, 0.8])
def test_commands_leave_at_a_place_between_pictures(
    start_node: Callable[..., PolicyNode], robot: Callable[..., Robot], phase: float
) -> None:
    """Wherever the ticks began; the pictures' stamps are multiples of the period here."""
    start_node(tick_phase=phase)
    one = robot(stamped=lambda: time.time() // T * T)
    one.run()

    def shares() -> np.ndarray:
        stamps = [message.header.stamp for message in one.twists[-20:]]
        return np.array([(stamp.sec % 60 + stamp.nanosec / 1e9) / T % 1.0 for stamp in stamps])

    one.graph.wait(lambda: len(one.twists) > 20 and np.abs(shares() - phase).max() < 0.15, "ticks in their place", 20)


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_system_clock_that_is_set_stops_it_until_somebody_looks(
    start_node: Callable[..., PolicyNode],
    robot: Callable[..., Robot],
    monkeypatch: pytest.MonkeyPatch,
    step: float,
) -> None:
    """Of that rclpy says nothing; and who waits for that clock's time would wait for the old one, an hour long."""
    node = start_node()
    offset = [0.0]
    one = robot(stamped=lambda: time.time() + offset[0])
    one.run()
    clock = node.get_clock()
    moved = types.SimpleNamespace(
        now=lambda: clock.now() + Duration(nanoseconds=round(offset[0] * 1e9)), ros_time_is_active=False
    )
    monkeypatch.setattr(node, "get_clock", lambda: moved)
    offset[0] = step
    one.stopped(S.STATE_DISABLED, "clock_jump")
    assert one.call("start").success
    count = len(one.twists)
    one.graph.wait(lambda: any(map(moves, one.twists[count:])), "it to move again", 20)


@pytest.fixture
def process(graph: Graph, policy_folder: str) -> Iterator[ChildProcess]:
    words = ros_parameters(**GIVEN, policy=policy_folder, exit_on_failure=True)
    child = ChildProcess("policy", NODES["policy"].module, words)
    graph.wait(lambda: graph.node.count_publishers("/policy/status"), "the process to be there", 120)
    yield child
    stop_all([child])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sends_a_stop_and_ends_with_zero(
    process: ChildProcess, robot: Callable[..., Robot], number: signal.Signals
) -> None:
    one = robot()
    one.graph.wait(lambda: one.statuses and one.statuses[-1].state == S.STATE_DISABLED, "the node", 60)
    one.run()
    process.send(number)
    assert process.wait(6.0) == 0, process.tail()
    one.graph.wait(lambda: not moves(one.twists[-1]), "a stop command as the last")


def test_killed_hard_it_is_silent_and_the_receiver_has_to_notice(
    process: ChildProcess, robot: Callable[..., Robot]
) -> None:
    """Nobody can send a stop after SIGKILL: docs/policy_node.md tells which timeout each receiver needs."""
    one = robot()
    one.graph.wait(lambda: one.statuses and one.statuses[-1].state == S.STATE_DISABLED, "the node", 60)
    one.run()
    process.send(signal.SIGKILL)
    process.wait(5.0)
    time.sleep(0.3)
    count = len(one.twists)
    time.sleep(0.5)
    assert len(one.twists) == count
