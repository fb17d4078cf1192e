# SPDX-License-Identifier: Apache-2.0
"""What goes out: stamps, frames, units, resolutions, and which topics exist for which checkpoint."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from PIL import Image as Picture
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from omnistream import StreamSession, load_model
from omnistream.geometry import rigid
from omnistream.geometry.pinhole import unproject
from omnistream.model.omnistream import OmniStream
from omnistream.weights import save_model
from omnistream_msgs.msg import StreamStatus
from omnistream_perception.motion import OPTICAL_TO_BODY
from omnistream_perception.transforms import StaticTransforms
from omnistream_ros import images
from omnistream_ros.testing import Graph, read_points

Make = Callable[..., Any]
P = "/perception"
OPTIONAL = ("depth", "depth_relative", "confidence", "camera_info", "points", "odometry")


def exists(graph: Graph, topic: str) -> bool:
    return graph.node.count_publishers(f"{P}/{topic}") > 0


def values_of(message: Image) -> np.ndarray:
    assert message.encoding == "32FC1" and message.step == 4 * message.width
    return np.frombuffer(message.data, np.float32).reshape(message.height, message.width)


# ------------------------------------------------------------------------------------------------ the numbers


def test_outputs_are_those_of_a_session_stamped_and_framed_as_the_image(
    graph: Graph, start: Make, camera: Make, weights: dict[str, str]
) -> None:
    """The node adds transport and nothing else: every number equals StreamSession's on the same images."""
    start(dtype="float32", features_dtype="float32", policy="window:2")
    kinds = {
        "depth": Image,
        "confidence": Image,
        "camera_info": CameraInfo,
        "points": PointCloud2,
        "odometry": Odometry,
    }
    heard = {name: graph.collect(kind, f"{P}/{name}", "reliable:100") for name, kind in kinds.items()}
    source = camera()
    source.calibrate(size=(48, 80))
    session = StreamSession(load_model(weights["metric"]), policy="window:2", dtype="float32")
    pictures = [source.picture((48, 80)) for _ in range(4)]
    headers = [source.served(images.image_message(picture, source.header())).header for picture in pictures]
    for name in kinds:
        graph.wait(lambda name=name: len(heard[name]) == 4, f"4 messages of {name}")
    h, w = session.network_size(48, 80)
    for index, picture in enumerate(pictures):
        expected = session.step(picture)
        for name in ("depth", "confidence", "camera_info", "points"):
            assert heard[name][index].header == headers[index], name
        np.testing.assert_allclose(values_of(heard["depth"][index]), expected.depth, rtol=1e-6)
        np.testing.assert_allclose(values_of(heard["confidence"][index]), expected.depth_confidence, rtol=1e-6)
        info = heard["camera_info"][index]
        assert (info.height, info.width) == (h, w)
        points, rgb = read_points(heard["points"][index])
        np.testing.assert_allclose(points, unproject(expected.depth, info.k.reshape(3, 3)), rtol=1e-5)
        assert rgb is not None and rgb.shape == (h, w, 3) and rgb.std() > 10
        feature = source.features[index]
        np.testing.assert_allclose(
            np.frombuffer(feature.data, np.float32).reshape(feature.grid_height, feature.grid_width, feature.dim),
            expected.features,
            rtol=1e-6,
        )
        assert (feature.layer, feature.layout, feature.model_hash) == (
            "patches",
            "row_major_hwc",
            session.backbone_hash,
        )


def test_features_are_half_precision_by_default(start: Make, camera: Make, weights: dict[str, str]) -> None:
    start(dtype="float32")
    source = camera()
    picture = source.picture()
    source.served(images.image_message(picture, source.header()))
    (message,) = source.features
    assert message.dtype == "float16" and len(message.data) == 4 * 4 * 32 * 2
    expected = StreamSession(load_model(weights["metric"]), dtype="float32").step(picture).features
    np.testing.assert_array_equal(np.frombuffer(message.data, "<f2").reshape(4, 4, 32), expected.astype(np.float16))


def test_full_resolution_by_option_at_run_time(graph: Graph, start: Make, camera: Make) -> None:
    start()
    depth, info = graph.collect(Image, f"{P}/depth"), graph.collect(CameraInfo, f"{P}/camera_info")
    source = camera()
    source.calibrate(size=(120, 160))
    for resolution, size in (("network", (48, 80)), ("full", (120, 160))):
        assert graph.set_parameter(P, "depth_resolution", resolution).successful
        depth.clear()
        info.clear()
        source.served(images.image_message(source.picture((120, 160)), source.header()))
        graph.wait(lambda: depth and info, "depth and camera_info")
        size = size if resolution == "full" else (depth[0].height, depth[0].width)
        assert (depth[0].height, depth[0].width) == (info[0].height, info[0].width) == size
        assert depth[0].height % 16 == 0 or resolution == "full"
    np.testing.assert_allclose(info[0].k[[0, 2]], [60, 31.5])  # at full resolution it is the camera's own


def test_a_rectified_picture_is_seen_through_the_lens_that_p_tells(
    graph: Graph, start: Make, camera: Make, weights: dict[str, str], tmp_path: Path
) -> None:
    """image_proc puts the raw camera's CameraInfo beside it, whose K is that of the pixels before."""
    metric = load_model(weights["metric"])
    known = OmniStream(dataclasses.replace(metric.config, lens="known"))
    known.load_state_dict(metric.state_dict())
    node = start(
        weights=str(save_model(known, tmp_path / "known")),
        image_topic="/front/image_rect",
        dtype="float32",
        engine="torch",
    )
    depth = graph.collect(Image, f"{P}/depth")
    source = camera(topic="/front/image_rect")
    rectified = np.array([[90.0, 0, 31.5], [0, 90.0, 31.5], [0, 0, 1]])
    info = images.camera_info_message(rectified, 64, 64, source.header(), D=(-0.3, 0.1, 0.0, 0.0, 0.0))
    info.k[0] = info.k[4] = 60.0
    graph.publish(CameraInfo, "/front/camera_info", info, "reliable:100")
    graph.wait(lambda: node._cameras[""]._calibration.of((64, 64)), "the calibration")
    picture = source.picture()
    source.served(images.image_message(picture, source.header()))
    graph.wait(lambda: depth, "depth")
    session = StreamSession(known.eval(), dtype="float32", engine="torch")
    np.testing.assert_allclose(values_of(depth[0]), session.step(picture, K=rectified).depth, rtol=1e-4)


def test_low_confidence_becomes_nan(graph: Graph, start: Make, camera: Make) -> None:
    start()
    depth, confidence = graph.collect(Image, f"{P}/depth"), graph.collect(Image, f"{P}/confidence")
    points = graph.collect(PointCloud2, f"{P}/points")
    source = camera()
    source.calibrate()
    source.served()
    graph.wait(lambda: confidence, "confidence")
    threshold = float(np.median(values_of(confidence[0])))
    assert np.isfinite(values_of(depth[0])).all()
    assert graph.set_parameter(P, "min_confidence", threshold).successful
    source.served()
    graph.wait(lambda: len(depth) == len(confidence) == len(points) == 2, "the second image's depth")
    low = values_of(confidence[1]) < threshold
    assert 0 < low.mean() < 1
    np.testing.assert_array_equal(np.isnan(values_of(depth[1])), low)
    cloud, _ = read_points(points[1])
    np.testing.assert_array_equal(np.isnan(cloud[..., 2]), low)
    assert not points[1].is_dense


@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_compressed_images(graph: Graph, start: Make, camera: Make, format: str) -> None:
    start(image_transport="compressed", image_topic="/front/image_raw")
    source = camera(topic="/front/image_raw/compressed")
    buffer = io.BytesIO()
    Picture.fromarray(source.picture()).save(buffer, format)
    source.served(images.compressed_message(buffer.getvalue(), source.header(), format))
    broken = images.compressed_message(buffer.getvalue()[:50], source.header(), format)
    source.send(broken)
    source.drops("malformed")
    source.served(images.compressed_message(buffer.getvalue(), source.header(), format))
    assert isinstance(broken, CompressedImage)


# ------------------------------------------------------------------------------------------------ which topics exist


@pytest.mark.parametrize(
    ("kind", "allow", "expected", "said"),
    [
        ("metric", False, {"depth", "confidence", "camera_info", "points", "odometry"}, ""),
        ("relative", False, {"depth_relative", "confidence", "camera_info"}, "scale is relative"),
        ("relative", True, {"depth_relative", "confidence", "camera_info", "points", "odometry"}, "scale is relative"),
        ("untrained", False, {"depth_relative", "confidence", "camera_info"}, "the numbers mean nothing"),
        ("backbone", False, set(), "no depth head"),
    ],
)
def test_topics_exist_only_where_the_checkpoint_can_fill_them(
    graph: Graph, start: Make, camera: Make, weights: dict[str, str], kind: str, allow: bool, expected: set, said: str
) -> None:
    start(weights=weights[kind], allow_relative=allow)
    source = camera()
    source.served()
    assert {name for name in OPTIONAL if exists(graph, name)} == expected
    status = source.status(lambda s: s.state == StreamStatus.STATE_ACTIVE, "active")
    assert said in status.detail
    assert status.scale == {"untrained": "none", "backbone": "none"}.get(kind, kind)
    assert status.outputs == (["features"] if kind == "backbone" else ["depth", "features", "pose", "rays"])


def test_heads_nobody_listens_to_are_not_run_but_frames_are_consumed(
    graph: Graph, start: Make, camera: Make, weights: dict[str, str]
) -> None:
    """Of a checkpoint without odometry: where there is some, the pose is followed all the time."""
    start(weights=weights["relative"])
    source = camera()
    for _ in range(3):
        source.served()
    status = source.status(lambda s: s.frames_seen == 3, "3 frames")
    assert "heads" not in {latency.stage for latency in status.latencies}
    depth = graph.collect(Image, f"{P}/depth_relative")
    source.served()
    graph.wait(lambda: depth, "depth")
    # A frame is seen before its heads have run, and they before they are accounted for.
    status = source.status(lambda s: "heads" in {latency.stage for latency in s.latencies}, "the heads' time")
    assert status.frames_seen == 4


# ------------------------------------------------------------------------------------------------ odometry


def pose_of(message: Odometry) -> np.ndarray:
    p, q = message.pose.pose.position, message.pose.pose.orientation
    assert np.linalg.norm([q.x, q.y, q.z, q.w]) == pytest.approx(1)
    return rigid.from_translation_quaternion([p.x, p.y, p.z, q.x, q.y, q.z, q.w])


@pytest.mark.parametrize("reset_first", [False, True])
def test_who_comes_late_hears_the_pose_since_the_start(
    graph: Graph, start: Make, camera: Make, weights: dict[str, str], reset_first: bool
) -> None:
    start(dtype="float32", engine="torch")
    source = camera()
    session = StreamSession(load_model(weights["metric"]), dtype="float32", engine="torch")
    T_odom_segment = np.eye(4)
    if reset_first:  # what was walked before it counts too, though nobody listened
        pictures = [source.picture() for _ in range(3)]
        for picture in pictures:
            source.served(images.image_message(picture, source.header()))
            T_odom_segment = session.step(picture).T_world_camera
        session.reset()
        source.stamp = 10.0
    pictures = [source.picture() for _ in range(4)]
    for picture in pictures[:3]:
        source.served(images.image_message(picture, source.header()))
    odometry = graph.collect(Odometry, f"{P}/odometry", "reliable:100")
    source.served(images.image_message(pictures[3], source.header()))
    graph.wait(lambda: odometry, "odometry")
    poses = [T_odom_segment @ session.step(picture).T_world_camera for picture in pictures]
    assert np.abs(poses[3] - np.eye(4)).max() > 1e-3
    np.testing.assert_allclose(pose_of(odometry[0]), OPTICAL_TO_BODY @ poses[3], atol=1e-5)
    assert odometry[0].twist.covariance[0] < 1e6  # and how it moves


def test_odometry_continues_over_a_reset(graph: Graph, start: Make, camera: Make) -> None:
    start()
    odometry = graph.collect(Odometry, f"{P}/odometry", "reliable:100")
    source = camera()
    for _ in range(3):
        source.served()
    source.served(stamp=10.0)  # back in time: a reset
    source.stamp = 10.0
    source.served()
    graph.wait(lambda: len(odometry) == 5, "5 poses")
    poses = [pose_of(message) for message in odometry]
    steps = [float(np.abs(rigid.inverse(a) @ b - np.eye(4)).max()) for a, b in pairwise(poses)]
    assert min(steps[0], steps[1], steps[3]) > 1e-4  # it moves (random weights, random images)
    assert steps[2] < 1e-6  # but not at the seam
    assert source.status(lambda s: s.segment == 1, "segment 1")
    for message in odometry:
        assert (message.header.frame_id, message.child_frame_id) == ("odom", "camera_optical")
        covariance = message.pose.covariance.reshape(6, 6)
        assert (np.diag(covariance) > 0).all() and (np.diag(message.twist.covariance.reshape(6, 6)) > 0).all()
    assert odometry[3].twist.covariance[0] >= 1e6  # the first of a segment does not know its speed
    assert 0 < odometry[4].twist.covariance[0] < 1e6


def test_odometry_of_the_base_by_parameter_and_its_transform(graph: Graph, start: Make, camera: Make) -> None:
    extrinsic = [0.2, 0.0, 1.1, -0.5, 0.5, -0.5, 0.5]
    start(base_frame="base_link", base_to_camera=extrinsic, publish_tf=True, dtype="float32")
    odometry = graph.collect(Odometry, f"{P}/odometry", "reliable:100")
    transforms = graph.collect(TFMessage, "/tf", "reliable:100", connect=False)
    source = camera()
    for _ in range(3):
        source.served()
    graph.wait(lambda: len(odometry) == 3 and len(transforms) >= 2, "odometry and transforms")
    assert {message.child_frame_id for message in odometry} == {"base_link"}
    np.testing.assert_allclose(pose_of(odometry[0]), np.eye(4), atol=1e-9)  # the base starts at the origin
    last = transforms[-1].transforms[0]
    assert (last.header.frame_id, last.child_frame_id, last.header.stamp) == (
        "odom",
        "base_link",
        odometry[2].header.stamp,
    )
    assert last.transform.translation.x == pytest.approx(odometry[2].pose.pose.position.x)


def test_extrinsic_from_static_transforms(graph: Graph, start: Make, camera: Make) -> None:
    start(base_frame="base_link", publish_tf=True)
    odometry = graph.collect(Odometry, f"{P}/odometry", "reliable:100")
    transforms = graph.collect(TFMessage, "/tf", "reliable:100", connect=False)
    source = camera()
    source.served()
    status = source.status(lambda s: "no odometry" in s.detail, "what is missing")  # the camera's own is another body's
    assert "'camera_optical' in 'base_link' is not known" in status.detail
    mount = TransformStamped(child_frame_id="mast")
    mount.header.frame_id, mount.transform.translation.z = "base_link", 1.0
    optical = TransformStamped(child_frame_id="camera_optical")
    optical.header.frame_id = "mast"
    for axis, value in zip("xyzw", (-0.5, 0.5, -0.5, 0.5), strict=True):
        setattr(optical.transform.rotation, axis, value)
    graph.publish(TFMessage, "/tf_static", TFMessage(transforms=[mount, optical]), "latched")

    def of_the_base() -> bool:
        source.served()
        return bool(odometry and transforms)

    graph.wait(of_the_base, "odometry of the base")
    assert {message.child_frame_id for message in odometry} == {"base_link"}
    assert {message.transforms[0].child_frame_id for message in transforms} == {"base_link"}
    assert source.status(lambda s: "no odometry" not in s.detail, "that nothing is missing")
    count = len(odometry)
    source.served(frame="another_optical")  # of which /tf_static does not tell
    source.status(lambda s: "'another_optical' in 'base_link' is not known" in s.detail, "what is missing")
    assert len(odometry) == count


# ------------------------------------------------------------------------------------------------ several cameras


def test_two_cameras_share_an_engine_and_have_a_stream_each(graph: Graph, start: Make, camera: Make) -> None:
    node = start(cameras=["front", "wrist"], cameras__wrist__image_topic="/hand/image")
    front = camera(topic="/front/image_raw", node=f"{P}/front")
    wrist = camera(topic="/hand/image", node=f"{P}/wrist")
    for _ in range(3):
        front.served()
    wrist.served(images.image_message(wrist.picture((48, 96)), wrist.header()))  # not as expected_image_size says
    wrist.served(stamp=1.0)  # resets this one only
    status = front.status(lambda s: s.frames_seen == 3, "3 frames of front")
    assert (status.camera, status.segment) == ("front", 0)
    status = wrist.status(lambda s: s.frames_seen == 1 and s.segment == 1, "a reset of wrist")
    assert status.camera == "wrist"
    sessions = [node._cameras[name].session for name in ("front", "wrist")]
    assert sessions[0].engine is sessions[1].engine


def test_each_camera_has_an_odometry_frame_of_its_own(graph: Graph, start: Make, camera: Make) -> None:
    start(cameras=["front", "wrist"], publish_tf=True)
    heard = {name: graph.collect(Odometry, f"{P}/{name}/odometry", "reliable:100") for name in ("front", "wrist")}
    for name, messages in heard.items():
        source = camera(topic=f"/{name}/image_raw", node=f"{P}/{name}")
        source.served(frame=f"{name}_optical")
        graph.wait(lambda messages=messages: messages, f"odometry of {name}")
        assert (messages[0].header.frame_id, messages[0].child_frame_id) == (f"{name}_odom", f"{name}_optical")


def test_one_base_does_not_get_a_transform_from_each_camera(graph: Graph, start: Make, camera: Make) -> None:
    pose = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    given: dict[str, Any] = {"cameras": ["front", "wrist"]}
    for name in given["cameras"]:
        given |= {f"cameras__{name}__base_frame": "base_link", f"cameras__{name}__base_to_camera": pose}
    node = start(name="refused", wait=False, publish_tf=True, **given)
    graph.wait(lambda: node.fault, "configure to be refused")
    assert "publish_tf" in node.fault and "base_link" in node.fault
    start(**given)
    odometry = graph.collect(Odometry, f"{P}/front/odometry", "reliable:100")
    transforms = graph.collect(TFMessage, "/tf", "reliable:100", connect=False)
    assert graph.set_parameter(P, "publish_tf", True).successful
    source = camera(topic="/front/image_raw", node=f"{P}/front")
    for _ in range(3):
        source.served()
    graph.wait(lambda: len(odometry) == 3, "odometry")
    assert not transforms


# ------------------------------------------------------------------------------------------------ QoS


def test_quality_of_service_is_a_parameter_of_each_topic(graph: Graph, start: Make) -> None:
    start(qos__depth="sensor:2", qos__image="reliable:3")
    graph.wait(lambda: exists(graph, "depth"), "depth")
    (depth,) = graph.node.get_publishers_info_by_topic(f"{P}/depth")
    assert depth.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    (image,) = graph.node.get_subscriptions_info_by_topic("/image")
    assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    (points,) = graph.node.get_publishers_info_by_topic(f"{P}/points")
    assert points.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_max_rate_takes_effect_at_run_time(graph: Graph, start: Make, camera: Make) -> None:
    monitor = start()._cameras[""].monitor
    source = camera(rate=30.0)
    source.served()
    assert graph.set_parameter(P, "max_rate", 10.0).successful
    for _ in range(9):  # 30 Hz by the stamps: every third one
        before = monitor.processed + sum(monitor.drops.values())
        source.send()
        graph.wait(lambda before=before: monitor.processed + sum(monitor.drops.values()) > before, "a decision")
    status = source.drops("rate_limit", 6)
    assert source.status(lambda s: s.frames_processed == 4, "4 processed") and status.segment == 0


def test_images_that_are_not_used_are_no_pause(start: Make, camera: Make) -> None:
    """`max_rate` takes one every two seconds, `max_gap` is one."""
    monitor = start(max_rate=0.5)._cameras[""].monitor
    source = camera(rate=5.0)
    for _ in range(22):
        before = monitor.processed + sum(monitor.drops.values())
        source.send()
        source.graph.wait(lambda before=before: monitor.processed + sum(monitor.drops.values()) > before, "a decision")
    status = source.status(lambda s: s.frames_processed == 3, "3 processed")
    assert (status.segment, status.frames_seen) == (0, 3)


def test_frames_written_with_a_slash_as_in_ros_1_are_found(graph: Graph) -> None:
    transforms = StaticTransforms(graph.node)
    mount = TransformStamped(header=Header(frame_id="/base_link"), child_frame_id="camera")
    mount.transform.translation.z = 1.0
    graph.publish(TFMessage, "/tf_static", TFMessage(transforms=[mount]), "latched")
    for target in ("base_link", "/base_link"):
        for source in ("camera", "/camera"):
            graph.wait(lambda t=target, s=source: transforms.lookup(t, s) is not None, f"{target} from {source}")
            assert transforms.lookup(target, source)[2, 3] == 1.0
