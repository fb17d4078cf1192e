# SPDX-License-Identifier: Apache-2.0
"""A robot's bag with colour, depth and odometry becomes frames with depth and camera poses."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rosbags")

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream_training.data.bag_rgbd import RgbdBagSource
from omnistream_training.data.bag_topics import BagTopics
from omnistream_training.data.packed import open_pack

RATE, SIZE = 10.0, (24, 32)


class Bag:
    """Writes a bag of a robot that drives forwards at 0.5 m/s, its camera 0.2 m ahead of its base, 0.3 m up."""

    def __init__(self, path: Path) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        self.path, self.types = path, get_typestore(Stores.ROS2_JAZZY)
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._open: dict[str, Any] = {}

    def write(self, topic: str, message: Any, stamp: float) -> None:
        name = message.__msgtype__
        if topic not in self._open:
            self._open[topic] = self._writer.add_connection(topic, name, typestore=self.types)
        self._writer.write(self._open[topic], round(stamp * 1e9), bytes(self.types.serialize_cdr(message, name)))

    def make(self, name: str, **fields: Any) -> Any:
        return self.types.types[name](**fields)

    def header(self, stamp: float, frame: str) -> Any:
        whole = int(stamp)
        time = self.make("builtin_interfaces/msg/Time", sec=whole, nanosec=round((stamp - whole) * 1e9))
        return self.make("std_msgs/msg/Header", stamp=time, frame_id=frame)

    def image(self, topic: str, array: np.ndarray, encoding: str, stamp: float) -> None:
        data = np.frombuffer(array.tobytes(), np.uint8)
        step = data.size // array.shape[0]
        self.write(
            topic,
            self.make(
                "sensor_msgs/msg/Image",
                header=self.header(stamp, "camera_optical"),
                height=array.shape[0],
                width=array.shape[1],
                encoding=encoding,
                is_bigendian=0,
                step=step,
                data=data,
            ),
            stamp,
        )

    def pose(self, t: tuple[float, float, float], q: tuple[float, float, float, float], kind: str) -> Any:
        place = "Point" if kind == "Pose" else "Vector3"
        names = ("position", "orientation") if kind == "Pose" else ("translation", "rotation")
        xyz = self.make(f"geometry_msgs/msg/{place}", x=t[0], y=t[1], z=t[2])
        turn = self.make("geometry_msgs/msg/Quaternion", x=q[0], y=q[1], z=q[2], w=q[3])
        return self.make(f"geometry_msgs/msg/{kind}", **dict(zip(names, (xyz, turn), strict=True)))

    def odometry(self, x: float, stamp: float) -> None:
        still = self.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        twist = self.make("geometry_msgs/msg/Twist", linear=still, angular=still)
        pose = self.pose((x, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), "Pose")
        message = self.make(
            "nav_msgs/msg/Odometry",
            header=self.header(stamp, "odom"),
            child_frame_id="base",
            pose=self.make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
            twist=self.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
        )
        self.write("/odom", message, stamp)

    def static(self, parent: str, child: str, t: tuple[float, float, float], q: tuple[float, ...]) -> None:
        transform = self.make(
            "geometry_msgs/msg/TransformStamped",
            header=self.header(0.0, parent),
            child_frame_id=child,
            transform=self.pose(t, q, "Transform"),  # type: ignore[arg-type]
        )
        self.write("/tf_static", self.make("tf2_msgs/msg/TFMessage", transforms=[transform]), 0.0)

    def close(self) -> Path:
        self._writer.close()
        return self.path


OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # x forward, y left, z up -> z forward, x right, y down


def record(path: Path, *, mount: bool = True, depth: bool = True, frames: int = 10, compressed: bool = False) -> Path:
    bag = Bag(path)
    if mount:
        bag.static("base", "mast", (0.2, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        bag.static("mast", "camera_optical", (0.0, 0.0, 0.3), OPTICAL)
    for t in np.arange(0, frames / RATE + 0.1, 0.03):
        bag.odometry(0.5 * float(t), 1 + float(t))
    for i in range(frames):
        stamp = 1 + i / RATE
        bag.image("/camera/image_raw", np.full((*SIZE, 3), 10 * i, np.uint8), "rgb8", stamp)
        millimetres = np.full(SIZE, 1000 + 100 * i, np.uint16)
        millimetres[0] = 0
        if depth and compressed:
            buffer = io.BytesIO()
            Image.fromarray(millimetres).save(buffer, "PNG")
            data = np.frombuffer(bytes(12) + buffer.getvalue(), np.uint8)
            header = bag.header(stamp + 0.01, "camera_optical")
            message = bag.make(
                "sensor_msgs/msg/CompressedImage", header=header, format="16UC1; compressedDepth png", data=data
            )
            bag.write("/camera/depth/compressedDepth", message, stamp + 0.01)
        elif depth:
            bag.image("/camera/depth", millimetres, "16UC1", stamp + 0.01)
    return bag.close()


def test_every_picture_gets_the_depth_nearest_in_time_and_the_camera_pose_between_odometry(tmp_path: Path) -> None:
    frames = list(RgbdBagSource(record(tmp_path / "bag")))
    assert len(frames) == 10
    for i, frame in enumerate(frames):
        assert frame.depth is not None and frame.T_world_camera is not None
        assert np.isnan(frame.depth[0]).all()
        assert frame.depth[1:] == pytest.approx(1 + 0.1 * i, abs=1e-6)
        expected = rigid.from_translation_quaternion([0.5 * i / RATE + 0.2, 0, 0.3, *OPTICAL])
        assert frame.T_world_camera == pytest.approx(expected, abs=1e-6)
    forward = frames[9].T_world_camera[:3, 3] - frames[0].T_world_camera[:3, 3]  # type: ignore[index]
    along = frames[0].T_world_camera[:3, 2]  # type: ignore[index]
    assert forward @ along == pytest.approx(0.45, abs=1e-6)  # it drives where the camera looks


def test_compressed_depth_is_read_too(tmp_path: Path) -> None:
    frames = list(RgbdBagSource(record(tmp_path / "bag", compressed=True)))
    assert frames[3].depth is not None and frames[3].depth[5, 5] == pytest.approx(1.3)


def test_without_the_camera_on_the_base_poses_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    source = RgbdBagSource(record(tmp_path / "bag", mount=False))
    assert "/tf_static does not connect 'base' with the camera 'camera_optical'" in source.description
    assert all(frame.T_world_camera is None for frame in source)


def test_without_depth_frames_have_none(tmp_path: Path) -> None:
    source = RgbdBagSource(record(tmp_path / "bag", depth=False))
    assert "no depth" in source.description and all(frame.depth is None for frame in source)


def test_a_topic_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'/wrong'.*\n.*camera/depth"):
        RgbdBagSource(record(tmp_path / "bag"), BagTopics(depth="/wrong"))


def test_pictures_outside_the_odometry_have_no_pose(tmp_path: Path) -> None:
    bag = Bag(tmp_path / "bag")
    bag.static("base", "camera_optical", (0.0, 0.0, 0.0), OPTICAL)
    for stamp in (1.0, 1.1, 2.1, 2.2):  # a hole of one second
        bag.odometry(0.0, stamp)
    for stamp in (0.5, 1.05, 1.5, 2.15, 3.0):
        bag.image("/camera/image_raw", np.zeros((*SIZE, 3), np.uint8), "rgb8", stamp)
    known = [frame.T_world_camera is not None for frame in RgbdBagSource(bag.close())]
    assert known == [False, True, False, True, False]


def test_a_bag_is_packed_like_any_recording(tmp_path: Path) -> None:
    pack = open_pack(record(tmp_path / "bag"), (16, 16), tmp_path / "cache")
    assert pack.report.frames == 10 and pack.report.without_depth == 0 and pack.report.without_pose == 0
    assert pack.report.without_intrinsics == 10
    assert math.isnan(pack.K[0, 0, 0]) and pack.depth[4, 8, 8] == pytest.approx(1.4, abs=1e-3)
