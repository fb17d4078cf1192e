# SPDX-License-Identifier: Apache-2.0
"""Each kind of command as a receiver gets it, from a real node: what it means, where it begins, what its stop is."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray, Header
from trajectory_msgs.msg import JointTrajectory

from omnistream.contract import Contract
from omnistream.errors import ConfigError
from omnistream.policy.settings import DEFAULTS, control_settings, output_names
from omnistream_msgs.msg import PolicyStatus
from omnistream_policy.node import PolicyNode
from omnistream_ros.images import seconds_to_stamp
from omnistream_ros.testing import Graph
from tests.omnistream_policy.conftest import CONFIG, RATE, Robot, contract, make_policy, moves
from tests.omnistream_policy.test_faults import action
from tests.omnistream_policy.test_published_limits import joints

T = 1 / RATE
TURNED = (0.0, 0.0, 0.6, 0.8)
START = (0.4, -0.1, 0.3)
ANGLES = {"elbow": 0.3, "shoulder": -0.2, "wrist": 0.1, "camera_tilt": 1.0}
NAMES = ["shoulder", "elbow", "wrist"]
MANY = "reliable:1000"
S = PolicyStatus


class Where:
    """Says where the arm is, from a thread of its own; `message` is changed by whoever moves it."""

    def __init__(self, graph: Graph, message: PoseStamped | JointState) -> None:
        self.message = message
        publisher = graph.node.create_publisher(type(message), "/where", 5)
        self._ended = threading.Event()

        def tell() -> None:
            while not self._ended.wait(0.02):
                publisher.publish(self.message)

        self._thread = threading.Thread(target=tell, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def where(graph: Graph) -> Iterator[Callable[[PoseStamped | JointState], Where]]:
    made: list[Where] = []

    def tell(message: PoseStamped | JointState) -> Where:
        made.append(Where(graph, message))
        return made[-1]

    yield tell
    for one in made:
        one.close()


def followed(graph: Graph, kind: type, topic: str, follow: Callable[[Any], None]) -> list[Any]:
    """The targets that are heard; the arm is where the last of them wants it."""
    heard: list[Any] = []

    def hear(message: Any) -> None:
        heard.append(message)
        follow(message)

    graph.node.create_subscription(kind, topic, hear, 1000)
    return heard


def pose_of(message: PoseStamped) -> np.ndarray:
    p = message.pose.position
    return np.array([p.x, p.y, p.z])


def test_pose_targets_go_on_from_where_the_tool_is(
    graph: Graph, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot], where: Callable[..., Where]
) -> None:
    x, y, z, w = TURNED
    pose = Pose(position=Point(x=START[0], y=START[1], z=START[2]), orientation=Quaternion(x=x, y=y, z=z, w=w))
    arm = where(PoseStamped(header=Header(frame_id="base_link"), pose=pose))
    poses = followed(graph, PoseStamped, "/policy/pose", lambda target: setattr(arm, "message", target))
    start_node(outputs=["twist", "pose"], position_topic="/where")
    one = robot()
    one.run()
    graph.wait(lambda: len(poses) > 20, "targets", 20)
    assert one.call("stop").success
    one.stopped(S.STATE_DISABLED, "requested")

    places = np.stack([pose_of(message) for message in poses])
    first = next(pose.pose.orientation for pose in poses)
    assert np.abs(places[0] - START).max() <= 0.1 * T + 1e-9, "the first target is one period's way from the arm"
    assert np.abs(np.array([first.x, first.y, first.z, first.w]) - TURNED).max() < 0.05, "and so is its orientation"
    # Twice a period's way: after a pause it goes on from where the arm was heard to be, one target behind perhaps.
    assert (np.abs(np.diff(places, axis=0)) <= 2 * 0.1 * T + 1e-9).all()
    assert {message.header.frame_id for message in poses} == {"base_link"}
    compared = 0  # a target is the one before and a period's way, at most, at the twist beside it
    for before, after in itertools.pairwise(poses):
        twist = next((t for t in one.twists if t.header.stamp == after.header.stamp), None)
        way = pose_of(after) - pose_of(before)
        if twist is not None and moves(twist) and way.any():
            v = np.array([twist.twist.linear.x, twist.twist.linear.y, twist.twist.linear.z])
            share = float(way @ v / (v @ v))
            compared += 0 <= share <= T + 1e-6 and np.allclose(way, share * v, atol=1e-6)
    assert compared >= 5
    last = [pose_of(message) for message in poses[-3:]]
    assert np.allclose(last[0], last[-1]), "a stop is the last target, told again"


@pytest.fixture(scope="module")
def joint_policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_policy(tmp_path_factory.mktemp("joints") / "policy", joints(), CONFIG)


JOINTS = {"action_scale": [1.0], "position_topic": "/where", "joint_names": NAMES, "start_jump": [1e9]}


@pytest.mark.parametrize("velocities", [True, False], ids=["with velocities", "positions only"])
def test_joint_trajectories(
    graph: Graph, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot], where: Callable[..., Where],
    joint_policy: str, velocities: bool,
) -> None:  # fmt: skip
    """As joint_trajectory_controller wants them; a gripper beside it has its dimension's name."""
    arm = where(JointState(name=list(ANGLES), position=list(ANGLES.values())))

    def follow(target: JointTrajectory) -> None:
        angles = ANGLES | dict(zip(NAMES, target.points[0].positions, strict=True))
        arm.message = JointState(name=list(angles), position=list(angles.values()))

    limits = {"velocity_limit": [0.5], "acceleration_limit": [5.0], "lower_bound": [-1.0], "upper_bound": [1.0]}
    sent = followed(graph, JointTrajectory, "/policy/joint_trajectory", follow)
    start_node(policy=joint_policy, trajectory_velocities=velocities, **JOINTS, **limits)
    fingers: list[Float64] = graph.collect(Float64, "/policy/finger", MANY)
    one = robot()
    one.showing.set()
    assert one.instruct("open the drawer").success and one.call("start").success
    graph.wait(lambda: len(sent) > 20, "trajectories", 20)
    assert one.call("stop").success
    graph.wait(lambda: one.statuses[-1].state == S.STATE_DISABLED, "the stop")
    # The last target, and the stop that asks for the same three times.
    graph.wait(lambda: len({tuple(message.points[0].positions) for message in sent[-4:]}) == 1, "it, repeated")

    start = np.array([ANGLES[name] for name in NAMES])
    places = np.stack([np.array(message.points[0].positions) for message in sent])
    assert np.abs(places[0] - start).max() <= 0.5 * T + 1e-9
    assert (np.abs(np.diff(places, axis=0)) <= 2 * 0.5 * T + 1e-9).all() and np.abs(places).max() <= 1.0
    assert {tuple(message.joint_names) for message in sent} == {tuple(NAMES)}
    assert all(message.header.stamp.sec == message.header.stamp.nanosec == 0 for message in sent), (
        "begins when it comes"
    )
    stop = sent[-1]
    moving = next(message for message in sent if len(message.points) == (2 if velocities else 1))
    assert len(stop.points) == 1
    nanoseconds = [point.time_from_start.nanosec for point in moving.points]
    assert nanoseconds == [round(T * 1e9), round(2 * T * 1e9)][: len(nanoseconds)]
    if velocities:
        assert not any(moving.points[1].velocities) and not any(stop.points[0].velocities)
        assert np.abs(np.array(moving.points[0].velocities)).max() <= 0.5 + 1e-9
    else:
        assert all(len(point.velocities) == 0 for message in sent for point in message.points)
    assert np.allclose(stop.points[0].positions, places[-4], atol=1e-9)
    assert fingers and {message.data for message in fingers} <= {0.0, 0.04}


def test_a_stop_never_names_an_old_place(
    graph: Graph, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot], where: Callable[..., Where],
    joint_policy: str,
) -> None:  # fmt: skip
    """Stopped, then moved by somebody else: no stop after that, and no way back to work, asks for the old place."""
    arm = where(JointState(name=list(ANGLES), position=list(ANGLES.values())))
    sent: list[JointTrajectory] = graph.collect(JointTrajectory, "/policy/joint_trajectory", MANY, connect=False)
    node = start_node(policy=joint_policy, velocity_limit=[0.5], acceleration_limit=[5.0], **JOINTS)
    one = robot()
    one.showing.set()
    assert one.instruct("open the drawer").success and one.call("start").success
    graph.wait(lambda: len(sent) > 5, "trajectories", 20)
    assert one.call("stop").success
    time.sleep(10 * T)  # the stop, and its repetitions
    heard, away = len(sent), [2.0, 2.0, 2.0, 2.0]
    arm.message = JointState(name=list(ANGLES), position=away)
    for service in ("stop", "reset", "estop", "clear_estop"):
        assert one.call(service).success
    node._attempt(node.trigger_deactivate)
    node._attempt(node.trigger_activate)
    time.sleep(10 * T)
    assert len(sent) == heard
    node._attempt(node.trigger_deactivate)


def test_a_pause_right_after_a_stop_ends_its_repetitions(
    graph: Graph, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot], where: Callable[..., Where],
    joint_policy: str,
) -> None:  # fmt: skip
    """Deactivated while it moves: that stop names the last target, and is not said again half a second later."""
    where(JointState(name=list(ANGLES), position=list(ANGLES.values())))
    sent: list[JointTrajectory] = graph.collect(JointTrajectory, "/policy/joint_trajectory", MANY, connect=False)
    node = start_node(policy=joint_policy, velocity_limit=[0.5], acceleration_limit=[5.0], **JOINTS)
    one = robot()
    one.showing.set()
    assert one.instruct("open the drawer").success and one.call("start").success
    graph.wait(lambda: len(sent) > 5, "trajectories", 20)
    node._attempt(node.trigger_deactivate)
    time.sleep(10 * T)
    heard = len(sent)
    node._attempt(node.trigger_activate)
    time.sleep(10 * T)
    assert len(sent) == heard


def test_a_pose_waits_until_it_is_known_how_the_tool_is_turned(
    graph: Graph, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot], where: Callable[..., Where]
) -> None:
    """Started before anybody said where the tool is: the first target is turned as the tool, not as the identity."""
    poses: list[PoseStamped] = graph.collect(PoseStamped, "/policy/pose", MANY, connect=False)
    start_node(outputs=["pose"], position_topic="/where")
    one = robot()
    one.showing.set()
    assert one.instruct("open the drawer").success and one.call("start").success
    graph.wait(lambda: one.statuses[-1].reason == "state_age", "it to wait for the place")
    x, y, z, w = TURNED
    pose = Pose(position=Point(x=START[0], y=START[1], z=START[2]), orientation=Quaternion(x=x, y=y, z=z, w=w))
    where(PoseStamped(header=Header(frame_id="base_link"), pose=pose))
    graph.wait(lambda: poses, "a target", 20)
    first = poses[0].pose.orientation
    assert np.abs(np.array([first.x, first.y, first.z, first.w]) - TURNED).max() < 0.05


@pytest.mark.parametrize("wrong", ["frame", "age"])
def test_a_place_of_another_frame_or_of_long_ago_is_not_believed(
    graph: Graph, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot], where: Callable[..., Where],
    wrong: str,
) -> None:  # fmt: skip
    pose = Pose(position=Point(x=START[0], y=START[1], z=START[2]))
    header = Header(frame_id="world") if wrong == "frame" else Header(frame_id="base_link", stamp=seconds_to_stamp(1.0))
    arm = where(PoseStamped(header=header, pose=pose))
    start_node(outputs=["pose"], position_topic="/where")
    one = robot()
    one.showing.set()
    assert one.instruct("open the drawer").success and one.call("start").success
    graph.wait(lambda: one.statuses[-1].reason == "state_age", "it to wait for the place")
    if wrong == "frame":
        graph.wait(lambda: "position_frame" in {drop.reason for drop in one.statuses[-1].drops}, "why")
    time.sleep(5 * T)
    assert one.statuses[-1].reason == "state_age"
    arm.message = PoseStamped(header=Header(frame_id="base_link"), pose=pose)
    graph.wait(lambda: one.statuses[-1].state == S.STATE_RUNNING, "it to go on", 20)


def test_a_refused_first_target_says_what_was_wrong(
    graph: Graph, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot], where: Callable[..., Where],
    joint_policy: str,
) -> None:  # fmt: skip
    where(JointState(name=list(ANGLES), position=list(ANGLES.values())))
    start_node(policy=joint_policy, velocity_limit=[0.5], acceleration_limit=[5.0], **JOINTS | {"start_jump": [1e-6]})
    one = robot()
    one.showing.set()
    assert one.instruct("open the drawer").success and one.call("start").success
    graph.wait(lambda: one.statuses[-1].reason == "start_jump", "the refusal", 20)
    status = next(status for status in one.statuses if status.reason == "start_jump")
    assert status.state == S.STATE_DISABLED and "at most 1e-06" in status.detail


def test_actions_are_in_the_contracts_own_units(
    graph: Graph, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot]
) -> None:
    start_node(outputs=["twist", "action"])
    sent: list[Float64MultiArray] = graph.collect(Float64MultiArray, "/policy/action", MANY)
    one = robot()
    one.run()
    graph.wait(lambda: len(sent) > 20, "actions", 20)
    assert one.call("stop").success
    one.stopped(S.STATE_DISABLED, "requested")
    values = np.array([message.data for message in sent])
    most = np.array([0.1, 0.1, 0.1, 0.5, 0.5, 0.5]) * T / np.array([0.02, 0.02, 0.02, 0.05, 0.05, 0.05])
    assert (np.abs(values[:, :6]) <= most + 1e-9).all() and set(values[:, 6]) <= {1.0, -1.0}
    assert sent[0].layout.dim[0].label == "x,y,z,roll,pitch,yaw,gripper"
    assert not values[-1, :6].any() and values[-1, 6] == values[-2, 6], "a stop; what is held is not dropped"


@pytest.mark.parametrize(
    ("made", "given", "said"),
    [
        (contract(), {"outputs": ["pose"]}, "needs position_topic"),
        (contract(), {"outputs": ["joint_trajectory"], "position_topic": "/where"}, "needs an action in joint space"),
        (joints(), {"outputs": ["twist"]}, "needs 3 or 6 Cartesian dimensions"),
        (joints(), {"outputs": ["joint_trajectory"]}, "needs position_topic"),
        (contract(action=action(mode="absolute")), {"outputs": ["twist"]}, "needs deltas or velocities"),
        (contract(), {"upper_bound": [1e9, 1e9, 1e9, 0.5, 1e9, 1e9]}, "bounds of roll are -inf and 0.5"),
    ],
)
def test_an_output_that_cannot_be_filled_is_refused(made: Contract, given: dict[str, Any], said: str) -> None:
    whole = DEFAULTS | {"action_scale": [1.0], "velocity_limit": [0.1], "acceleration_limit": [0.5]} | given
    with pytest.raises(ConfigError, match=said):
        output_names(whole, control_settings(whole, made))
