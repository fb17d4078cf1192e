# SPDX-License-Identifier: Apache-2.0
"""What the node does when something unusual happens: one test per row of the event table, all on real rclpy.

A drop counts and keeps the stream's state; a reset begins a new segment. `test_processes` has the rows about signals.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State as LifecycleState
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from omnistream import StreamSession, load_model
from omnistream_msgs.msg import StreamStatus
from omnistream_perception.node import PerceptionNode
from omnistream_ros import images
from omnistream_ros.lifecycle import State
from omnistream_ros.testing import Graph

Make = Callable[..., Any]


def malformed(header: Header, kind: str) -> Image:
    """An image message that is wrong in one way."""
    good = images.image_message(np.zeros((64, 64, 3), np.uint8), header)
    if kind == "unknown encoding":
        good.encoding = "bayer_xxxx8"
    elif kind == "truncated":
        good.data = good.data[:-1]
    elif kind == "empty":
        good.data = array("B")
    elif kind == "zero size":
        good.height = good.width = good.step = 0
        good.data = array("B")
    elif kind == "step too small":
        good.step = 100
        good.data = good.data[:6400]
    elif kind == "depth":
        good.encoding = "16UC1"
    elif kind == "not finite":
        return images.image_message(np.full((64, 64), np.nan, np.float32), header)
    else:
        raise AssertionError(kind)
    return good


# ------------------------------------------------------------------------------------------------ images that drop


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("unknown encoding", "encoding"),
        ("depth", "encoding"),
        ("not finite", "not_finite"),
        ("truncated", "malformed"),
        ("empty", "malformed"),
        ("zero size", "malformed"),
        ("step too small", "malformed"),
    ],
)
def test_unusable_image_is_dropped_and_the_stream_goes_on(start: Make, camera: Make, kind: str, reason: str) -> None:
    start()
    source = camera()
    source.served()
    source.send(malformed(source.header(), kind))
    source.drops(reason)
    source.served()
    status = source.status(lambda s: s.frames_processed == 2, "2 images processed")
    assert (status.frames_seen, status.segment, status.frames_received) == (2, 0, 3)
    assert len(source.features) == 2


def test_equal_stamp_is_dropped(start: Make, camera: Make) -> None:
    start()
    source = camera()
    first = source.served()
    source.send(stamp=images.stamp_to_seconds(first.header.stamp))
    status = source.drops("equal_stamp")
    assert (status.frames_seen, status.segment) == (1, 0)


def test_thousand_malformed_images_among_good_ones_cost_none_of_the_good(start: Make, camera: Make) -> None:
    """Also while the worker is busy: the malformed ones are newer than the good one that waits."""
    start(qos__image="reliable:100")
    source = camera()
    kinds = ("unknown encoding", "truncated", "empty", "zero size", "step too small", "depth", "not finite")
    sent = []
    for round_ in range(50):
        sent.append(source.send().header)
        for index in range(20):
            source.send(malformed(source.header(), kinds[(round_ + index) % len(kinds)]))
        source.graph.wait(lambda: len(source.features) == len(sent), f"good image {len(sent)} to be served")
    assert [feature.header for feature in source.features] == sent

    def all_counted(status: StreamStatus) -> bool:
        return sum(drop.count for drop in status.drops) == 1000 and status.frames_processed == 50

    status = source.status(all_counted, "1000 drops and 50 images processed")
    assert (status.frames_seen, status.segment) == (50, 0)
    assert {drop.reason for drop in status.drops} == {"encoding", "malformed", "not_finite"}


# ------------------------------------------------------------------------------------------------ resets


def assert_reset(source: Any, reason: int, message: Image) -> None:
    """The image began segment 1, for this reason."""
    status = source.status(lambda s: s.segment == 1 and s.frames_seen == 1, "one reset")
    assert status.last_reset_reason == reason
    assert status.last_reset_stamp == message.header.stamp
    assert not status.drops


def test_stamp_back_resets(start: Make, camera: Make) -> None:
    start()
    source = camera()
    source.served()
    source.served()
    message = source.served(stamp=50.0)
    assert_reset(source, StreamStatus.RESET_STAMP_BACK, message)


@pytest.mark.parametrize("time_base", ["index", "stamps"])
def test_gap_resets_under_index_and_is_kept_under_stamps(start: Make, camera: Make, time_base: str) -> None:
    start(time_base=time_base, max_gap=0.5)
    source = camera()
    source.served()
    source.stamp += 2.0
    message = source.served()
    if time_base == "index":
        assert_reset(source, StreamStatus.RESET_GAP, message)
    else:
        status = source.status(lambda s: s.frames_seen == 2, "2 frames in one segment")
        assert status.segment == 0


def test_new_image_size_resets(start: Make, camera: Make) -> None:
    start()
    source = camera()
    source.served()
    message = source.served(images.image_message(source.picture((48, 96)), source.header()))
    assert_reset(source, StreamStatus.RESET_SIZE_CHANGED, message)


def test_new_frame_id_resets(start: Make, camera: Make) -> None:
    start()
    source = camera()
    source.served()
    message = source.served(frame="other_camera")
    assert_reset(source, StreamStatus.RESET_FRAME_ID_CHANGED, message)


def test_new_calibration_resets_and_the_same_one_again_does_not(start: Make, camera: Make) -> None:
    node: PerceptionNode = start()
    source = camera()
    source.calibrate()
    source.served()
    source.calibrate()
    source.served()
    assert source.status(lambda s: s.frames_seen == 2, "2 frames").segment == 0
    source.calibrate(K=np.array([[80.0, 0, 31.5], [0, 80.0, 31.5], [0, 0, 1]]))
    calibration = node._cameras[""]._calibration
    source.graph.wait(lambda: calibration.of((64, 64)).k[0] == 80, "the new calibration")
    message = source.served()
    assert_reset(source, StreamStatus.RESET_CALIBRATION_CHANGED, message)


def test_full_policy_resets_when_it_is_full(start: Make, camera: Make) -> None:
    start(policy="full:3")
    source = camera()
    for _ in range(3):
        source.served()
    message = source.served()
    assert_reset(source, StreamStatus.RESET_STREAM_FULL, message)


# ------------------------------------------------------------------------------------------------ calibration missing


@pytest.mark.parametrize("allowed", [False, True])
def test_without_camera_info_depth_comes_and_points_only_with_predicted_intrinsics(
    graph: Graph, start: Make, camera: Make, allowed: bool
) -> None:
    start(allow_predicted_intrinsics=allowed)
    depth, points = graph.collect(Image, "/perception/depth"), graph.collect(PointCloud2, "/perception/points")
    source = camera()
    for _ in range(3):
        source.served()
    graph.wait(lambda: len(depth) == 3, "depth")
    if allowed:
        graph.wait(lambda: len(points) == 3, "points")
        assert (points[0].height, points[0].width) == (64, 64)
    else:
        assert not points


# ------------------------------------------------------------------------------------------------ the camera's health


def level_of(reports: list[DiagnosticArray], part: str) -> tuple[int, str]:
    """Level and message of the last report on ``part``."""
    statuses = [status for array in reports for status in array.status if status.name == f"perception: {part}"]
    return (statuses[-1].level[0], statuses[-1].message) if statuses else (-1, "")


ERROR, WARN, OK = (level[0] for level in (DiagnosticStatus.ERROR, DiagnosticStatus.WARN, DiagnosticStatus.OK))


def test_lost_camera_is_stale_and_recovers(graph: Graph, start: Make, camera: Make) -> None:
    start(stale_after=0.3)
    reports = graph.collect(DiagnosticArray, "/diagnostics")
    source = camera()
    source.served()
    source.status(lambda s: s.state == StreamStatus.STATE_ACTIVE, "active")
    status = source.status(lambda s: s.state == StreamStatus.STATE_STALE, "stale")
    assert "/image" in status.detail
    graph.wait(lambda: level_of(reports, "input")[0] == ERROR, "an ERROR in diagnostics")
    assert "no image on /image" in level_of(reports, "input")[1]
    source.served()
    status = source.status(lambda s: s.state == StreamStatus.STATE_ACTIVE, "active again")
    assert status.segment == 0
    graph.wait(lambda: level_of(reports, "input")[0] != ERROR, "diagnostics without the ERROR")


def test_camera_that_never_came_is_stale_too(start: Make, camera: Make) -> None:
    start(stale_after=0.3)
    source = camera()
    source.status(lambda s: s.state == StreamStatus.STATE_STALE, "stale")


def test_frozen_image_warns(graph: Graph, start: Make, camera: Make) -> None:
    start(frozen_after=3)
    reports = graph.collect(DiagnosticArray, "/diagnostics")
    source = camera()
    picture = source.picture()
    for _ in range(4):
        source.served(images.image_message(picture, source.header()))
    graph.wait(lambda: "frozen" in level_of(reports, "input")[1], "a warning of a frozen camera")
    assert level_of(reports, "input")[0] == WARN
    assert source.status(lambda s: s.frames_seen == 4, "4 frames: they are used all the same")


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


# ------------------------------------------------------------------------------------------------ names, transitions


def test_two_nodes_in_two_namespaces_do_not_hear_each_other(graph: Graph, start: Make, camera: Make) -> None:
    for name in ("left", "right"):
        start(namespace=name, image_topic="image")  # a relative topic, as everything of ours
    left, right = (camera(topic=f"/{name}/image", node=f"/{name}/perception") for name in ("left", "right"))
    for _ in range(3):
        left.served()
    right.served()
    assert (len(left.features), len(right.features)) == (3, 1)
    for namespace in ("left", "right"):
        found = graph.node.get_publisher_names_and_types_by_node("perception", f"/{namespace}")
        names = {name for name, _ in found} - {"/rosout", "/parameter_events", "/diagnostics"}
        assert {name for name in names if not name.startswith(f"/{namespace}/perception/")} == set()
        assert f"/{namespace}/perception/depth" in names


def change_state(graph: Graph, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return graph.call(ChangeState, "/perception/change_state", request).success


def test_transitions_asked_for_twice_do_no_harm(graph: Graph, start: Make, camera: Make) -> None:
    start()
    source = camera()
    source.served()
    for transition, after in (
        (Transition.TRANSITION_ACTIVATE, LifecycleState.PRIMARY_STATE_ACTIVE),  # active already
        (Transition.TRANSITION_DEACTIVATE, LifecycleState.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_DEACTIVATE, LifecycleState.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CLEANUP, LifecycleState.PRIMARY_STATE_UNCONFIGURED),
        (Transition.TRANSITION_CLEANUP, LifecycleState.PRIMARY_STATE_UNCONFIGURED),
        (Transition.TRANSITION_CONFIGURE, LifecycleState.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CONFIGURE, LifecycleState.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, LifecycleState.PRIMARY_STATE_ACTIVE),
        (Transition.TRANSITION_ACTIVATE, LifecycleState.PRIMARY_STATE_ACTIVE),
    ):
        change_state(graph, transition)
        assert graph.call(GetState, "/perception/get_state").current_state.id == after
    source.features.clear()
    graph.wait(lambda: graph.node.count_publishers("/perception/features") == 1, "the new publisher")
    graph.wait(lambda: graph.node.count_subscribers("/image") == 1, "the new subscription")
    source.served()


def test_an_external_manager_starts_it_when_autostart_is_off(graph: Graph, start: Make, camera: Make) -> None:
    node = start(autostart=False, wait=False)
    state = graph.call(GetState, "/perception/get_state").current_state.id
    assert state == LifecycleState.PRIMARY_STATE_UNCONFIGURED
    assert graph.node.count_publishers("/perception/features") == 0
    assert change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert graph.node.count_subscribers("/image") == 0  # inactive: no traffic
    assert change_state(graph, Transition.TRANSITION_ACTIVATE)
    assert node.state is State.ACTIVE
    camera().served()


def test_the_state_survives_a_pause(graph: Graph, start: Make, camera: Make) -> None:
    start(max_gap=100.0)
    source = camera()
    source.served()
    assert change_state(graph, Transition.TRANSITION_DEACTIVATE)
    assert change_state(graph, Transition.TRANSITION_ACTIVATE)
    graph.wait(lambda: graph.node.count_subscribers("/image") == 1, "the new subscription")
    source.served()
    assert source.status(lambda s: s.frames_seen == 2, "2 frames").segment == 0


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


# ------------------------------------------------------------------------------------------------ the documentation


def test_every_line_of_the_event_table_names_a_test_that_exists() -> None:
    root = Path(__file__).resolve().parents[2]
    rows = [line for line in (root / "docs" / "events.md").read_text().splitlines() if line.startswith("| ")]
    code = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for row in rows:
        if not row.endswith(("| test |", "| the same |")):
            names = re.findall(r"`(test_\w+)`", row)
            assert names, row
            for name in names:
                assert f"def {name}(" in code, name
