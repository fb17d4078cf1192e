# SPDX-License-Identifier: Apache-2.0
"""What the node does when something unusual arrives: images that drop, resets, calibration, the camera's health. One
test per row of the event table, all on real rclpy.

A drop counts and keeps the stream's state; a reset begins a new segment. Rows about failures are in `test_failures`,
those about transitions in `test_transitions`, those about signals in `test_processes`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from omnistream_msgs.msg import StreamStatus
from omnistream_perception.node import PerceptionNode
from omnistream_ros import images
from omnistream_ros.testing import Graph
from tests.omnistream_perception.asking import ERROR, WARN, level_of

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


def test_undistortion_that_begins_or_changes_resets(start: Make, camera: Make) -> None:
    """image_transport drivers send the first CameraInfo after the first image."""
    node: PerceptionNode = start(rectify="auto")
    calibration = node._cameras[""]._calibration
    source = camera()
    source.served()
    source.calibrate(D=[-0.2, 0.05, 0, 0, 0])
    source.graph.wait(lambda: calibration.of((64, 64)), "the calibration")
    assert_reset(source, StreamStatus.RESET_CALIBRATION_CHANGED, source.served())
    source.served()
    source.calibrate(D=[-0.3, 0.05, 0, 0, 0])  # the same K
    source.graph.wait(lambda: calibration.of((64, 64)).d[0] == -0.3, "the new lens")
    source.served()
    status = source.status(lambda s: s.segment == 2 and s.frames_seen == 1, "another reset")
    assert status.last_reset_reason == StreamStatus.RESET_CALIBRATION_CHANGED


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
