# SPDX-License-Identifier: Apache-2.0
"""A live run over DDS, its bag and its run log: `omnistream-replay` makes the same commands again, bit by bit."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import Image
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from omnistream.cli.replay import main
from omnistream.io.bag_writer import BagWriter
from omnistream.io.run_log import read_run_log
from omnistream.weights import model_hash, random_model, save_model
from omnistream_msgs.msg import FeatureMap, PolicyStatus
from omnistream_policy.node import PolicyNode
from omnistream_ros.lifecycle import State
from omnistream_ros.nodes import NODES
from omnistream_ros.processes import ChildProcess, ros_parameters, stop_all
from omnistream_ros.testing import Graph
from tests.omnistream_policy.conftest import GIVEN, MODEL, RATE, SEEING, Robot, contract, make_policy
from tests.omnistream_policy.test_features import GIVEN as FEATURES
from tests.omnistream_policy.test_features import backbone, folder, see  # noqa: F401  fixtures

TYPES = {
    "/front/image_raw": (Image, "sensor_msgs/msg/Image"),
    "/perception/features": (FeatureMap, "omnistream_msgs/msg/FeatureMap"),
    "/policy/twist": (TwistStamped, "geometry_msgs/msg/TwistStamped"),
    "/policy/gripper": (Float64, "std_msgs/msg/Float64"),
}


class Recording:
    """A bag of what is heard, written at the end as a recorder writes it."""

    def __init__(self, graph: Graph, path: Path, topics: tuple[str, ...]) -> None:
        self.path = path
        self._heard: list[tuple[str, int, bytes]] = []
        for topic in topics:
            graph.node.create_subscription(TYPES[topic][0], topic, self._hear(topic), 100, raw=True)

    def _hear(self, topic: str) -> Callable[[bytes], None]:
        return lambda data: self._heard.append((topic, time.time_ns(), bytes(data)))

    def close(self) -> None:
        writer = BagWriter(self.path)
        for topic, log_time, data in list(self._heard):
            writer.write(topic, TYPES[topic][1], log_time, data)
        writer.close()


def replayed(bag: Path, log: Path, tmp_path: Path, *words: str) -> tuple[int, dict[str, Any]]:
    report = tmp_path / "report.json"
    code = main([str(bag), "--log", str(log), "--report", str(report), *words])
    return code, json.loads(report.read_text())


@pytest.fixture
def run_log(tmp_path: Path) -> Callable[[], Path]:
    return lambda: next((tmp_path / "logs").glob("policy-*.jsonl"))


def test_a_live_run_is_replayed_bit_by_bit(
    graph: Graph,
    tmp_path: Path,
    start_node: Callable[..., PolicyNode],
    robot: Callable[..., Robot],
    run_log: Callable[[], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Instructions, a stop, an e-stop, a lost camera and a reset in the middle; the stream has a memory."""
    model = random_model(MODEL, 0)
    save_model(model, tmp_path / "weights")
    policy = make_policy(tmp_path / "policy", contract(), SEEING, (model_hash(model.backbone), model.config))
    node = start_node(policy=policy, weights=str(tmp_path / "weights"), engine="torch", run_log=str(tmp_path / "logs"))
    recording = Recording(graph, tmp_path / "bag", ("/front/image_raw", "/policy/twist", "/policy/gripper"))
    one = robot()
    one.run("open the drawer")
    graph.wait(lambda: len(one.twists) > 10, "commands", 30)
    assert one.instruct("lift the red cube").success
    time.sleep(0.5)
    assert one.call("stop").success and one.call("start").success
    time.sleep(0.5)
    one.showing.clear()
    graph.wait(lambda: one.statuses[-1].reason == "observation_age", "the camera to be missed", 20)
    one.showing.set()
    time.sleep(0.5)
    assert one.call("reset").success and one.call("start").success
    time.sleep(0.5)
    assert one.call("estop").success and one.call("clear_estop").success and one.call("start").success
    count = len(one.twists)
    graph.wait(lambda: len(one.twists) > count + 5, "commands", 20)
    node.stop()
    one.close()
    time.sleep(0.3)
    recording.close()
    run = read_run_log(run_log())
    assert run.ended and not run.lost and node.state is State.FINALIZED
    code, report = replayed(recording.path, run.path, tmp_path, "--plot", str(tmp_path / "commands.svg"))
    said = capsys.readouterr().out
    assert code == 0, said
    assert report["equal"] and report["command_hash"] == run.hash and report["differs_from_live"] == []
    assert report["predictions"] > 10 and report["predictions_different"] == 0 and report["largest_difference"] == 0
    assert report["stops"].keys() >= {"requested", "estop", "deactivated"}
    assert report["stops"].keys() & {"observation_age", "starved"}, "the camera was lost"
    published = report["recorded_commands"]
    assert published["twist"]["in_bag"] == published["twist"]["equal"] > 20
    assert published["gripper/gripper"]["in_bag"] == published["gripper/gripper"]["equal"] > 20
    assert "equal: " in said and (tmp_path / "commands.svg").read_text().startswith("<svg")

    other = make_policy(tmp_path / "other", contract(), SEEING, (model_hash(model.backbone), model.config), seed=4)
    code, report = replayed(recording.path, run.path, tmp_path, "--policy", other)
    assert code == 0 and not report["equal"] and report["predictions_different"] == report["predictions"]


def test_a_run_on_perceptions_features_is_replayed_from_features_and_from_pictures(
    graph: Graph,
    tmp_path: Path,
    folder: Path,  # noqa: F811
    see: Any,  # noqa: F811
    start_node: Callable[..., PolicyNode],
    robot: Callable[..., Robot],
    run_log: Callable[[], Path],
) -> None:
    """From what perception published, and from what it saw: then both nodes are made again."""
    logs = str(tmp_path / "logs")
    perception = see(run_log=logs)
    node = start_node(policy=str(folder / "policy"), run_log=logs, **FEATURES)
    features = Recording(graph, tmp_path / "features", ("/perception/features", "/policy/twist"))
    pictures = Recording(graph, tmp_path / "pictures", ("/front/image_raw", "/policy/twist"))
    one = robot()
    one.run()
    graph.wait(lambda: len(one.twists) > 20, "commands", 30)
    assert graph.call(Trigger, "/perception/reset").success
    count = len(one.twists)
    graph.wait(lambda: len(one.twists) > count + 5, "commands", 30)
    node.stop()
    one.close()
    time.sleep(0.3)
    perception.stop()
    features.close()
    pictures.close()
    code, report = replayed(features.path, run_log(), tmp_path)
    assert code == 0 and report["equal"] and report["predictions"] > 5
    seen = next((tmp_path / "logs").glob("perception-*.jsonl"))
    code, report = replayed(pictures.path, run_log(), tmp_path, "--perception", str(seen))
    assert code == 0 and report["equal"] and report["perception"]["equal"] and report["perception"]["images"] > 20
    path = tmp_path / "alone.json"
    assert main([str(pictures.path), "--perception", str(seen), "--report", str(path)]) == 0
    alone = json.loads(path.read_text())["perception"]
    assert alone["equal"] and alone["result_hash"] == report["perception"]["result_hash"] == alone["live_hash"]


def test_killed_hard_its_log_is_followed_to_its_end(
    graph: Graph, tmp_path: Path, policy_folder: str, robot: Callable[..., Robot], run_log: Callable[[], Path]
) -> None:
    words = ros_parameters(**GIVEN, policy=policy_folder, exit_on_failure=True, run_log=str(tmp_path / "logs"))
    child = ChildProcess("policy", NODES["policy"].module, words)
    try:
        graph.wait(lambda: graph.node.count_publishers("/policy/status"), "the process to be there", 120)
        recording = Recording(graph, tmp_path / "bag", ("/front/image_raw", "/policy/twist"))
        one = robot()
        one.graph.wait(lambda: one.statuses and one.statuses[-1].state == PolicyStatus.STATE_DISABLED, "the node", 60)
        one.run()
        graph.wait(lambda: len(one.twists) > 20, "commands", 30)
        child.send(signal.SIGKILL)
        child.wait(5.0)
    finally:
        stop_all([child])
    one.close()
    time.sleep(0.3)
    recording.close()
    code, report = replayed(recording.path, run_log(), tmp_path)
    assert code == 0 and report["equal"] and not report["live"]["closed"] and "killed" in report["lost"][0]
    published = report["recorded_commands"]["twist"]
    assert published["in_bag"] - published["equal"] <= 0.5 * RATE, "the log ends half a second before at most"


def test_a_folder_that_cannot_be_written_is_said_at_configure(
    graph: Graph, tmp_path: Path, start_node: Callable[..., PolicyNode]
) -> None:
    (tmp_path / "file").write_text("")
    node = start_node(wait=False, run_log=str(tmp_path / "file" / "logs"))
    graph.wait(lambda: node.fault, "the refusal", 30)
    assert "logs" in node.fault or "file" in node.fault
