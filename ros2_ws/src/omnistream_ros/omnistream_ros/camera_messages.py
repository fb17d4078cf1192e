# SPDX-License-Identifier: Apache-2.0
"""One frame of a recording as the messages a camera driver would send, made ahead of the moment they are due."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from numpy.typing import NDArray
from PIL import Image as Picture
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from omnistream.geometry.rigid import to_translation_quaternion
from omnistream.io import Frame
from omnistream_ros.images import camera_info_message, compressed_message, image_message

WORLD_FRAME = "world"
"""Frame of the ground-truth poses of a recording."""
READ_AHEAD = 4
"""Frames decoded before they are due; enough for a slow file, and 4 MB at 640x480."""


@dataclass(frozen=True)
class CameraMessages:
    """What is published for one frame, the stamp still empty."""

    recorded_stamp: float
    """Seconds, as in the recording."""
    image: Image | CompressedImage
    info: CameraInfo | None
    depth: Image | None = None
    pose: PoseStamped | None = None

    def stamped(self, stamp: Time) -> CameraMessages:
        """Writes `stamp` into the headers; returns self."""
        for message in (self.image, self.info, self.depth, self.pose):
            if message is not None:
                message.header.stamp = stamp
        return self


@dataclass(frozen=True)
class MessageMaker:
    """Turns frames into messages.

    Args:
        frame_id: of the camera's optical frame; empty: the recording's.
        intrinsics: K [3, 3] instead of the recording's (without distortion), or None.
        jpeg_quality: 1..100 for CompressedImage; 0 for raw rgb8.
        ground_truth: depth and pose as well, where the recording has them.
    """

    frame_id: str = ""
    intrinsics: NDArray[np.float64] | None = None
    jpeg_quality: int = 0
    ground_truth: bool = False

    def __call__(self, frame: Frame) -> CameraMessages:
        """The messages of one frame; none is sent yet."""
        frame_id = self.frame_id or frame.frame_id
        height, width = frame.image.shape[:2]

        def header(name: str = frame_id) -> Header:  # one each: a shared header would alias in intra-process use
            return Header(frame_id=name)

        image = (
            compressed_message(encode_jpeg(frame.image, self.jpeg_quality), header())
            if self.jpeg_quality
            else image_message(frame.image, header())
        )
        K, D, model = frame.K, frame.D, frame.distortion_model
        if self.intrinsics is not None:
            K, D, model = self.intrinsics, (), "plumb_bob"
        info = None if K is None else camera_info_message(K, width, height, header(), D, model)
        depth = pose = None
        if self.ground_truth and frame.depth is not None:
            depth = image_message(frame.depth, header())
        if self.ground_truth and frame.T_world_camera is not None:
            pose = PoseStamped(header=header(WORLD_FRAME), pose=pose_message(frame.T_world_camera))
        return CameraMessages(frame.stamp, image, info, depth, pose)


class ReadAhead:
    """Iterates over `make(frame)` of a source; reading, decoding and conversion happen in a thread.

    Errors of the source are raised by the iteration, after the frames before them. Ends early once `stop` is set.
    """

    def __init__(self, frames: Iterable[Frame], make: Callable[[Frame], CameraMessages], stop: threading.Event) -> None:
        self._ready: queue.Queue[CameraMessages | BaseException | None] = queue.Queue(READ_AHEAD)
        self._stop = stop
        self._thread = threading.Thread(target=self._read, args=(frames, make), name="read ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> ReadAhead:
        return self

    def __next__(self) -> CameraMessages:
        while not self._stop.is_set():
            try:
                item = self._ready.get(timeout=0.05)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            if item is None:
                break
            return item
        raise StopIteration

    def _read(self, frames: Iterable[Frame], make: Callable[[Frame], CameraMessages]) -> None:
        try:
            for frame in frames:
                if not self._hand_over(make(frame)):
                    return
        except Exception as error:  # whatever the reader raises belongs to the thread that iterates
            self._hand_over(error)
        else:
            self._hand_over(None)

    def _hand_over(self, item: CameraMessages | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.05)
                return True
            except queue.Full:
                continue
        return False


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """u8 [H, W, 3] RGB as a JPEG file of quality 1..100."""
    buffer = io.BytesIO()
    Picture.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def pose_message(T_a_b: NDArray[np.float64]) -> Pose:
    """A rigid transform [4, 4] as geometry_msgs/Pose."""
    tx, ty, tz, qx, qy, qz, qw = (float(value) for value in to_translation_quaternion(T_a_b))
    return Pose(position=Point(x=tx, y=ty, z=tz), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
