# SPDX-License-Identifier: Apache-2.0
"""The action run_policy over real DDS: it moves while the goal lasts, and every end of a goal is a stop."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient, CancelResponse

from omnistream_msgs.action import RunPolicy
from omnistream_msgs.msg import ActionChunk, PolicyStatus
from omnistream_policy.goals import Goals
from omnistream_policy.node import PolicyNode
from omnistream_ros.testing import Graph
from tests.omnistream_policy.conftest import Robot, moves

R = RunPolicy.Result
S = PolicyStatus
Start = Callable[..., PolicyNode]
MakeRobot = Callable[..., Robot]


class Asker:
    """Sends goals, and keeps what comes back."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.client = ActionClient(graph.node, RunPolicy, "/policy/run_policy")
        self.feedback: list[RunPolicy.Feedback] = []
        graph.wait(self.client.server_is_ready, "the action", 20)

    def send(self, instruction: str = "open the drawer", timeout: float = 0.0) -> Any:
        """A goal handle; accepted or not."""
        goal = RunPolicy.Goal(instruction=instruction, timeout=timeout)
        sent = self.client.send_goal_async(goal, feedback_callback=lambda m: self.feedback.append(m.feedback))
        self.graph.wait(sent.done, "an answer to the goal", 20)
        return sent.result()

    def result(self, handle: Any, timeout: float = 20) -> tuple[int, RunPolicy.Result]:
        """(status, result) once it has ended."""
        future = handle.get_result_async()
        self.graph.wait(future.done, "a result", timeout)
        return future.result().status, future.result().result

    def cancel(self, handle: Any) -> None:
        answer = handle.cancel_goal_async()
        self.graph.wait(answer.done, "an answer to the cancellation", 20)
        assert answer.result().goals_canceling


@pytest.fixture
def asker(graph: Graph, start_node: Start) -> Iterator[Asker]:
    start_node()
    one = Asker(graph)
    yield one
    one.client.destroy()


@pytest.fixture
def moving(graph: Graph, asker: Asker, robot: MakeRobot) -> tuple[Robot, Any]:
    """A robot that moves for a goal without an end."""
    one = robot()
    one.showing.set()
    handle = asker.send()
    assert handle.accepted
    graph.wait(lambda: any(map(moves, one.twists)), "a command that moves", 20)
    return one, handle


def test_it_moves_for_its_time_and_stops(asker: Asker, robot: MakeRobot) -> None:
    one = robot()
    one.showing.set()
    handle = asker.send("lift the purple cube", timeout=4.0)
    assert handle.accepted
    status, result = asker.result(handle)
    assert (status, result.outcome) == (GoalStatus.STATUS_SUCCEEDED, R.OUTCOME_TIME_OVER), result.message
    assert 4.0 <= result.elapsed < 6.0 and result.commands > 0
    assert list(result.unknown_words) == ["purple"]
    one.stopped(S.STATE_DISABLED, "requested")
    assert {f.state for f in asker.feedback} <= {S.STATE_HOLDING, S.STATE_RUNNING}
    last = asker.feedback[-1]
    assert 0 < last.commands <= result.commands and 0 < last.elapsed <= 4.2 and last.observation_age < 1.0


def test_cancelling_stops_it(asker: Asker, moving: tuple[Robot, Any]) -> None:
    one, handle = moving
    asker.cancel(handle)
    status, result = asker.result(handle)
    assert (status, result.outcome) == (GoalStatus.STATUS_CANCELED, R.OUTCOME_CANCELED)
    one.stopped(S.STATE_DISABLED, "requested")


def test_the_newest_goal_takes_over(graph: Graph, asker: Asker, moving: tuple[Robot, Any]) -> None:
    chunks: list[ActionChunk] = graph.collect(ActionChunk, "/policy/chunk", "reliable:100")
    one, first = moving
    second = asker.send("lift the red cube")
    assert second.accepted
    status, result = asker.result(first)
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, R.OUTCOME_PREEMPTED)
    graph.wait(lambda: chunks and chunks[-1].instruction == "lift the red cube", "a chunk for the second", 20)
    count = len(one.twists)
    graph.wait(lambda: any(map(moves, one.twists[count:])), "it to move for the second", 20)
    asker.cancel(second)
    assert asker.result(second)[0] == GoalStatus.STATUS_CANCELED


@pytest.mark.parametrize("service", ["stop", "estop", "reset"])
def test_what_stops_the_robot_ends_the_goal(asker: Asker, moving: tuple[Robot, Any], service: str) -> None:
    one, handle = moving
    assert one.call(service).success
    status, result = asker.result(handle)
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, R.OUTCOME_STOPPED)
    assert result.reason == ("estop" if service == "estop" else "requested")
    one.stopped(S.STATE_STOPPED if service == "estop" else S.STATE_DISABLED, result.reason)
    if service == "estop":
        assert not asker.send().accepted
        assert one.call("clear_estop").success
    last = asker.send(timeout=0.1)
    assert last.accepted and asker.result(last)[1].outcome == R.OUTCOME_TIME_OVER


def test_a_deactivated_node_ends_its_goal(graph: Graph, start_node: Start, robot: MakeRobot) -> None:
    node = start_node()
    asker, one = Asker(graph), robot()
    one.showing.set()
    handle = asker.send()
    graph.wait(lambda: any(map(moves, one.twists)), "a command that moves", 20)
    node._attempt(node.trigger_deactivate)
    status, result = asker.result(handle)
    assert (status, result.outcome, result.reason) == (GoalStatus.STATUS_ABORTED, R.OUTCOME_STOPPED, "deactivated")
    assert not moves(one.twists[-1])
    assert not asker.send().accepted, "an inactive node follows nothing"
    asker.client.destroy()


def test_a_lost_camera_is_waited_for_until_the_time_is_over(asker: Asker, moving: tuple[Robot, Any]) -> None:
    one, first = moving
    handle = asker.send(timeout=6.0)
    asker.result(first)
    one.showing.clear()
    one.stopped(S.STATE_HOLDING, "observation_age")
    asker.graph.wait(lambda: asker.feedback[-1].reason == "observation_age", "feedback that says so")
    assert asker.result(handle)[1].outcome == R.OUTCOME_TIME_OVER
    one.stopped(S.STATE_DISABLED, "requested")


@pytest.mark.parametrize(
    ("instruction", "timeout"), [("", 1.0), ("  ", 1.0), ("open", -1.0), ("open", math.nan), ("open", math.inf)]
)
def test_goals_that_mean_nothing_are_rejected(asker: Asker, instruction: str, timeout: float) -> None:
    assert not asker.send(instruction, timeout).accepted


def test_while_a_goal_lasts_nobody_else_instructs(asker: Asker, moving: tuple[Robot, Any]) -> None:
    one, handle = moving
    refused = one.instruct("lift the red cube")
    assert not refused.success and "open the drawer" in refused.message
    asker.cancel(handle)
    asker.result(handle)
    assert one.instruct("lift the red cube").success


def test_a_stop_wins_over_a_goal_that_is_just_beginning(
    graph: Graph, start_node: Start, robot: MakeRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instruction waits for the inference in hand; who stops the robot meanwhile means the goal too."""
    node = start_node()
    asker, one = Asker(graph), robot()
    one.showing.set()
    instruct, begun = node._requests.instruct, threading.Event()

    def slow(text: str) -> None:
        begun.set()
        time.sleep(0.5)
        instruct(text)

    monkeypatch.setattr(node._requests, "instruct", slow)
    handle = asker.send()
    assert begun.wait(10)
    loop = node._requests.active().loop
    loop.stop(loop.control.guard.reason, "")
    status, result = asker.result(handle)
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, R.OUTCOME_STOPPED)
    assert not any(map(moves, one.twists))
    asker.client.destroy()


def test_a_cancellation_that_comes_while_goals_change_is_not_lost(
    graph: Graph, start_node: Start, robot: MakeRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callback may look for its goal just before that is the one that is followed."""
    monkeypatch.setattr(Goals, "_on_cancel", lambda self, handle: CancelResponse.ACCEPT)
    start_node()
    one, asker = robot(), Asker(graph)
    one.showing.set()
    handle = asker.send()
    graph.wait(lambda: any(map(moves, one.twists)), "a command that moves", 20)
    asker.cancel(handle)
    status, result = asker.result(handle)
    assert status == GoalStatus.STATUS_CANCELED and result.outcome == R.OUTCOME_CANCELED
    assert not moves(one.twists[-1])
    asker.client.destroy()
