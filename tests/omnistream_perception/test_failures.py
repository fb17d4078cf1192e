# SPDX-License-Identifier: Apache-2.0
"""What the node does when it fails: in configure, a step or publishing, or by being slow. Rows of the event table."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image

from omnistream import StreamSession, load_model
from omnistream_msgs.msg import StreamStatus
from omnistream_perception.node import PerceptionNode
from omnistream_ros import images
from omnistream_ros.lifecycle import State
from omnistream_ros.testing import Graph
from tests.omnistream_perception.asking import ERROR, change_state, level_of

Make = Callable[..., Any]


# ------------------------------------------------------------------------------------------------ configure fails


def assert_refused(node: PerceptionNode, source: Any, *words: str) -> None:
    """The node stays unconfigured, and both status and `fault` say why."""
    source.graph.wait(lambda: node.fault, "a fault")
    assert node.state is State.UNCONFIGURED
    for word in words:
        assert word in node.fault
    status = source.status(lambda s: s.detail == node.fault, "why")
    assert status.state == StreamStatus.STATE_UNCONFIGURED


class Listener:
    """Listens to the status alone: an unconfigured node has no other topic."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.statuses: list[StreamStatus] = graph.collect(StreamStatus, "/perception/status", "latched")

    def status(self, condition: Callable[[StreamStatus], bool], what: str) -> StreamStatus:
        self.graph.wait(lambda: any(map(condition, self.statuses)), f"a status that says {what}", 5.0)
        return next(filter(condition, reversed(self.statuses)))


def truncate(weights: str, folder: Path) -> str:
    target = folder / "truncated"
    target.mkdir()
    for file in Path(weights).iterdir():
        data = file.read_bytes()
        (target / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    return str(target)


def other_architecture(weights: str, folder: Path) -> str:
    target = folder / "other"
    target.mkdir()
    for file in Path(weights).iterdir():
        text = file.read_bytes()
        (target / file.name).write_bytes(text.replace(b'"depth": 4', b'"depth": 5'))
    return str(target)


@pytest.mark.parametrize("case", ["empty", "missing", "truncated", "other architecture"])
def test_unusable_weights_fail_configure_readably(
    graph: Graph, start: Make, weights: dict[str, str], tmp_path: Path, case: str
) -> None:
    metric = weights["metric"]
    given, word = {
        "empty": lambda: ("", "weights is empty"),
        "missing": lambda: (str(tmp_path / "nowhere"), "nowhere"),
        "truncated": lambda: (truncate(metric, tmp_path), "truncated"),
        "other architecture": lambda: (other_architecture(metric, tmp_path), "other"),
    }[case]()
    node = start(weights=given, wait=False)
    assert_refused(node, Listener(graph), word)
    # Mended, the same node starts.
    assert graph.set_parameter("/perception", "weights", metric).successful
    assert change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert node.state is State.INACTIVE and not node.fault


def test_not_enough_memory_is_refused_with_the_numbers(graph: Graph, start: Make, weights: dict[str, str]) -> None:
    node = start(policy="window:5000", memory_limit=8, wait=False)
    assert_refused(node, Listener(graph), "not enough memory", "MiB weights", "5000 frames of 64x64", "allows 8 MiB")


# ------------------------------------------------------------------------------------------------ failures in a step


class Faults:
    """In the middle of the node's real model: when a step gets there, half of the cache is written already."""

    def __init__(self, node: PerceptionNode) -> None:
        self.model = node._cameras[""].session.engine._model
        self.place = self.model.backbone.blocks[2].mlp
        self.fail = 0
        self.hold, self.waiting = threading.Event(), threading.Event()
        self.hold.set()
        for module in (self.model.backbone.blocks[2].mlp, self.model.heads):
            module.register_forward_pre_hook(self._enter)

    def _enter(self, module: Any, _inputs: Any) -> None:
        if module is not self.place:
            return
        if self.fail:
            self.fail -= 1
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if not self.hold.is_set():
            self.waiting.set()
            assert self.hold.wait(10)


@pytest.fixture
def failing(start: Make) -> tuple[PerceptionNode, Faults]:
    node = start(qos__image="reliable:100", features_dtype="float32")
    return node, Faults(node)


@pytest.mark.parametrize("place", ["block", "heads"])
def test_exception_in_a_step_drops_that_image_only(
    graph: Graph, failing: tuple[Any, Faults], camera: Make, weights: dict[str, str], place: str
) -> None:
    """What comes after it is what comes from a stream that never saw that image."""
    _, faults = failing
    if place == "heads":
        faults.place = faults.model.heads
        graph.collect(Image, "/perception/depth")  # heads run only when somebody listens
    source, twin = camera(), StreamSession(load_model(weights["metric"]))

    def serve() -> None:
        expected = twin.step(images.decode(source.served())).features
        features = np.frombuffer(source.features[-1].data, np.float32).reshape(expected.shape)
        np.testing.assert_allclose(features, expected, atol=1e-5)

    serve()
    faults.fail = 1
    source.send()
    source.drops("step_failed", 1)
    serve()
    serve()


def test_only_failures_in_a_row_end_the_active_state(failing: tuple[Any, Faults], camera: Make) -> None:
    _, engine = failing
    source = camera()
    source.served()
    engine.fail = 2
    source.send()
    source.drops("step_failed", 1)
    source.send()
    source.drops("step_failed", 2)
    source.served()
    engine.fail = 1  # a third one: only failures in a row count
    source.send()
    source.drops("step_failed", 3)
    source.served()
    status = source.status(lambda s: s.frames_processed == 3, "3 processed")
    assert (status.state, status.frames_seen, status.segment) == (StreamStatus.STATE_ACTIVE, 3, 0)


def test_exception_in_publishing_is_counted_and_the_frame_stays_in_memory(start: Make, camera: Make) -> None:
    node = start()
    source = camera()
    source.served()
    outputs, publish = node._cameras[""].outputs, node._cameras[""].outputs.publish

    def fail(*args: Any) -> None:
        outputs.publish = publish
        raise MemoryError("std::bad_alloc")

    outputs.publish = fail
    source.send()
    source.drops("publish_failed")
    source.served()
    status = source.status(lambda s: s.frames_processed == 2, "2 processed")
    assert (status.state, status.frames_seen, status.segment) == (StreamStatus.STATE_ACTIVE, 3, 0)


def test_every_image_is_accounted_for_when_the_node_is_deactivated(
    graph: Graph, failing: tuple[Any, Faults], camera: Make
) -> None:
    _, faults = failing
    source = camera()
    source.served()
    faults.hold.clear()
    source.send()
    assert faults.waiting.wait(5)
    for _ in range(3):
        source.send()
    source.graph.wait(lambda: source.statuses[-1].frames_received == 5, "all images to arrive")
    threading.Timer(0.2, faults.hold.set).start()
    assert change_state(graph, Transition.TRANSITION_DEACTIVATE)
    status = source.drops("inactive", 3)
    assert status.frames_received == status.frames_processed + sum(drop.count for drop in status.drops) == 5


def test_three_exceptions_in_a_row_are_an_error_state(graph: Graph, failing: tuple[Any, Any], camera: Make) -> None:
    node, engine = failing
    reports = graph.collect(DiagnosticArray, "/diagnostics")
    source = camera()
    source.served()
    engine.fail = 3
    for count in range(1, 4):
        source.send()
        if count < 3:
            source.drops("step_failed", count)
    status = source.status(lambda s: s.state == StreamStatus.STATE_ERROR, "error")
    assert "3 images in a row" in status.detail and "illegal memory access" in status.detail
    graph.wait(lambda: level_of(reports, "model")[0] == ERROR, "an ERROR in diagnostics")
    graph.wait(lambda: node.state is State.UNCONFIGURED, "the node to be unconfigured")
    # A manager can bring it back.
    assert change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert change_state(graph, Transition.TRANSITION_ACTIVATE)
    source.status(lambda s: s.state == StreamStatus.STATE_ACTIVE, "active again")


def test_the_newest_image_wins_when_the_model_is_slow(failing: tuple[Any, Faults], camera: Make) -> None:
    _, engine = failing
    source = camera()
    source.served()
    engine.hold.clear()
    first = source.send()
    assert engine.waiting.wait(5)
    sent = [source.send() for _ in range(6)]
    source.graph.wait(lambda: source.statuses[-1].frames_received == 8, "all images to arrive")
    engine.hold.set()
    source.drops("superseded", 5)
    source.graph.wait(lambda: len(source.features) == 3, "the newest image to be served")
    assert [feature.header for feature in source.features[1:]] == [first.header, sent[-1].header]


def test_a_model_slower_than_max_gap_does_not_reset(failing: tuple[Any, Faults], camera: Make) -> None:
    """Images come every 0.4 s, also those that have to go before the worker comes to them; a step takes 2.8 s."""
    _, engine = failing
    source = camera(rate=2.5)
    source.served()
    engine.hold.clear()
    source.send()
    assert engine.waiting.wait(5)
    for _ in range(7):
        source.send()
    source.graph.wait(lambda: source.statuses[-1].frames_received == 9, "all images to arrive")
    engine.hold.set()
    source.drops("superseded", 6)
    status = source.status(lambda s: s.frames_processed == 3, "3 images processed")
    assert (status.segment, status.frames_seen) == (0, 3)
