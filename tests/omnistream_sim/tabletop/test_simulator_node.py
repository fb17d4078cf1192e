# SPDX-License-Identifier: Apache-2.0
"""The simulator node over real DDS: what it publishes is one consistent moment, and the arm does what it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: pip install -e '.[ros]'")
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, Float64MultiArray, String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from omnistream.errors import OmniStreamError
from omnistream.geometry import rigid
from omnistream_ros.images import decode, decode_depth_image, stamp_to_ns
from omnistream_ros.recorder import pose_matrix
from omnistream_ros.testing import Graph
from omnistream_sim.tabletop import live
from omnistream_sim.tabletop.kinematics import forward
from omnistream_sim.tabletop.ros import parameters
from omnistream_sim.tabletop.ros.node import main
from omnistream_sim.tabletop.ros.simulator import SimulatorNode

pytestmark = pytest.mark.ros

SIZE = (36, 48)
MANY = "reliable:1000"
Start = Callable[..., SimulatorNode]


@pytest.fixture
def graph(ros_domain: int) -> Iterator[Graph]:
    with Graph(ros_domain) as graph:
        yield graph


@pytest.fixture
def start(graph: Graph) -> Iterator[Start]:
    """``start(frames=5, ...)``: a node with these parameters that waits for a subscriber of its first image."""
    nodes: list[SimulatorNode] = []

    def start(**given: Any) -> SimulatorNode:
        given = {"image_size": [SIZE[1], SIZE[0]], "rate": 20, "wait_for_subscribers": 1} | given
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        nodes.append(graph.add(SimulatorNode(context=graph.context, parameter_overrides=overrides)))
        return nodes[-1]

    yield start
    for node in nodes:
        node.stop()


def stamps(messages: list[Any]) -> list[int]:
    return [stamp_to_ns(message.header.stamp) for message in messages]


def transforms(messages: list[TFMessage], stamp: Any = None) -> dict[tuple[str, str], np.ndarray]:
    """T_parent_child by (parent, child), of one stamp if given."""
    found = {}
    for message in messages:
        for one in message.transforms:
            if stamp is None or one.header.stamp == stamp:
                t, q = one.transform.translation, one.transform.rotation
                pose = rigid.from_translation_quaternion([t.x, t.y, t.z, q.x, q.y, q.z, q.w])
                found[one.header.frame_id, one.child_frame_id] = pose
    return found


def test_the_robots_cameras_tell_one_moment(graph: Graph, start: Start) -> None:
    kinds = {"image_raw": Image, "camera_info": CameraInfo, "ground_truth/depth": Image}
    kinds |= {"ground_truth/pose": PoseStamped, "ground_truth/odometry": Odometry}
    got = {
        (c, t): graph.collect(kind, f"/{c}/{t}", MANY, False) for c in ("static", "wrist") for t, kind in kinds.items()
    }
    joints = graph.collect(JointState, "/joint_states", MANY, False)
    moving = graph.collect(TFMessage, "/tf", MANY, False)
    still = graph.collect(TFMessage, "/tf_static", "latched", False)
    episodes = graph.collect(String, "/simulator/episode", "latched", False)
    node = start(frames=4, seed=5)
    assert node.finished.wait(30) and node.exit_code == 0
    graph.wait(lambda: len(joints) == 4 and all(len(messages) == 4 for messages in got.values()), "all messages")

    wanted = stamps(joints)
    assert sorted(set(wanted)) == wanted, "stamps grow"
    for (camera, topic), messages in got.items():
        assert stamps(messages) == wanted, f"{camera}/{topic} carries the stamp of its moment"
        frame = "world" if "pose" in topic or "odometry" in topic else f"{camera}_optical_frame"
        assert {message.header.frame_id for message in messages} == {frame}
    assert json.loads(episodes[0].data)["seed"] == 5

    # The same simulation beside ROS gives the same pixels, K, poses and joints.
    twin = live.open_live(live.LiveConfig(size=SIZE, rate=20))
    twin.begin(5, "shipped", None)
    for index in range(4):
        if index:
            twin.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
        moment = twin.look()
        np.testing.assert_allclose(joints[index].position[:7], moment.joints, atol=1e-12)
        for camera in ("static", "wrist"):
            picture = moment.pictures[camera]
            image, depth = got[camera, "image_raw"][index], got[camera, "ground_truth/depth"][index]
            assert (image.encoding, depth.encoding) == ("rgb8", "32FC1")
            np.testing.assert_array_equal(decode(image), picture.rgb)
            np.testing.assert_array_equal(decode_depth_image(depth), picture.depth)
            np.testing.assert_allclose(np.reshape(got[camera, "camera_info"][index].k, (3, 3)), picture.K)
            pose = pose_matrix(got[camera, "ground_truth/pose"][index].pose)
            np.testing.assert_allclose(pose, picture.T_world_camera, atol=1e-9)
            assert got[camera, "ground_truth/odometry"][index].child_frame_id == f"{camera}_optical_frame"
    twin.close()

    # The tree of transforms leads to the same cameras, and to the tool where the joints say it is.
    fixed = transforms(still)
    np.testing.assert_allclose(
        fixed["world", "static_optical_frame"], pose_matrix(got["static", "ground_truth/pose"][0].pose), atol=1e-6
    )
    for index, message in enumerate(joints):
        hand = fixed["world", "panda_link0"] @ transforms(moving, message.header.stamp)["panda_link0", "panda_hand"]
        wrist = hand @ fixed["panda_hand", "wrist_optical_frame"]
        np.testing.assert_allclose(wrist, pose_matrix(got["wrist", "ground_truth/pose"][index].pose), atol=1e-6)
        tool = hand @ fixed["panda_hand", "panda_hand_tcp"]
        np.testing.assert_allclose(tool, forward(np.array(message.position[:7])), atol=1e-4)


def test_the_flying_camera_publishes_the_clip_of_its_seed_on_simulated_time(graph: Graph, start: Start) -> None:
    from omnistream_sim.tabletop.clips import Tabletop
    from omnistream_sim.tabletop.config import TabletopConfig

    images = graph.collect(Image, "/flying/image_raw", MANY, False)
    depths = graph.collect(Image, "/flying/ground_truth/depth", MANY, False)
    odometry = graph.collect(Odometry, "/flying/ground_truth/odometry", MANY, False)
    clock = graph.collect(Clock, "/clock", "sensor:100", False)
    moving = graph.collect(TFMessage, "/tf", MANY, False)
    start(
        cameras=["flying"], seed=11, rate=10, real_time_factor=4.0, flight=["min_path=1"], flight_length=0.6, frames=12,
        publish_clock=True,
    )  # fmt: skip
    graph.wait(lambda: len(odometry) == len(images) == len(depths) == 12 and len(moving) == 12, "twelve moments", 30)

    clip = Tabletop(TabletopConfig(min_path=1)).clips([11], frames=6, size=SIZE, rate=10.0)
    order = [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, 1]  # there and back, without a jump
    for message, depth, truth, frame in zip(images, depths, odometry, order, strict=True):
        np.testing.assert_array_equal(decode(message), clip.rgb[0, frame].numpy())
        np.testing.assert_array_equal(decode_depth_image(depth), clip.depth[0, frame].numpy())
        pose = pose_matrix(truth.pose.pose)
        np.testing.assert_allclose(pose, clip.T_world_camera[0, frame].numpy(), atol=1e-5)
        in_tree = transforms(moving, message.header.stamp)["world", "flying_optical_frame"]
        np.testing.assert_allclose(in_tree, pose, atol=1e-9)
    assert stamps(images) == [100_000_000 * (i + 1) for i in range(12)], "ten a simulated second, however fast"
    assert [stamp_to_ns(tick.clock) for tick in clock] == stamps(images)

    # The twist brings a pose to the next one.
    before, now = (pose_matrix(odometry[i].pose.pose) for i in (1, 2))
    linear = odometry[2].twist.twist.linear
    moved = now[:3, :3].T @ (now[:3, 3] - before[:3, 3])
    np.testing.assert_allclose([linear.x * 0.1, linear.y * 0.1, linear.z * 0.1], moved, atol=0.05 * np.abs(moved).max())
    assert graph.node.count_subscribers("/simulator/relative_action") == 0, "nothing can be commanded in a film"


def test_commands_move_the_tool(graph: Graph, start: Start) -> None:
    joints = graph.collect(JointState, "/joint_states", MANY, False)
    reports = graph.collect(DiagnosticArray, "/diagnostics", connect=False)
    start(wait_for_subscribers=0, command_timeout=0.4, rate=40)
    graph.wait(lambda: len(joints) > 2, "joint states")

    def tool() -> np.ndarray:
        return forward(np.array(joints[-1].position[:7]))[:3, 3]

    def settled() -> np.ndarray:
        def quiet() -> bool:
            last = [forward(np.array(message.position[:7]))[:3, 3] for message in joints[-8:]]
            return len(last) == 8 and bool(np.ptp(last, axis=0).max() < 2e-5)

        time.sleep(0.3)
        graph.wait(quiet, "a tool at rest")
        return tool()

    begin = settled()
    graph.publish(
        Float64MultiArray, "/simulator/relative_action", Float64MultiArray(data=[1.0, 0, 0, 0, 0, 0, 1.0]), "command"
    )
    np.testing.assert_allclose(settled() - begin, [0.02, 0, 0], atol=1e-3)

    begin = settled()
    twist = TwistStamped()
    twist.header.frame_id = "world"
    twist.twist.linear.y = 0.1
    graph.publish(TwistStamped, "/simulator/delta_twist_cmds", twist, "command")
    moved = settled() - begin  # until the timeout, 0.4 s, not for ever; a busy machine stretches nothing but itself
    assert 0.005 < moved[1] < 0.06 and np.abs(moved[[0, 2]]).max() < 2e-3, moved

    begin = settled()
    twist.header.frame_id, twist.twist.linear.y, twist.twist.linear.z = "panda_hand_tcp", 0.0, 0.1
    graph.publish(TwistStamped, "/simulator/delta_twist_cmds", twist, "command")
    assert settled()[2] < begin[2] - 0.005, "along the fingers, which point down"

    graph.publish(Float64, "/simulator/gripper_command", Float64(data=-1.0), "command")
    graph.wait(lambda: sum(joints[-1].position[7:]) < 0.01, "closed fingers")

    def told(word: str) -> Callable[[], bool]:
        return lambda: any(word in status.message for array in reports for status in array.status)

    twist.header.frame_id = "elsewhere"
    graph.publish(TwistStamped, "/simulator/delta_twist_cmds", twist, "command")
    graph.wait(told("expected one of world, panda_link0, panda_hand_tcp"), "a refusal in the diagnostics")
    nothing = Float64MultiArray(data=[float("nan")] * 7)
    graph.publish(Float64MultiArray, "/simulator/relative_action", nothing, "command")
    graph.wait(told("7 finite numbers"), "a refusal in the diagnostics")
    assert np.isfinite(settled()).all(), "what is refused changes nothing"


def test_reset_next_and_start(graph: Graph, start: Start) -> None:
    episodes = graph.collect(String, "/simulator/episode", "latched", False)
    images = graph.collect(Image, "/static/image_raw", MANY, False)
    node = start(wait_for_subscribers=0, cameras=["static"], seed=3)
    graph.wait(lambda: images, "an image")
    first = decode(images[0])

    answer = graph.call(Trigger, "/simulator/next")
    assert answer.success and "seed 4" in answer.message
    graph.wait(lambda: len(episodes) == 2, "the second episode")
    graph.wait(lambda: (decode(images[-1]) != first).any(), "another picture")

    assert graph.set_parameter("/simulator", "start", "{nonsense").successful is False
    assert graph.set_parameter("/simulator", "start", '{"drawer": 7.0}').successful
    answer = graph.call(Trigger, "/simulator/reset")
    assert not answer.success and "drawer 7.0" in answer.message, answer.message
    assert graph.set_parameter("/simulator", "start", '{"drawer": 0.12, "lamp": true}').successful
    assert graph.call(Trigger, "/simulator/reset").success
    state = node._live.state()
    assert state is not None and state.lamp and state.drawer == pytest.approx(0.12, abs=0.02)

    assert graph.set_parameter("/simulator", "start", "").successful
    assert graph.set_parameter("/simulator", "seed", 3).successful
    count = len(images)
    assert graph.call(Trigger, "/simulator/reset").success
    graph.wait(lambda: len(images) > count + 2, "more images")
    assert any((decode(image) == first).all() for image in images[count:]), "the same seed, the same episode"


def test_a_rate_that_cannot_be_kept_is_told(graph: Graph, start: Start) -> None:
    reports = graph.collect(DiagnosticArray, "/diagnostics", connect=False)
    node = start(wait_for_subscribers=0, rate=240, real_time_factor=10.0, cameras=["flying"])

    def told() -> bool:
        return any("2400.0 Hz asked" in status.message for array in reports for status in array.status)

    graph.wait(told, "a warning")
    assert graph.set_parameter("/simulator", "real_time_factor", 0.02).successful
    graph.wait(lambda: "Hz asked" not in node.report().message, "a rate that is kept")
    assert node.report().values["asked_hz"] == pytest.approx(4.8)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"cameras": ["flying", "static"]}, "flying alone"),
        ({"rate": 50}, "divisor of 240"),
        ({"cameras": ["flying"], "flight": ["height=3"]}, "unknown option 'height'"),
        ({"cameras": ["flying"], "start": '{"drawer": 0.1}'}, "drawn from the seed"),
        ({"image_size": [64]}, "width, height"),
    ],
)
def test_what_cannot_work_is_refused_at_once(given: dict[str, Any], says: str, start: Start) -> None:
    with pytest.raises(OmniStreamError, match=says):
        start(**given)


def test_tables_agree_with_the_code(graph: Graph, start: Start) -> None:
    assert parameters.CAMERA_NAMES == live.CAMERAS
    node = start(wait_for_subscribers=1, publish_clock=True)
    own = {name for name, _ in node.get_publisher_names_and_types_by_node("simulator", "/")}
    documented = {
        one.replace("<camera>", camera).replace("~", "/simulator").lstrip("/")
        for name, _, _ in parameters.TOPICS
        for one in name.split(", ")
        for camera in ("static", "wrist")
    }
    assert {name.lstrip("/") for name in own} - {"rosout", "parameter_events"} == documented
    heard = dict(node.get_subscriber_names_and_types_by_node("simulator", "/"))
    for name, kind, _ in parameters.COMMANDS:
        assert heard[name.replace("~", "/simulator")] == [kind]
    offered = dict(node.get_service_names_and_types_by_node("simulator", "/"))
    assert {name.replace("~", "/simulator") for name, _, _ in parameters.SERVICES} <= set(offered)


def process(*words: str, code: str = "") -> subprocess.Popen[str]:
    command = ["-c", code] if code else ["-m", "omnistream_sim.tabletop.ros.node"]
    return subprocess.Popen(
        [sys.executable, *command, *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_process_ends_cleanly_on_sigterm(ros_domain: int) -> None:
    child = process("--ros-args", "-p", "image_size:=[32, 32]")
    with Graph(ros_domain) as graph:
        images = graph.collect(Image, "/wrist/image_raw", connect=False)
        graph.wait(lambda: len(images) > 2, "images of the other process", 40.0)
    child.send_signal(signal.SIGTERM)
    started = time.monotonic()
    output, _ = child.communicate(timeout=10)
    assert child.returncode == 0 and "stopped:" in output, output
    assert time.monotonic() - started < 5.0


def test_without_pybullet_one_sentence_and_exit_code_2(ros_domain: int) -> None:
    code = (
        "import sys; sys.modules['pybullet'] = None\n"
        "from omnistream_sim.tabletop.ros.node import main; sys.exit(main(sys.argv[1:]))"
    )
    child = process(code=code)
    output, _ = child.communicate(timeout=30)
    assert child.returncode == 2 and "PyBullet" in output and "omnistream[sim]" in output, output
    assert "Traceback" not in output


def test_help_names_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(spec.name in text for spec in parameters.PARAMETERS) and "omnistream-up simulator" in text
