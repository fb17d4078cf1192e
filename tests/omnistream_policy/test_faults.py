# SPDX-License-Identifier: Apache-2.0
"""The fault table of docs/policy_node.md, each row on real rclpy: whatever happens, the last thing said is a stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from geometry_msgs.msg import TwistStamped
from std_msgs.msg import Bool

from omnistream.contract import Action, Dimension, Gripper, save_contract
from omnistream_msgs.msg import ActionChunk, PolicyStatus
from omnistream_policy.node import PolicyNode
from omnistream_ros.testing import Graph
from tests.omnistream_policy.conftest import LIMIT, MOVES, Robot, contract, moves, numbers

S = PolicyStatus
Start = Callable[..., PolicyNode]
MakeRobot = Callable[..., Robot]


def test_it_starts_disabled_runs_inside_its_limits_and_stops(start_node: Start, robot: MakeRobot) -> None:
    start_node()
    one = robot()
    one.showing.set()
    one.graph.wait(lambda: one.statuses and one.statuses[-1].observations > 3, "observations", 20)
    assert one.statuses[-1].state == S.STATE_DISABLED and not one.twists
    assert one.call("start").success  # permitted, but told nothing yet
    one.graph.wait(lambda: one.statuses[-1].reason == "no_instruction", "holding")
    one.run()
    one.graph.wait(lambda: len(one.twists) > 20, "commands", 20)
    values = np.stack([numbers(twist) for twist in one.twists])
    assert (np.abs(values) <= np.array([LIMIT] * 3 + [0.5] * 3) + 1e-9).all()
    assert one.twists[-1].header.frame_id == "base_link"
    assert {message.data for message in one.grippers} <= {1.0, -1.0}
    assert one.call("stop").success
    status = one.stopped(S.STATE_DISABLED, "requested")
    assert status.commands > 0 and status.chunks > 0 and {c.reason for c in status.clamps} >= {"velocity"}


def test_dry_run_leaves_the_robot_alone(start_node: Start, robot: MakeRobot) -> None:
    start_node(dry_run=True)
    one, dry = robot(), robot(prefix="/policy/dry_run/")
    dry.run()
    assert not one.twists and dry.statuses[-1].dry_run


def test_camera_lost_and_back(start_node: Start, robot: MakeRobot) -> None:
    start_node()
    one = robot()
    one.run()
    one.showing.clear()
    one.stopped(S.STATE_HOLDING, "observation_age")
    count = len(one.twists)
    one.showing.set()
    one.graph.wait(lambda: any(map(moves, one.twists[count:])), "it to go on by itself", 20)


def test_camera_frozen(start_node: Start, robot: MakeRobot) -> None:
    start_node(frozen_after=10)
    one = robot()
    one.run()
    one.picture = np.zeros((64, 64, 3), np.uint8)
    one.stopped(S.STATE_HOLDING, "frozen")


def test_stamps_that_are_too_old_or_of_the_future(start_node: Start, robot: MakeRobot) -> None:
    """New messages with a dead clock are no new observations."""
    start_node()
    one = robot()
    one.run()
    one.offset = 30.0
    one.stopped(S.STATE_HOLDING, "observation_age")


def test_inference_stall(start_node: Start, robot: MakeRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    node = start_node(inference_deadline=0.3, max_observation_age=5.0)
    one = robot()
    one.run()
    session = node._thinking.session  # type: ignore[union-attr]
    act = session.act
    monkeypatch.setattr(session, "act", lambda *a: (time.sleep(1.5), act(*a))[1])
    one.graph.wait(lambda: any(d.reason == "inference_deadline" for d in one.statuses[-1].stops), "the deadline", 20)
    begin = next(i for i, s in enumerate(one.statuses) if any(d.reason == "inference_deadline" for d in s.stops))
    assert one.statuses[begin].state == S.STATE_HOLDING


def test_nan_action(start_node: Start, robot: MakeRobot) -> None:
    node = start_node()
    one = robot()
    one.run()
    with torch.no_grad():
        for parameter in node._thinking.session._network.parameters():  # type: ignore[union-attr]
            parameter.fill_(torch.nan)
    status = one.stopped(S.STATE_DISABLED, "not_finite")
    assert "NaN" in status.detail
    assert all(np.isfinite(numbers(twist)).all() for twist in one.twists)


def test_instruction_change_drops_what_was_planned(graph: Graph, start_node: Start, robot: MakeRobot) -> None:
    start_node()
    chunks: list[ActionChunk] = graph.collect(ActionChunk, "/policy/chunk", "reliable:100")
    one = robot()
    one.run("open the drawer")
    answer = one.instruct("lift the purple cube")
    assert answer.success and answer.unknown_words == ["purple"]
    graph.wait(lambda: chunks[-1].instruction == "lift the purple cube", "a chunk for the new instruction", 20)
    assert one.instruct("").success
    one.stopped(S.STATE_HOLDING, "no_instruction")


@pytest.mark.parametrize("qos", ["reliable", "latched", "sensor"])
def test_estop_is_latched_and_cleared(graph: Graph, start_node: Start, robot: MakeRobot, qos: str) -> None:
    start_node()
    one = robot()
    one.run()
    graph.publish(Bool, "/policy/estop", Bool(data=True), qos)
    one.stopped(S.STATE_STOPPED, "estop")
    assert not one.call("start").success
    refused = one.call("clear_estop")
    assert not refused.success and "still says true" in refused.message
    graph.publish(Bool, "/policy/estop", Bool(data=False), qos)
    graph.wait(lambda: one.call("clear_estop").success, "the e-stop to be cleared")
    one.stopped(S.STATE_DISABLED, "not_started")
    assert one.call("start").success
    count = len(one.twists)
    graph.wait(lambda: any(map(moves, one.twists[count:])), "it to move again", 20)


def test_somebody_else_commands_too(graph: Graph, start_node: Start, robot: MakeRobot) -> None:
    start_node()
    one = robot()
    one.run()
    publisher = graph.node.create_publisher(TwistStamped, "/policy/twist", 1)
    one.stopped(S.STATE_DISABLED, "rival")
    refused = one.call("start")
    assert not refused.success and "/policy/twist" in refused.message
    graph.node.destroy_publisher(publisher)
    graph.wait(lambda: one.call("start").success, "the rival to be gone")


def test_deactivation_stops_and_activation_waits(start_node: Start, robot: MakeRobot) -> None:
    node = start_node()
    one = robot()
    one.run()
    node._attempt(node.trigger_deactivate)
    one.graph.wait(lambda: not moves(one.twists[-1]), "a stop command")
    count = len(one.twists)
    time.sleep(0.5)
    assert not any(map(moves, one.twists[count:]))
    node._attempt(node.trigger_activate)
    time.sleep(0.5)
    assert not any(map(moves, one.twists[count:])), "it must not move before the next start"


def action(**changes: Any) -> Action:
    given: dict[str, Any] = {
        "dimensions": tuple(Dimension(name, "1") for name in (*MOVES, "gripper")),
        "mode": "delta",
        "frame": "base_link",
        "grippers": (Gripper(6, 1.0, -1.0),),
    }
    return Action(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": 10.0}, "rate"),
        ({"action": action(frame="tool0")}, "tool0"),
        ({"action": action(grippers=(Gripper(6, -1.0, 1.0),))}, "action.grippers[0].open"),
        ({"action": action(dimensions=tuple(Dimension(name, "m") for name in (*MOVES, "gripper")))}, "unit"),
    ],
    ids=["rate", "frame", "gripper sign", "units"],
)
def test_another_contract_is_refused_with_both_sides(
    start_node: Start, tmp_path: Any, changes: dict[str, Any], said: str
) -> None:
    save_contract(tmp_path / "robot.yaml", contract(**changes))
    node = start_node(wait=False, contract=str(tmp_path / "robot.yaml"))
    end = time.monotonic() + 30
    while not node.fault and time.monotonic() < end:
        time.sleep(0.05)
    assert said in node.fault and "policy" in node.fault and "robot" in node.fault
