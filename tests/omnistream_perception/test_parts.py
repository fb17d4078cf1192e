# SPDX-License-Identifier: Apache-2.0
"""Parts of the node that need no graph: motion, undistortion, calibration, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from omnistream.errors import ConfigError, InputError
from omnistream.geometry import rigid
from omnistream.model.config import preset
from omnistream.stream.gate import DropReason
from omnistream.stream.policy import parse_policy
from omnistream.stream.rectify import distort
from omnistream.weights import random_model
from omnistream_perception import memory
from omnistream_perception.calibration import Calibration
from omnistream_perception.monitor import Monitor
from omnistream_perception.motion import OPTICAL_TO_BODY, MotionTracker, odometry_message
from omnistream_perception.rectify import Rectifier
from omnistream_ros.diagnostics import Level
from omnistream_ros.images import camera_info_message, intrinsics
from omnistream_ros.latency import RateWindow

HEADER = Header(frame_id="camera")
K = np.array([[300.0, 0, 159.5], [0, 300.0, 119.5], [0, 0, 1]])

# ------------------------------------------------------------------------------------------------ motion


def pose(yaw: float, x: float, y: float, z: float) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return rigid.transform([[c, -s, 0], [s, c, 0], [0, 0, 1]], [x, y, z])


def test_a_robot_that_drives_an_arc_is_seen_to_drive_it() -> None:
    """The camera's poses are made from the base's; out must come the base's again, with its forward and yaw speed."""
    T_base_camera = rigid.transform(OPTICAL_TO_BODY[:3, :3], [0.3, 0.1, 1.2])
    tracker = MotionTracker("base_link")
    speed, turn, radius, period = 0.8, 0.4, 2.0, 0.1
    T_world_base = rigid.inverse(T_base_camera)  # the world is the camera at frame 0, where the base is the origin
    for index in range(20):
        yaw = turn * period * index
        base = pose(yaw, radius * np.sin(yaw), radius * (1 - np.cos(yaw)), 0)
        motion = tracker.update(T_world_base @ base @ T_base_camera, 5 + index * period, "camera", T_base_camera)
        assert motion is not None and motion.child_frame == "base_link"
        np.testing.assert_allclose(motion.T_odom_child, base, atol=1e-12)
        if index == 0:
            assert motion.twist is None
            continue
        assert motion.twist is not None
        np.testing.assert_allclose(motion.twist[:3], [speed, 0, 0], atol=0.02)  # the chord of the arc
        np.testing.assert_allclose(motion.twist[3:], [0, 0, turn], atol=1e-9)


def test_without_an_extrinsic_the_camera_moves_in_a_frame_with_z_up() -> None:
    tracker = MotionTracker("")
    forward = rigid.transform(np.eye(3), [0.1, -0.2, 1.0])  # optical: right, down, forward
    tracker.update(np.eye(4), 1.0, "camera", None)
    motion = tracker.update(forward, 2.0, "camera", None)
    assert motion is not None
    np.testing.assert_allclose(motion.T_odom_child[:3, 3], [1.0, -0.1, 0.2], atol=1e-12)
    assert motion.child_frame == "camera"


def test_the_base_is_not_told_of_before_its_camera_is_known_and_then_since_the_start() -> None:
    T_base_camera = rigid.transform(OPTICAL_TO_BODY[:3, :3], [0.3, 0.1, 1.2])
    tracker = MotionTracker("base_link")
    bases = [pose(0.1 * i, 0.2 * i, 0.05 * i, 0) for i in range(4)]
    views = [rigid.inverse(T_base_camera) @ base @ T_base_camera for base in bases]
    for index in range(3):
        assert tracker.update(views[index], float(index), "camera", None) is None
    motion = tracker.update(views[3], 3.0, "camera", T_base_camera)
    assert motion is not None and motion.twist is None
    np.testing.assert_allclose(motion.T_odom_child, bases[3], atol=1e-12)


@pytest.mark.parametrize("late", [False, True])
def test_the_base_goes_on_where_it_was_when_another_camera_takes_over(late: bool) -> None:
    """late: the extrinsic of the other camera is not known at its first image."""
    front = rigid.transform(OPTICAL_TO_BODY[:3, :3], [0.3, 0.1, 1.2])
    left = rigid.transform(pose(np.pi / 2, 0, 0, 0)[:3, :3] @ OPTICAL_TO_BODY[:3, :3], [0.0, 0.4, 0.8])
    tracker = MotionTracker("base_link")
    bases = [pose(0.3 * i, 0.2 * i, 0.05 * i, 0) for i in range(6)]
    for index in range(3):
        tracker.update(rigid.inverse(front) @ bases[index] @ front, float(index), "front", front)
    tracker.new_segment()
    for index in range(2, 6):  # the new world is the other camera where the base was left
        T_world_camera = rigid.inverse(left) @ rigid.inverse(bases[2]) @ bases[index] @ left
        known = None if late and index == 2 else left
        motion = tracker.update(T_world_camera, 1.0 + index, "left", known)
        assert (motion is None) == (known is None)
        if motion is not None:
            np.testing.assert_allclose(motion.T_odom_child, bases[index], atol=1e-12)


def test_covariance_is_never_zero_and_an_unknown_speed_is_uncertain() -> None:
    tracker = MotionTracker("")
    motions = [tracker.update(np.eye(4), stamp, "camera", None) for stamp in (1.0, 1.5)]
    first, second = (odometry_message(motion, HEADER, "odom", 0.05, 0.02) for motion in motions if motion is not None)
    np.testing.assert_allclose(np.diag(first.pose.covariance.reshape(6, 6)), [0.0025] * 3 + [0.0004] * 3)
    assert np.diag(first.twist.covariance.reshape(6, 6)).min() >= 1e6
    np.testing.assert_allclose(np.diag(second.twist.covariance.reshape(6, 6)), [0.02] * 3 + [0.0032] * 3)
    tracker.new_segment()
    third = tracker.update(np.eye(4), 2.0, "camera", None)
    assert third is not None and third.twist is None


# ------------------------------------------------------------------------------------------------ undistortion


def test_distortion_models_agree_with_their_formulas_by_hand() -> None:
    x, y = np.array([0.0, 0.3]), np.array([0.0, -0.4])  # r = 0 and 0.5
    plumb = distort(x, y, "plumb_bob", np.array([0.1, 0.01, 0.001, 0.002, 0.0]))
    radial = 1 + 0.1 * 0.25 + 0.01 * 0.0625
    assert plumb[0][1] == pytest.approx(0.3 * radial + 2 * 0.001 * 0.3 * -0.4 + 0.002 * (0.25 + 2 * 0.09))
    assert plumb[1][1] == pytest.approx(-0.4 * radial + 0.001 * (0.25 + 2 * 0.16) + 2 * 0.002 * 0.3 * -0.4)
    rational = distort(x, y, "rational_polynomial", np.array([0.1, 0, 0, 0, 0, 0.2, 0, 0]))
    assert rational[0][1] == pytest.approx(0.3 * (1 + 0.025) / (1 + 0.05))
    fisheye = distort(x, y, "equidistant", np.zeros(4))
    assert np.hypot(fisheye[0][1], fisheye[1][1]) == pytest.approx(np.arctan(0.5))  # r = theta, by its name
    for bent in (plumb, rational, fisheye):
        assert (bent[0][0], bent[1][0]) == (0, 0)


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", [-0.25, 0.06, 0.001, -0.001, 0.0]),
        ("rational_polynomial", [0.3, -0.1, 0, 0, 0.01, 0.6, 0.0, 0.0]),
        ("equidistant", [0.02, -0.01, 0.003, 0.0]),
    ],
)
def test_rectified_image_is_what_a_pinhole_would_have_seen(model: str, d: list[float]) -> None:
    """A smooth pattern on the plane z = 1, once through the bent lens and once through none."""

    def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([128 + 100 * np.sin(9 * x + c) * np.cos(7 * y - c) for c in (0, 1, 2)], axis=2)

    v, u = np.mgrid[:240, :320].astype(float)
    x, y = (u - 159.5) / 300, (v - 119.5) / 300
    straight = pattern(x, y)
    bent_x, bent_y = x.copy(), y.copy()  # the ray that each pixel of the bent image sees, by fixed-point iteration
    for _ in range(200):
        at_x, at_y = distort(bent_x, bent_y, model, np.array(d))
        bent_x, bent_y = bent_x - (at_x - x), bent_y - (at_y - y)
    info = camera_info_message(K, 320, 240, HEADER, D=d, distortion_model=model)
    rectifier = Rectifier(info, (240, 320))
    image = rectifier(pattern(bent_x, bent_y).round().astype(np.uint8)).astype(float)
    inside = np.s_[40:200, 50:270]
    assert np.abs(image - straight)[inside].mean() < 1.0
    assert np.abs(pattern(bent_x, bent_y) - straight)[inside].mean() > 1.5  # it was bent
    assert list(rectifier.info.d) == [] and np.allclose(rectifier.info.k.reshape(3, 3), K)


def test_unknown_distortion_model_is_refused_by_name() -> None:
    info = camera_info_message(K, 320, 240, HEADER, D=[0.1], distortion_model="kannala9")
    with pytest.raises(InputError, match="'kannala9'"):
        Rectifier(info, (240, 320))


@pytest.mark.parametrize(
    ("model", "known", "count"), [("rational_polynomial", 8, 12), ("rational_polynomial", 8, 14), ("plumb_bob", 5, 8)]
)
def test_coefficients_that_are_not_understood_are_not_cut_off(model: str, known: int, count: int) -> None:
    """OpenCV writes 12 (thin prism) or 14 (tilted sensor) of them under the same name."""
    d = [-0.2, 0.05] + [0.0] * (count - 2)
    info = camera_info_message(K, 320, 240, HEADER, D=d, distortion_model=model)
    Rectifier(info, (240, 320))  # zeros say nothing
    d[known] = 0.01
    info = camera_info_message(K, 320, 240, HEADER, D=d, distortion_model=model)
    with pytest.raises(InputError, match=f"{model} has {count} coefficients"):
        Rectifier(info, (240, 320))


# ------------------------------------------------------------------------------------------------ calibration


class Warnings(list[str]):
    def __call__(self, sentence: str) -> None:
        self.append(sentence)


IMAGE = np.full((240, 320, 3), 90, np.uint8)


def distorted() -> CameraInfo:
    info = camera_info_message(K, 320, 240, HEADER, D=[-0.2, 0.05, 0, 0, 0])
    info.p[0] = info.p[5] = 250.0  # what image_proc would rectify to
    return info


def test_distorted_images_are_used_as_they_are_and_that_is_said_once() -> None:
    warnings = Warnings()
    calibration = Calibration(False, "/camera/image_raw", warnings)
    calibration.update(distorted())
    for _ in range(3):
        image, info = calibration.rectify(IMAGE, calibration.of((240, 320)))
    assert image is IMAGE and info is not None
    assert len(warnings) == 1 and "rectify" in warnings[0] and "/camera/image_raw" in warnings[0]


def test_rectify_auto_undistorts_and_says_so_once() -> None:
    warnings = Warnings()
    calibration = Calibration(True, "/camera/image_raw", warnings)
    calibration.update(distorted())
    for _ in range(3):
        image, info = calibration.rectify(IMAGE, calibration.of((240, 320)))
    assert image is not IMAGE and info is not None and len(info.d) == 0
    assert len(warnings) == 1 and "undistorted" in warnings[0]


@pytest.mark.parametrize("topic", ["/camera/image_rect", "/camera/image_rect_color/compressed"])
def test_a_rectified_topic_is_left_alone_and_its_calibration_is_p(topic: str) -> None:
    """image_proc publishes the rectified image beside the raw camera's CameraInfo, whose P then holds."""
    warnings = Warnings()
    calibration = Calibration(True, topic, warnings)
    calibration.update(distorted())
    image, info = calibration.rectify(IMAGE, calibration.of((240, 320)))
    assert image is IMAGE and info is not None and not warnings
    k = intrinsics(info)
    assert k is not None and (k[0, 0], k[1, 1]) == (250.0, 250.0)


def test_a_topic_with_those_letters_in_another_word_is_not_taken_for_rectified() -> None:
    calibration = Calibration(True, "/camera/image_corrected", Warnings())
    calibration.update(distorted())
    image, _ = calibration.rectify(IMAGE, calibration.of((240, 320)))
    assert image is not IMAGE


def test_calibration_of_another_size_or_uncalibrated_is_not_used() -> None:
    warnings = Warnings()
    calibration = Calibration(False, "/image", warnings)
    assert calibration.of((240, 320)) is None
    calibration.update(CameraInfo(width=320, height=240))
    assert calibration.of((240, 320)) is None
    calibration.update(distorted())
    assert calibration.of((480, 640)) is None
    assert len(warnings) == 1 and "320x240" in warnings[0] and "640x480" in warnings[0]
    assert calibration.of((240, 320)) is not None


def broken_info(field: str, index: int, value: float) -> CameraInfo:
    info = distorted()
    getattr(info, field)[index] = value
    return info


@pytest.mark.parametrize(
    ("topic", "field", "index", "value"),
    [
        *(("/image", "k", index, value) for index, value in ((4, 0.0), (4, -300.0), (8, 0.0), (8, 2.0), (2, np.nan))),
        *(("/image_rect", "p", index, value) for index, value in ((5, 0.0), (5, -250.0), (10, 0.0), (0, np.nan))),
        ("/image", "d", 1, np.nan),
        ("/image", "d", 0, np.inf),
    ],
)
@pytest.mark.parametrize("rectify", [False, True])
def test_calibration_that_is_none_counts_as_missing_and_that_is_said_once(
    topic: str, field: str, index: int, value: float, rectify: bool
) -> None:
    """K would be a matrix without an inverse, or undistortion would make a black picture of each image."""
    warnings = Warnings()
    calibration = Calibration(rectify, topic, warnings)
    calibration.update(broken_info(field, index, value))
    for _ in range(3):
        image, info = calibration.rectify(IMAGE, calibration.of((240, 320)))
        assert image is IMAGE and info is None
    assert len(warnings) == 1 and f"{field.upper()} = " in warnings[0] and "uncalibrated" in warnings[0]
    calibration.update(distorted())
    assert calibration.of((240, 320)) is not None


# ------------------------------------------------------------------------------------------------ health

LIMITS = {"nominal_rate": 30.0, "stale_after": 10.0, "frozen_after": 10, "latency_budget": 50.0}


def monitor_with(latencies: list[float]) -> Monitor:
    monitor = Monitor(Warnings())
    for latency in latencies:
        monitor.processed += 1
        monitor.latencies["total"].add(latency)
    return monitor


@pytest.mark.parametrize(
    ("latencies", "level", "word"),
    [
        ([20.0] * 100, Level.OK, "20.0 ms"),
        ([20.0] * 95 + [80.0] * 5, Level.WARN, "1 image in 100 takes over 80 ms; the budget is 50"),
        ([80.0] * 100, Level.ERROR, "half of the images take over 80 ms; the budget is 50"),
        ([], Level.OK, "nothing processed yet"),
    ],
)
def test_latency_is_judged_by_the_budget(latencies: list[float], level: Level, word: str) -> None:
    report = monitor_with(latencies).stream_report(LIMITS, active=True)
    assert (report.level, report.message) == (level, word)


def test_latencies_of_a_replaced_model_are_forgotten() -> None:
    monitor = monitor_with([80.0] * 100)
    monitor.model_replaced()
    monitor.latencies["total"].add(20.0)
    assert monitor.stream_report(LIMITS, active=True).level is Level.OK


def test_wrong_rate_and_new_unusable_images_warn_and_expected_drops_do_not() -> None:
    now = [0.0]
    monitor = monitor_with([])
    monitor.arrivals = RateWindow(3.0, clock=lambda: now[0])
    for _ in range(60):
        now[0] += 1 / 15
        monitor.arrived()
    monitor.dropped(DropReason.SUPERSEDED)
    report = monitor.input_report(LIMITS, "/image", active=True)
    assert (report.level, report.message) == (
        Level.WARN,
        "images arrive at 15.0 Hz; expected 30 (nominal_rate)",
    )
    assert report.values["dropped_superseded"] == 1
    monitor.dropped(DropReason.MALFORMED, "truncated")
    monitor.dropped(DropReason.MALFORMED, "truncated")
    assert "2 malformed" in monitor.input_report(LIMITS, "/image", active=True).message
    assert "malformed" not in monitor.input_report(LIMITS, "/image", active=True).message  # told once
    assert monitor.input_report(LIMITS, "/image", active=False).level is Level.OK


def test_a_flood_of_bad_images_is_one_line_in_the_log() -> None:
    warnings = Warnings()
    monitor = Monitor(warnings)
    for _ in range(1000):
        monitor.dropped(DropReason.ENCODING, "bayer_xxxx8")
    monitor.dropped(DropReason.MALFORMED, "empty")
    assert len(warnings) == 2 and "bayer_xxxx8" in warnings[0]
    assert monitor.drop_counts() == {"encoding": 1000, "malformed": 1}


# ------------------------------------------------------------------------------------------------ memory


def test_the_need_is_what_model_and_session_really_take() -> None:
    from omnistream import StreamSession

    config = preset("tiny")
    need = memory.memory_need(config, parse_policy("window:4"), 0, (480, 640), 2, torch.float32)
    model = random_model(config, 0)
    session = StreamSession(model, policy="window:4", dtype="float32", device="cpu")
    session.allocate(480, 640)
    assert need.weights == sum(p.numel() * 4 for p in model.parameters())
    assert need.cache == session.nbytes
    assert need.total == need.weights + 2 * session.nbytes
    assert "2 x" in str(need) and "4 frames of 256x192" in str(need)


def test_large_models_are_refused_before_anything_is_loaded() -> None:
    need = memory.memory_need(preset("large"), parse_policy("window:16"), 512, (480, 640), 1, torch.float32)
    assert need.weights > 1.2e9 and need.cache > 2e9
    with pytest.raises(ConfigError, match=r"needed are \d+ MiB .* allows 512 MiB"):
        memory.check_memory(need.total, str(need), 512, "cpu")
    memory.check_memory(need.total, str(need), 1 << 20, "cpu")
