# SPDX-License-Identifier: Apache-2.0
"""The fault table of docs/policy_node.md, each row on real rclpy: whatever happens, the last thing said is a stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from geometry_msgs.msg import TwistStamped
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Bool

from omnistream.contract import Action, Dimension, Gripper, save_contract
from omnistream.policy.guard import Stop
from omnistream_msgs.msg import ActionChunk, PolicyStatus
from omnistream_policy.node import PolicyNode
from omnistream_policy.requests import Requests
from omnistream_ros.lifecycle import State
from omnistream_ros.qos import qos_profile
from omnistream_ros.testing import Graph
from tests.omnistream_policy.conftest import LIMIT, MOVES, SIZE, Robot, contract, moves, numbers

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


def test_an_estop_of_a_reliable_publisher_is_not_left_to_luck(graph: Graph, start_node: Start) -> None:
    """One lost datagram must not lose it: beside the best-effort reader there is one that asks for it again."""
    start_node()
    readers = graph.node.get_subscriptions_info_by_topic("/policy/estop")
    kinds = {(one.qos_profile.reliability, one.qos_profile.durability) for one in readers}
    assert (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE) in kinds and len(kinds) == 3


def test_an_estop_that_was_released_and_cleared_does_not_come_again(
    graph: Graph, start_node: Start, robot: MakeRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the node's readers gets it; the slower ones may come to it when all is over."""
    calls: list[bool] = []
    hear = Requests._hear_estop
    monkeypatch.setattr(Requests, "_hear_estop", lambda self, m: (calls.append(m.data), hear(self, m)))
    start_node()
    one = robot()
    one.run()
    publisher = graph.node.create_publisher(Bool, "/policy/estop", qos_profile("latched"))
    graph.wait(lambda: publisher.get_subscription_count() == 3, "all readers")
    for round_ in range(1, 4):
        publisher.publish(Bool(data=True))
        graph.wait(lambda: one.statuses[-1].reason == "estop", "the e-stop")
        publisher.publish(Bool(data=False))
        graph.wait(lambda: len(calls) == 2 * round_, "its release")  # noqa: B023
        assert one.call("clear_estop").success and one.call("start").success
        time.sleep(0.2)
        assert one.statuses[-1].reason != "estop" and calls == [True, False] * round_


def test_a_tick_that_a_stop_overtook_sends_that_stop(
    start_node: Start, robot: MakeRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick has the lock and is held up after it decided to move; the stop does not wait, and has the last word."""
    node = start_node()
    one = robot()
    one.run()
    loop = node._pipeline.loop  # type: ignore[union-attr]
    tick, held, go_on = loop.drive.tick, threading.Event(), threading.Event()

    def slow(*arguments: Any, **keywords: Any) -> Any:
        left = tick(*arguments, **keywords)
        if loop.control.running and not held.is_set():
            held.set()
            assert go_on.wait(10)
        return left

    monkeypatch.setattr(loop.drive, "tick", slow)
    assert held.wait(10)
    loop.stop(Stop.REQUESTED, "")  # as ~/stop does in another of the executable's threads
    go_on.set()
    one.stopped(S.STATE_DISABLED, "requested")


def test_nothing_is_permitted_while_it_is_being_deactivated(
    start_node: Start, robot: MakeRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start_node()
    one = robot()
    one.run()
    pipeline = node._pipeline
    assert pipeline is not None
    rest, answers = pipeline.rest, []
    monkeypatch.setattr(pipeline, "rest", lambda timeout: (answers.append(one.call("start")), rest(timeout)))
    threading.Thread(target=lambda: node._attempt(node.trigger_deactivate)).start()
    one.graph.wait(lambda: answers, "the answer", 20)
    assert not answers[0].success and "deactivated" in answers[0].message
    one.graph.wait(lambda: node.state is State.INACTIVE, "the transition")
    node._attempt(node.trigger_activate)
    one.stopped(S.STATE_DISABLED, "deactivated")


def test_an_estop_outlives_the_policy_that_it_stopped(start_node: Start, robot: MakeRobot) -> None:
    node = start_node()
    one = robot()
    one.run()
    assert one.call("estop").success
    for transition in (node.trigger_deactivate, node.trigger_cleanup, node.trigger_configure, node.trigger_activate):
        node._attempt(transition)
    one.stopped(S.STATE_STOPPED, "estop")
    assert not one.call("start").success
    assert one.call("clear_estop").success and one.call("start").success


def test_a_fault_that_stays_is_told_once(start_node: Start, robot: MakeRobot) -> None:
    """Not with a stop for every picture: somebody else may command the arm meanwhile."""
    start_node()
    one = robot()
    one.run()
    one.damage = of_another_size

    def refused() -> int:
        return sum(drop.count for drop in one.statuses[-1].drops if drop.reason in ("unusable", "contract"))

    one.stopped(S.STATE_DISABLED, "fault")
    count, before = len(one.twists), refused()
    one.graph.wait(lambda: refused() > before + 10, "more pictures", 20)
    assert len(one.twists) == count


def test_camera_frozen(start_node: Start, robot: MakeRobot) -> None:
    start_node(frozen_after=10)
    one = robot()
    one.run()
    one.picture = np.zeros((64, 64, 3), np.uint8)
    one.stopped(S.STATE_HOLDING, "frozen")


def test_stamps_that_are_too_old_or_of_the_future(start_node: Start, robot: MakeRobot) -> None:
    """New messages with a dead clock are no new observations; and one stamp of tomorrow is not waited for."""
    start_node()
    one = robot()
    one.run()
    for offset in (30.0, -30.0):
        one.offset = offset
        one.stopped(S.STATE_HOLDING, "observation_age")
        count, one.offset = len(one.twists), 0.0
        one.graph.wait(lambda: any(map(moves, one.twists[count:])), "it to go on by itself", 20)  # noqa: B023
    assert any(drop.reason == "ahead" for drop in one.statuses[-1].drops)


def not_a_number(message: Image) -> None:
    pixels = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    pixels[3, 4, 1] = np.nan
    message.encoding, message.step, message.data = "32FC3", SIZE * 12, pixels.tobytes()


def cut_off(message: Image) -> None:
    message.data = message.data[: SIZE * 7]


def of_another_kind(message: Image) -> None:
    message.encoding = "jpeg of a sort"


def of_another_size(message: Image) -> None:
    message.height, message.data = SIZE // 2, message.data[: SIZE // 2 * SIZE * 3]


@pytest.mark.parametrize("damage", [not_a_number, cut_off, of_another_kind])
def test_damaged_pictures_are_no_observations(
    start_node: Start, robot: MakeRobot, damage: Callable[[Image], None]
) -> None:
    start_node()
    one = robot()
    one.run()
    one.damage = damage
    status = one.stopped(S.STATE_HOLDING, "observation_age")
    assert any(drop.reason == "malformed" for drop in status.drops)
    count, one.damage = len(one.twists), lambda message: None
    one.graph.wait(lambda: any(map(moves, one.twists[count:])), "it to go on by itself", 20)


def test_pictures_of_another_size_than_the_contracts_are_a_fault(start_node: Start, robot: MakeRobot) -> None:
    start_node()
    one = robot()
    one.run()
    one.damage = of_another_size
    assert "[32, 64, 3]; the contract says [64, 64, 3]" in one.stopped(S.STATE_DISABLED, "fault").detail


def test_inference_stall(start_node: Start, robot: MakeRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    """One inference takes 500 ms longer than the deadline allows; the robot stands still meanwhile, and goes on."""
    node = start_node(inference_deadline=0.3, max_observation_age=5.0)
    one = robot()
    one.run()
    session = node._pipeline.thinking.session  # type: ignore[union-attr]
    act, stalls = session.act, iter([0.8])
    monkeypatch.setattr(session, "act", lambda *a: (time.sleep(next(stalls, 0.0)), act(*a))[1])
    one.graph.wait(lambda: any(s.reason == "inference_deadline" for s in one.statuses), "the deadline", 20)
    late = next(s for s in one.statuses if s.reason == "inference_deadline")
    assert late.state == S.STATE_HOLDING
    one.graph.wait(lambda: not moves(one.twists[-1]), "a stop command")
    count = len(one.twists)
    one.graph.wait(lambda: any(map(moves, one.twists[count:])), "it to go on by itself", 20)


def test_activated_again_while_the_last_inference_is_still_in_hand(
    start_node: Start, robot: MakeRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step outlives the deactivation that does not wait for it; the node must think again, not starve."""
    node = start_node()
    one = robot()
    one.run()
    session = node._pipeline.thinking.session  # type: ignore[union-attr]
    act, stalls, stalled = session.act, iter([1.5]), threading.Event()
    monkeypatch.setattr(session, "act", lambda *a: (stalled.set(), time.sleep(next(stalls, 0.0)), act(*a))[2])
    monkeypatch.setattr("omnistream_policy.node.STEP_TIMEOUT", 0.05)
    assert stalled.wait(10)
    node._attempt(node.trigger_deactivate)
    node._attempt(node.trigger_activate)
    count = len(one.twists)
    assert one.call("start").success
    one.graph.wait(lambda: any(map(moves, one.twists[count:])), "it to move again", 20)


def test_nan_action(start_node: Start, robot: MakeRobot) -> None:
    node = start_node()
    one = robot()
    one.run()
    with torch.no_grad():
        for parameter in node._pipeline.thinking.session._network.parameters():  # type: ignore[union-attr]
            parameter.fill_(torch.nan)
    status = one.stopped(S.STATE_DISABLED, "not_finite")
    assert "NaN" in status.detail
    assert all(np.isfinite(numbers(twist)).all() for twist in one.twists)


def test_instruction_change_drops_what_was_planned(
    graph: Graph, start_node: Start, robot: MakeRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network has no answer to the new one yet: nothing moves until it has, whatever was planned for the old."""
    node = start_node(inference_deadline=30.0)
    assert node._pipeline is not None
    session, answer_now = node._pipeline.thinking.session, threading.Event()
    act = session.act

    def held(*arguments: Any) -> Any:
        assert "open" in session.instruction or answer_now.wait(10)
        return act(*arguments)

    monkeypatch.setattr(session, "act", held)
    chunks: list[ActionChunk] = graph.collect(ActionChunk, "/policy/chunk", "reliable:100")
    one = robot()
    one.run("open the drawer")
    answer = one.instruct("lift the purple cube")
    assert answer.success and answer.unknown_words == ["purple"]
    assert not node._pipeline.loop.control.plan.chunks
    graph.wait(lambda: not moves(one.twists[-1]), "a stop command")
    count = len(one.twists)
    time.sleep(0.5)  # longer than what was planned
    assert not any(map(moves, one.twists[count:]))
    answer_now.set()
    graph.wait(lambda: chunks[-1].instruction == "lift the purple cube", "a chunk for the new instruction", 20)
    graph.wait(lambda: any(map(moves, one.twists[count:])), "it to move again", 20)
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
