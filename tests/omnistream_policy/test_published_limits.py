# SPDX-License-Identifier: Apache-2.0
"""No command outside the limits ever leaves: looked at where it leaves, in what a receiver hears over real DDS.

The node's own tick, with a clock that the test holds, as fast as it goes. What comes in is worse than any network:
random networks and chunks, NaN, infinity, huge numbers, chunks out of order, time that stands, goes back or leaps.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from rclpy.clock import ClockType
from rclpy.time import Time
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from omnistream.contract import Action, Contract, Dimension, Gripper, Statistics
from omnistream.errors import InputError
from omnistream.policy.guard import Mode, Stop
from omnistream.policy.intake import Place
from omnistream.policy.mind import Thought
from omnistream.policy.session import ActionChunk
from omnistream.sync.aligner import Observation
from omnistream_policy import loop as loop_module
from omnistream_policy.node import PolicyNode
from omnistream_ros.qos import qos_profile
from omnistream_ros.testing import Graph
from tests.omnistream_policy.conftest import CONFIG, SIZE, contract, make_policy, numbers

T, EPS = 0.05, 1e-9
DWELL = 0.3
QUEUE = 1000
"""Messages that a topic may hold; the test waits for the receiver long before."""
WILD = (math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-320)
SPEED = {"twist": np.array([0.1, 0.1, 0.1, 0.5, 0.5, 0.5]), "joint": np.array([0.4, 0.2, 0.6])}
CHANGE = {"twist": 5 * SPEED["twist"], "joint": 4 * SPEED["joint"]}
LOW = {"twist": np.array([-0.05, -0.06, 0.15]), "joint": np.array([-1.0, -0.5, 0.2])}
HIGH = {"twist": np.array([0.05, 0.06, 0.25]), "joint": np.array([1.0, 0.5, 0.8])}
REST = {"twist": np.array([0.0, 0.0, 0.2, 0, 0, 0]), "joint": np.array([0.0, 0.0, 0.5])}
SCALE = np.array([0.02, 0.02, 0.02, 0.05, 0.05, 0.05])


def joints() -> Contract:
    """Absolute targets of three joints, and a gripper that closes at 0.04."""
    dimensions = (*(Dimension(f"joint{i}", "rad") for i in (1, 2, 3)), Dimension("finger", "m"))
    action = Action(dimensions, mode="absolute", frame="joints", grippers=(Gripper(3, 0.0, 0.04),))
    ones, zeros = (1.0,) * 4, (0.0,) * 4
    low, high = (-1.0, -1.0, -1.0, 0.0), (1.0, 1.0, 1.0, 0.04)
    return contract(action=action, action_statistics=Statistics(100, low, high, zeros, ones, low, high))


def velocities() -> Contract:
    """The tool's velocity, in units of which `SCALE` says how much they are in a second."""
    return contract(action=dataclasses.replace(contract().action, mode="velocity"))


COMMON: dict[str, Any] = {"position_topic": "/where", "qos.command": f"reliable:{QUEUE}", "gripper_dwell": DWELL}
KINDS: dict[str, tuple[Contract, dict[str, Any]]] = {
    "twist": (contract(), {"outputs": ["twist", "pose", "action", "gripper"]}),
    "velocity": (velocities(), {"outputs": ["twist", "pose", "action", "gripper"], "action_scale": SCALE.tolist()}),
    "joint": (joints(), {"outputs": ["joint_trajectory", "action", "gripper"], "action_scale": [1.0]}),
}
ARM = {"twist": "twist", "velocity": "twist", "joint": "joint"}
"""Whose limits hold; a velocity moves the same arm as a relative action does."""


def parameters(kind: str) -> dict[str, Any]:
    arm = ARM[kind]
    bounds = {"lower_bound": LOW[arm].tolist(), "upper_bound": HIGH[arm].tolist()}
    if arm == "twist":  # turns have none
        bounds = {
            name: [*values, *[math.copysign(1e9, sign)] * 3]
            for (name, values), sign in zip(bounds.items(), (-1, 1), strict=True)
        }
    limits = {"velocity_limit": SPEED[arm].tolist(), "acceleration_limit": CHANGE[arm].tolist(), "start_jump": [1e9]}
    return COMMON | bounds | limits | KINDS[kind][1]


class Receiver:
    """Hears every topic with a deep reliable queue, and checks each message as it comes."""

    def __init__(self, graph: Graph, kind: str) -> None:
        self.kind, self.heard, self.wrong = ARM[kind], 0, list[str]()
        self.period = T if kind == "twist" else 1.0  # of what a relative action is told for, or a velocity
        self.moved = 0
        self.grippers: list[float] = []
        self._velocity = np.zeros(len(SPEED[self.kind]))
        self._turn: NDArray[np.float64] | None = None
        self._place: NDArray[np.float64] | None = None
        check: dict[str, tuple[Any, Callable[[Any], None]]] = {
            "twist": (TwistStamped, self._twist),
            "pose": (PoseStamped, self._pose),
            "joint_trajectory": (JointTrajectory, self._trajectory),
            "action": (Float64MultiArray, self._action),
            "gripper" if self.kind == "twist" else "finger": (Float64, self._gripper),
        }
        names = [*KINDS[kind][1]["outputs"][:-1], "gripper" if self.kind == "twist" else "finger"]
        for name in names:
            message, look = check[name]
            graph.node.create_subscription(
                message, f"/policy/{name}", self._hear(name, look), qos_profile(f"reliable:{QUEUE}")
            )
        graph.wait(lambda: all(graph.node.count_publishers(f"/policy/{name}") for name in names), "the command topics")

    def _hear(self, name: str, look: Callable[[Any], None]) -> Callable[[Any], None]:
        def hear(message: Any) -> None:
            self.heard += 1
            try:
                look(message)
            except AssertionError as error:
                self.wrong.append(f"{name}: {error}: {message}")

        return hear

    def _speed(self, velocity: NDArray[np.float64]) -> None:
        assert np.isfinite(velocity).all(), "not finite"
        assert (np.abs(velocity) <= SPEED[self.kind] + EPS).all(), "too fast"
        if velocity.any():
            slower = (np.abs(velocity) <= np.abs(self._velocity) + EPS) & (velocity * self._velocity >= -EPS)
            sudden = np.abs(velocity - self._velocity) > CHANGE[self.kind] * T + EPS
            assert not (sudden & ~slower).any(), f"sudden after {self._velocity}"
            self.moved += 1
        self._velocity = velocity

    def _inside(self, place: NDArray[np.float64]) -> None:
        assert np.isfinite(place).all(), "not finite"
        assert ((place >= LOW[self.kind]) & (place <= HIGH[self.kind])).all(), "outside"
        if self._place is not None:
            assert (np.abs(place - self._place) <= SPEED[self.kind][:3] * T + EPS).all(), f"a leap from {self._place}"
        self._place = place

    def _twist(self, message: TwistStamped) -> None:
        self._speed(numbers(message))
        assert message.header.frame_id == "base_link"

    def _pose(self, message: PoseStamped) -> None:
        p, q = message.pose.position, message.pose.orientation
        self._inside(np.array([p.x, p.y, p.z]))
        assert abs(math.hypot(q.x, q.y, q.z, q.w) - 1) < 1e-6, "no rotation"
        turn, before = np.array([q.x, q.y, q.z, q.w]), self._turn
        if before is not None:
            angle = 2 * math.acos(min(1.0, abs(float(turn @ before))))
            assert angle <= np.linalg.norm(SPEED["twist"][3:]) * T + 1e-6, f"a turn of {angle} from {before}"
        self._turn = turn

    def _trajectory(self, message: JointTrajectory) -> None:
        places = np.array([point.positions for point in message.points])
        self._speed(np.array(message.points[0].velocities))
        self._inside(places[0])
        assert list(message.joint_names) == ["joint1", "joint2", "joint3"]
        assert not np.any(message.points[-1].velocities), "does not end at rest"
        assert ((places >= LOW["joint"]) & (places <= HIGH["joint"])).all(), "outside"
        assert (np.abs(np.diff(places, axis=0)) <= SPEED["joint"] * T + EPS).all(), "a leap"
        times = [point.time_from_start.sec + point.time_from_start.nanosec / 1e9 for point in message.points]
        assert times == [T, 2 * T][: len(times)], "times"

    def _action(self, message: Float64MultiArray) -> None:
        *arm, gripper = message.data
        values = np.array(arm)
        assert np.isfinite(values).all(), "not finite"
        self._closes(gripper)
        if self.kind == "twist":
            assert (np.abs(values) <= SPEED["twist"] * self.period / SCALE + EPS).all(), "too fast"
        else:
            assert ((values >= LOW["joint"]) & (values <= HIGH["joint"])).all(), "outside"

    def _gripper(self, message: Float64) -> None:
        self._closes(message.data)
        self.grippers.append(message.data)

    def _closes(self, value: float) -> None:
        assert value in ((1.0, -1.0) if self.kind == "twist" else (0.0, 0.04)), "neither open nor closed"


class Driver:
    """The configured node, whose time and inputs are the test's."""

    def __init__(self, node: PolicyNode, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        assert node._pipeline is not None
        self.node, self.pipeline, self.loop = node, node._pipeline, node._pipeline.loop
        self.inputs, self.mind = node._pipeline.inputs, node._pipeline.thinking.mind
        self.control = self.loop.control
        self.draw = np.random.default_rng(seed)
        self.ros, self.steady = 1e6, 50.0  # far from zero, which no jump of the clock below may reach
        self.number = self.networks = self.refused = 0
        self.passed = 0.0
        self.at: list[float] = []
        """ROS time that had passed, without going back and without leaps, at each command that moved."""
        monkeypatch.setattr(loop_module, "time", types.SimpleNamespace(monotonic=lambda: self.steady))
        clock = types.SimpleNamespace(
            now=lambda: Time(nanoseconds=round(self.ros * 1e9), clock_type=ClockType.ROS_TIME)
        )
        monkeypatch.setattr(node, "get_clock", lambda: clock)
        self.mind.instruct("open the drawer")
        self.kind = "joint" if self.control.settings.contract.action.mode == "absolute" else "twist"
        self.rest()

    def rest(self) -> None:
        """An arm that is where and as it was told to be, at first at rest in the middle."""
        target = self.control.motion.position
        place = REST[self.kind] if target is None else target
        turned = self.loop.drive.outbox.orientation
        self.inputs.place = Place(place, (0.0, 0.0, 0.0, 1.0) if turned is None else turned, self.steady)

    def step(self) -> None:
        """Something happens, time goes on, a tick."""
        draw = self.draw
        chance = draw.random()
        if chance < 0.45:
            self.adopt(self.wild())
        elif chance < 0.47:
            self.think()
        elif chance < 0.48:
            self.interfere()
        elif chance < 0.485:
            self.node._requests.instruction = str(draw.choice(["", "lift the red cube"]))
        if self.control.guard.mode is Mode.DISABLED:
            self.loop.start()
        if not self.node._requests.instruction and draw.random() < 0.2:
            self.node._requests.instruction = "open the drawer"
        elapsed = float(draw.choice([T, 0.0, -T, 10 * T, 0.3 * T], p=[0.8, 0.05, 0.05, 0.05, 0.05]))
        self.ros, self.passed = self.ros + elapsed, self.passed + max(0.0, elapsed)
        self.steady += float(draw.choice([T, 0.0, 10 * T], p=[0.96, 0.03, 0.01]))
        self.inputs.newest = self.observation()
        before = self.control.moves
        self.loop._tick()
        if self.control.moves > before:
            self.at.append(self.passed)
        self.rest()

    def observation(self) -> Observation | None:
        draw = self.draw.random()
        if draw < 0.01:
            return None
        late = 0.0 if draw < 0.97 else float(self.draw.choice([5.0, -5.0]))
        return Observation(round((self.ros - late) * 1e9), round(self.steady * 1e9), {}, {})

    def wild(self) -> NDArray[np.float64]:
        """A chunk of any size, now and then with something in it that is no number."""
        draw, width = self.draw, len(self.control.settings.contract.action.dimensions)
        chunk = draw.normal(size=(int(draw.integers(1, 9)), width)) * 10.0 ** draw.uniform(-3, 3)
        if draw.random() < 0.05:
            chunk[int(draw.integers(len(chunk))), int(draw.integers(width))] = draw.choice(WILD)
        if draw.random() < 0.01:
            chunk = chunk[:, :-1]
        return chunk

    def adopt(self, actions: NDArray[np.float64]) -> None:
        """In order, too late, out of order, from the future, from nowhere."""
        ago = self.draw.choice([0.0, T, 3 * T, -T, -5.0, math.nan], p=[0.6, 0.1, 0.1, 0.1, 0.05, 0.05])
        made = self.control.settings.contract
        self.number += 1
        chunk = ActionChunk(
            actions=actions, names=made.action_names, units=(), rate=made.rate, grippers=(),
            opened=np.zeros(0, np.float32), index=self.number, stamp=self.ros - ago,
        )  # fmt: skip
        self.loop.adopt(Thought(self.number, "chunk", self.control.tick_now, chunk))

    def think(self) -> None:
        """The real session, with another random network: its own weights times anything, or NaN among them."""
        draw, session = self.draw, self.mind.session
        self.networks += 1
        with torch.no_grad():
            for parameter in session._network.parameters():
                parameter.copy_(
                    torch.from_numpy(draw.normal(size=tuple(parameter.shape)) * 10.0 ** draw.uniform(-2, 3))
                )
            if draw.random() < 0.2:
                parameter.view(-1)[0] = float(draw.choice(WILD[:3]))
        picture = draw.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        try:
            chunk = session.step({"front": picture}, stamp=self.ros)
        except InputError:
            self.refused += 1
            self.pipeline._on_failure("not_finite", "a random network")
            self.loop.stop(Stop.NOT_FINITE, "")
            return
        self.number += 1
        self.loop.adopt(Thought(self.number, "chunk", self.control.tick_now, chunk))

    def interfere(self) -> None:
        """People and clocks."""
        what = int(self.draw.integers(5))
        if what == 0:
            self.loop.stop(Stop.REQUESTED, "")
        elif what == 1:
            self.loop.estop()
            self.loop.clear()
        elif what == 2:
            self.ros += float(self.draw.choice([-500.0, 500.0]))
            self.loop.forget(clock=True)
        elif what == 3:
            self.loop.forget()
        else:
            self.loop._send_stop(lambda stamp, now: self.loop.drive.hold(Stop.TICK_LATE, stamp=stamp, now=now))


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("wild")
    return {kind: make_policy(folder / kind, made, CONFIG) for kind, (made, _) in KINDS.items()}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("steps", [3000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_nothing_outside_the_limits_is_ever_heard(
    graph: Graph,
    start_node: Callable[..., PolicyNode],
    policies: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    steps: int,
) -> None:
    node = start_node(wait=False, autostart=False, policy=policies[kind], **parameters(kind))
    assert str(node._attempt(node.trigger_configure)).endswith("SUCCESS"), node.fault
    receiver, driver = Receiver(graph, kind), Driver(node, monkeypatch, seed=steps)
    outputs = driver.loop.drive.outbox.outputs
    publishers = list(driver.pipeline.outputs._publishers.values())
    graph.wait(lambda: all(publisher.get_subscription_count() for publisher in publishers), "the receiver")
    sent = driver.loop.drive.left
    node._requests.instruction = "open the drawer"
    for step in range(steps):
        driver.step()
        if step % 100 == 99:
            graph.wait(lambda: receiver.heard >= sent.messages, f"all that was sent by step {step}", 60)
            assert not receiver.wrong, receiver.wrong[0]
    assert receiver.heard == sent.messages > steps * len(outputs) / 4, "a message was lost, or there were few"
    assert receiver.moved > steps / 10 and driver.networks > steps / 100 and driver.refused
    assert set(driver.control.drops) == {"not_finite", "future", "overtaken"}
    assert set(driver.control.clamps) == {"period", "velocity", "acceleration", "bounds", "dwell"}
    changes = [i for i, (a, b) in enumerate(itertools.pairwise(receiver.grippers), 1) if a != b]
    assert len(receiver.grippers) == len(driver.at) and len(changes) > 5
    kept = np.diff([driver.at[i] for i in changes])
    assert kept.min() > DWELL - T - EPS, "a gripper changed too soon"  # ticks are whole periods
    print(
        f"{steps} steps, {receiver.heard} messages heard, {len(changes)} gripper changes, shortest {kept.min():.3f} s"
    )
