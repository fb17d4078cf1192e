# SPDX-License-Identifier: Apache-2.0
"""The recorder makes bags that the importer reads with the same mapping: marks, instruction, what still holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, Header, String
from std_srvs.srv import Trigger

from omnistream.episodes import open_dataset
from omnistream.errors import OmniStreamError
from omnistream.sync import load_mapping_file
from omnistream_ros.episode_recorder import EpisodeRecorder
from omnistream_ros.images import image_message, ns_to_stamp
from omnistream_ros.testing import Graph
from omnistream_training.robot_data.bag_import import BagImporter, find_bags

pytestmark = pytest.mark.ros

MAPPING = """
format: omnistream-mapping
version: 1
rate: 20
cameras: [{name: front, topic: /camera/image_raw, max_age: 0.1}]
state: [{topic: /joint_states, fields: [a], unit: rad, max_age: 0.2}]
action:
  mode: absolute
  frame: joints
  parts:
  - {topic: /gripper/command, fields: [value], names: [gripper], unit: "1", pick: hold, max_age: null}
instruction: {topic: /instruction}
episodes: {topic: /episode, shortest: 0.2}
"""


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "robot.yaml"
    path.write_text(MAPPING)
    return path


@pytest.fixture
def graph(ros_domain: int, mapping: Path, tmp_path: Path) -> Iterator[Graph]:
    values = {"mapping": mapping, "directory": tmp_path / "bags", "instruction": "lift it"}
    words = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    with Graph(ros_domain, ["--ros-args", *words]) as graph:
        yield graph


def send(graph: Graph, count: int) -> None:
    for i in range(count):
        header = Header(stamp=ns_to_stamp(graph.node.get_clock().now().nanoseconds), frame_id="camera")
        graph.publish(JointState, "/joint_states", JointState(header=header, name=["a"], position=[0.1 * i]))
        graph.publish(Image, "/camera/image_raw", image_message(np.full((16, 16, 3), i, np.uint8), header))
        time.sleep(0.05)


def call(graph: Graph, word: str) -> tuple[bool, str]:
    response = graph.call(Trigger, f"/recorder/{word}")
    return response.success, response.message


def test_episodes_are_recorded_and_imported(graph: Graph, mapping: Path, tmp_path: Path) -> None:
    recorder = graph.add(EpisodeRecorder(context=graph.context))
    for kind, topic in ((Float64, "/gripper/command"), (Image, "/camera/image_raw"), (JointState, "/joint_states")):
        graph.node.create_publisher(kind, topic, 10)  # for it to find
    assert call(graph, "start") == (
        False,
        "not started: nothing on /camera/image_raw, /joint_states in the last 1 s",
    )
    graph.publish(Float64, "/gripper/command", Float64(data=0.7))  # before the episode, and still in force
    send(graph, 3)
    assert call(graph, "start")[0]
    assert not call(graph, "start")[0]
    send(graph, 12)
    graph.wait(lambda: recorder.report().values["megabytes"] > 0.009, "the last pictures")
    success, message = call(graph, "success")
    assert success and "success, " in message and "NOTHING" not in message
    assert call(graph, "stop") == (False, "nothing is being recorded; ~/stop ends what ~/start began")

    graph.node.create_publisher(String, "/instruction", 10)
    graph.publish(String, "/instruction", String(data="push it"))
    assert call(graph, "start")[0]
    send(graph, 8)
    assert call(graph, "failure")[0]
    assert call(graph, "start")[0]
    assert "discarded" in call(graph, "discard")[1]
    graph.remove(recorder)

    importer = BagImporter(tmp_path / "set", load_mapping_file(mapping))
    for bag in find_bags([tmp_path / "bags"]):
        report = importer.add(bag)
        assert not report.lost
    importer.close()
    dataset = open_dataset(tmp_path / "set")
    assert [(info.instruction, info.success) for info in dataset.infos] == [("lift it", True), ("push it", False)]
    assert 10 <= dataset.infos[0].length <= 12
    assert set(dataset[0].action[:, 0].tolist()) == {np.float32(0.7)}
    numbers = [int(image[0, 0, 0]) for image in dataset[0].frames("front")]
    assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers)


def test_an_open_episode_is_kept_when_the_node_ends(graph: Graph, tmp_path: Path) -> None:
    recorder = graph.add(EpisodeRecorder(context=graph.context))
    for kind, topic in ((Image, "/camera/image_raw"), (JointState, "/joint_states")):
        graph.node.create_publisher(kind, topic, 10)
    send(graph, 2)
    assert call(graph, "start")[0]
    send(graph, 2)
    recorder.stop()
    (bag,) = (tmp_path / "bags").iterdir()
    assert (bag / "metadata.yaml").is_file() and recorder.episodes == 1


def test_a_mapping_without_marks_is_refused(ros_domain: int, mapping: Path) -> None:
    mapping.write_text(MAPPING.replace("episodes: {topic: /episode, shortest: 0.2}", ""))
    for words, message in ((["-p", f"mapping:={mapping}"], "episodes has no topic"), ([], "`mapping` is empty")):
        arguments = ["--ros-args", *words] if words else None
        with Graph(ros_domain, arguments) as graph, pytest.raises(OmniStreamError, match=message):
            EpisodeRecorder(context=graph.context)
