# SPDX-License-Identifier: Apache-2.0
"""One stream and one cache for both nodes: the policy on perception's features, which are checked before they count."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from omnistream.errors import InputError
from omnistream.model.omnistream import OmniStream
from omnistream.policy import PolicySession, load_policy
from omnistream.policy.intake import camera_input
from omnistream.weights import model_hash, random_model, save_model
from omnistream_msgs.msg import ActionChunk, FeatureMap, PolicyStatus
from omnistream_perception.node import PerceptionNode
from omnistream_perception.outputs import features_message
from omnistream_policy.node import PolicyNode
from omnistream_ros.lifecycle import State
from omnistream_ros.testing import Graph
from tests.omnistream_policy.conftest import MODEL, SEEING, SIZE, Robot, contract, make_policy, moves

S = PolicyStatus
TAPPED = dataclasses.replace(
    SEEING, vision=dataclasses.replace(SEEING.vision, taps=(0, 2), image_size=2 * SIZE, enlarge=False)
)
"""Reads two shallower blocks beside the last, of pictures that are smaller than they might be."""
GIVEN = {"source": "features", "features_topic": "/perception/features"}


@pytest.fixture(scope="module")
def backbone() -> OmniStream:
    return random_model(MODEL, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, backbone: OmniStream) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_model(backbone, folder / "weights")
    save_model(random_model(MODEL, 1), folder / "others")
    for name, config in (("policy", SEEING), ("tapped", TAPPED)):
        make_policy(folder / name, contract(), config, (model_hash(backbone.backbone), backbone.config))
    return folder


@pytest.fixture
def see(graph: Graph, folder: Path) -> Callable[..., PerceptionNode]:
    def see(weights: str = "weights", policy: str = SEEING.vision.stream, **more: Any) -> PerceptionNode:
        given: dict[str, Any] = {
            "weights": str(folder / weights),
            "policy": policy,
            "image_topic": "/front/image_raw",
            "image_size": SIZE,
            "expected_image_size": [SIZE, SIZE],
            "dtype": "float32",
            "engine": "torch",
        }
        overrides = [Parameter(key, value=value) for key, value in (given | more).items()]
        node = graph.add(PerceptionNode("perception", context=graph.context, parameter_overrides=overrides))
        graph.wait(lambda: node.state is State.ACTIVE or node.fault, "perception to become active", 30)
        assert node.state is State.ACTIVE, node.fault
        return node

    return see


@pytest.mark.parametrize(
    ("name", "seen"), [("policy", {}), ("tapped", {"image_size": 2 * SIZE, "enlarge": False, "feature_taps": [0, 2]})]
)
def test_actions_from_perceptions_features_are_those_from_pictures(
    graph: Graph,
    folder: Path,
    backbone: OmniStream,
    see: Any,
    start_node: Callable[..., PolicyNode],
    name: str,
    seen: dict[str, Any],
) -> None:
    """The same pictures through both nodes and through one session: the same chunks."""
    see(**seen)
    chunks: list[ActionChunk] = []
    start_node(policy=str(folder / name), **GIVEN)
    chunks = graph.collect(ActionChunk, "/policy/chunk", "reliable:100")
    session = PolicySession(load_policy(folder / name), backbone, engine="torch", device="cpu")
    session.set_instruction("open the drawer")
    robot = Robot(graph)
    shown: list[tuple[int, np.ndarray]] = []
    publish = robot._publisher.publish
    robot._publisher.publish = lambda m: (  # type: ignore[method-assign]
        shown.append((m.header.stamp.nanosec, np.frombuffer(m.data, np.uint8).reshape(SIZE, SIZE, 3))), publish(m)
    )  # fmt: skip
    features: list[FeatureMap] = graph.collect(FeatureMap, "/perception/features", "reliable:100")
    robot.run()
    graph.wait(lambda: len(chunks) > 8, "chunks", 20)
    robot.close()
    time.sleep(0.3)
    pictures = dict(shown)
    expected = {}
    for message in features:  # what perception stepped, in its order
        stamp = message.header.stamp.nanosec
        if stamp in pictures:
            expected[stamp] = session.step({"front": pictures[stamp]}).actions
    assert features[0].frames_seen == 1, "the test must see the stream from its beginning"
    compared = 0
    for chunk in chunks:
        if (actions := expected.get(chunk.header.stamp.nanosec)) is not None:
            assert np.abs(np.array(chunk.values).reshape(actions.shape) - actions).max() < 2e-3
            compared += 1
    assert compared > 5


def test_perception_restarted_under_it(
    graph: Graph, folder: Path, see: Any, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot]
) -> None:
    node = see()
    start_node(policy=str(folder / "policy"), **GIVEN)
    one = robot()
    one.run()
    node.stop()
    graph.remove(node)
    one.stopped(S.STATE_HOLDING, "observation_age")
    count = len(one.twists)
    see()
    graph.wait(lambda: any(map(moves, one.twists[count:])), "it to go on with the new one", 30)


def test_features_of_another_backbone_stop_it(
    graph: Graph, folder: Path, see: Any, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot]
) -> None:
    see("others")
    start_node(policy=str(folder / "policy"), **GIVEN)
    one = robot()
    one.showing.set()
    one.graph.wait(lambda: one.statuses and one.statuses[-1].reason == "fault", "the refusal", 30)
    assert "trained on features of backbone" in one.statuses[-1].detail
    assert not any(map(moves, one.twists))


def test_taps_that_the_checkpoint_has_not_are_refused(graph: Graph, folder: Path) -> None:
    given = {"weights": str(folder / "weights"), "engine": "torch", "feature_taps": [1, 4]}
    overrides = [Parameter(key, value=value) for key, value in given.items()]
    node = graph.add(PerceptionNode("perception", context=graph.context, parameter_overrides=overrides))
    graph.wait(lambda: node.fault, "the refusal", 30)
    assert "feature_taps is [1, 4]; expected increasing numbers from 0 to 3" in node.fault


def test_features_without_the_taps_that_are_read_stop_it(
    graph: Graph, folder: Path, see: Any, start_node: Callable[..., PolicyNode], robot: Callable[..., Robot]
) -> None:
    see()
    start_node(policy=str(folder / "tapped"), **GIVEN)
    one = robot()
    one.showing.set()
    one.graph.wait(lambda: one.statuses and one.statuses[-1].reason == "fault", "the refusal", 30)
    assert "set perception's feature_taps to [0, 2]" in one.statuses[-1].detail


def message(**changes: Any) -> FeatureMap:
    features, cls = np.zeros((4, 4, 8), np.float32), np.zeros(8, np.float32)
    made = features_message(features, cls, Header(), "hash", "window:4", 1)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policy": "window:5"}, "window:5"),
        ({"layer": "block 3"}, "block 3"),
        ({"dtype": "int8"}, "int8"),
        ({"grid_height": 5}, "bytes"),
        ({"data": np.full(4 * 4 * 8, np.nan, "<f2").tobytes()}, "NaN"),
        ({"cls": b"\0\0"}, "summary of 2"),
    ],
)
def test_features_that_cannot_be_used(changes: dict[str, Any], said: str) -> None:
    assert camera_input(message(), "window:4").features.shape == (4, 4, 8)  # type: ignore[union-attr]
    with pytest.raises(InputError, match=said):
        camera_input(message(**changes), "window:4")
