# SPDX-License-Identifier: Apache-2.0
"""A robot's own rosbag2 as training data: pictures, the depth image that belongs to each, and odometry.

    colour      an image topic, with its camera_info beside it (`omnistream.io.BagImageSource`)
    depth       16UC1 or 32FC1, registered to the colour camera; uncompressed or compressedDepth (PNG)
    odometry    nav_msgs/Odometry; /tf_static says where the camera sits on its child frame

Depth is the image nearest in time, poses are interpolated between two odometry messages. Where a topic is missing, its
labels are missing, and the description says so.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream.io.bag import COMPRESSED, RAW, BagImageSource
from omnistream.io.bag_reader import BagReader, Topic, topic_table
from omnistream.io.frames import DEFAULT_RATE, Frame, FrameSource
from omnistream.io.pixels import DEPTH_ENCODINGS, decode_depth, millimetres_to_metres
from omnistream_training.data.bag_topics import BagTopics

ODOMETRY = "nav_msgs/msg/Odometry"
STATIC_TF = "/tf_static"
MAX_ODOMETRY_GAP = 0.25
"""Seconds between two odometry messages over which a pose is still interpolated."""
COMPRESSED_DEPTH_HEADER = 12
"""Bytes before the PNG (image_transport's compressed_depth_image_transport: a format enum and two floats)."""


class RgbdBagSource(FrameSource):
    """Frames with depth and poses from a bag."""

    def __init__(self, path: Path, topics: BagTopics | None = None) -> None:
        wanted = topics or BagTopics()
        self._path = path
        self._images = BagImageSource(path, wanted.image)
        first = next(iter(self._images), None)
        with BagReader(path) as bag:
            self._depth = _choose_depth(bag, wanted.depth)
            odometry = _choose(bag, [t for t in bag.topics if t.type == ODOMETRY and t.count], wanted.odometry)
            self._path_of_camera = None
            why = "no odometry"
            if odometry is not None and first is not None:
                self._path_of_camera, why = _camera_path(bag, odometry, first.frame_id)
        depth = f"depth on {self._depth.name}" if self._depth else "no depth"
        super().__init__(
            description=f"{self._images.description}, {depth}, {why}",
            rate=self._images.rate,
            length=self._images.length,
        )

    def _read(self) -> Iterator[Frame]:
        self._images.on_error = self.on_error
        apart = 0.5 / (self.rate or DEFAULT_RATE)
        with BagReader(self._path) as bag:
            depths = self._depths(bag)
            before: _Depth | None = None
            after = next(depths, None)
            for frame in self._images:
                while after is not None and after.stamp < frame.stamp:
                    before, after = after, next(depths, None)
                near = [d for d in (before, after) if d is not None and abs(d.stamp - frame.stamp) <= apart]
                depth = min(near, key=lambda d: abs(d.stamp - frame.stamp)).metres if near else None
                pose = None if self._path_of_camera is None else self._path_of_camera.at(frame.stamp)
                yield replace(frame, depth=depth, T_world_camera=pose)
        self.skipped += self._images.skipped
        self.skip_reasons += self._images.skip_reasons

    def _depths(self, bag: BagReader) -> Iterator[_Depth]:
        if self._depth is None:
            return
        for topic, _, data in bag.raw_messages([self._depth.name]):
            try:
                message = bag.decode(topic, data)
                yield _Depth(_seconds(message.header.stamp), _decode(message, topic.type))
            except InputError as error:
                self._unreadable(InputError(f"{self._path}: depth on {topic.name}: {error}"))


@dataclass(frozen=True, eq=False)
class _Depth:
    stamp: float
    metres: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CameraPath:
    """Poses of a base over time, and the camera's place on it."""

    stamps: NDArray[np.float64]
    """[N] s, increasing."""
    poses: NDArray[np.float64]
    """[N, 7] tx ty tz qx qy qz qw, odometry frame from base."""
    T_base_camera: NDArray[np.float64]

    def at(self, stamp: float) -> NDArray[np.float64] | None:
        """T_world_camera, interpolated; None outside the path or in a gap of it."""
        right = int(np.searchsorted(self.stamps, stamp))
        if right < len(self.stamps) and self.stamps[right] == stamp:
            return rigid.from_translation_quaternion(self.poses[right]) @ self.T_base_camera
        if not 0 < right < len(self.stamps):
            return None
        a, b = self.stamps[right - 1], self.stamps[right]
        if b - a > MAX_ODOMETRY_GAP:
            return None
        left, other = self.poses[right - 1], self.poses[right].copy()
        if left[3:] @ other[3:] < 0:
            other[3:] *= -1
        share = (stamp - a) / (b - a)  # over so short a time, a straight line between unit quaternions is a rotation
        return rigid.from_translation_quaternion((1 - share) * left + share * other) @ self.T_base_camera


def _camera_path(bag: BagReader, odometry: Topic, camera: str) -> tuple[CameraPath | None, str]:
    """The camera's path, or None, and a remark for people."""
    stamps, poses, base = [], [], ""
    for topic, _, data in bag.raw_messages([odometry.name]):
        message = bag.decode(topic, data)
        p, q = message.pose.pose.position, message.pose.pose.orientation
        stamps.append(_seconds(message.header.stamp))
        poses.append([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
        base = message.child_frame_id
    mount = static_transform(bag, base, camera)
    if mount is None:
        return None, f"odometry not used: {STATIC_TF} does not connect {base!r} with the camera {camera!r}"
    order = np.unique(stamps, return_index=True)[1]
    return CameraPath(np.array(stamps)[order], np.array(poses)[order], mount), f"poses from {odometry.name}"


def static_transform(bag: BagReader, parent: str, child: str) -> NDArray[np.float64] | None:
    """T_parent_child from /tf_static, over as many frames as it takes; None if they are not connected."""
    if parent == child:
        return np.eye(4)
    edges: dict[str, list[tuple[str, NDArray[np.float64]]]] = {}
    for topic, _, data in bag.raw_messages([STATIC_TF]):
        for t in bag.decode(topic, data).transforms:
            p, q = t.transform.translation, t.transform.rotation
            pose = rigid.from_translation_quaternion([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
            edges.setdefault(t.header.frame_id, []).append((t.child_frame_id, pose))
            edges.setdefault(t.child_frame_id, []).append((t.header.frame_id, rigid.inverse(pose)))
    reached: dict[str, NDArray[np.float64]] = {parent: np.eye(4)}
    waiting = [parent]
    while waiting:
        here = waiting.pop()
        for there, pose in edges.get(here, []):
            if there not in reached:
                reached[there] = reached[here] @ pose
                waiting.append(there)
    return reached.get(child)


def _choose_depth(bag: BagReader, wanted: str | None) -> Topic | None:
    images = [topic for topic in bag.topics if topic.type in (RAW, COMPRESSED) and topic.count]
    return _choose(bag, [topic for topic in images if _holds_depth(bag, topic)], wanted)


def _choose(bag: BagReader, found: list[Topic], wanted: str | None) -> Topic | None:
    """The wanted topic, or the only one, or None if there is none. InputError if it is missing or not the only one."""
    if wanted is not None:
        found = [topic for topic in found if topic.name == wanted]
        if not found:
            raise InputError(
                f"{bag.path}: topic {wanted!r} is not there or not of that kind; it has:\n{topic_table(bag.topics)}"
            )
    if len(found) > 1:
        raise InputError(f"{bag.path}: several topics fit; name one of:\n{topic_table(found)}")
    return found[0] if found else None


def _holds_depth(bag: BagReader, topic: Topic) -> bool:
    if topic.type == COMPRESSED:
        return topic.name.endswith("/compressedDepth")
    for found, _, data in bag.raw_messages([topic.name]):
        return bag.decode(found, data).encoding in DEPTH_ENCODINGS
    return False


def _decode(message: Any, type_: str) -> NDArray[np.float32]:
    if type_ == RAW:
        return decode_depth(
            message.encoding, message.height, message.width, message.step, message.data, message.is_bigendian
        )
    if not message.format.lower().startswith("16uc1"):
        raise InputError(f"compressed depth has format {message.format!r}; supported: 16UC1; compressedDepth (PNG)")
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(bytes(message.data)[COMPRESSED_DEPTH_HEADER:])) as picture:
            return millimetres_to_metres(np.asarray(picture).astype(np.uint16))
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise InputError(f"compressed depth cannot be read: {error}") from error


def _seconds(stamp: Any) -> float:
    return int(stamp.sec) + int(stamp.nanosec) * 1e-9
