# SPDX-License-Identifier: Apache-2.0
"""Listens to a camera and its perception node, and keeps what a report needs, in bounded memory.

Messages of one image are brought together by their stamp. The last `WINDOW` images wait for their results; then their
numbers go into the statistics, and an evenly spaced sample of them is kept with pictures (see `EvenSample`).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Pose, PoseStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from PIL import Image as Picture
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from omnistream.errors import InputError
from omnistream.geometry.rigid import from_translation_quaternion
from omnistream_msgs.msg import FeatureMap, StreamStatus
from omnistream_ros.even_sample import EvenSample
from omnistream_ros.images import decode, decode_depth_image, intrinsics, stamp_to_ns
from omnistream_ros.qos import qos_profile

WINDOW = 30
"""Images that wait for their results: one second at 30 Hz, 70 MB at 640x480 with reference depth."""
KEPT_FRAMES = 96
KEPT_NUMBERS = 20_000
RESULTS = ("depth", "features")
FALLBACK_WIDTH = 320
"""Width of kept pictures of images that have no depth."""


@dataclass
class FrameRecord:
    """What is known about one image. Pictures are at the resolution of the depth."""

    stamp_ns: int
    image: NDArray[np.uint8] | None = None
    """[h, w, 3] RGB."""
    depth: NDArray[np.float32] | None = None
    """[h, w], unit as in `StreamStatus.scale`; NaN: invalid."""
    features: NDArray[Any] | None = None
    """[gh, gw, dim], float16 or float32."""
    K: NDArray[np.float64] | None = None
    """[3, 3] for [h, w]."""
    T_odom_camera: NDArray[np.float64] | None = None
    true_depth: NDArray[np.float32] | None = None
    """[h, w] metres."""
    T_world_camera: NDArray[np.float64] | None = None
    """Reference pose."""
    transport_ms: float | None = None
    """From the stamp to our subscription."""
    end_to_end_ms: float | None = None
    """From the image's stamp to our subscription of its depth (or features, where there is no depth)."""


@dataclass
class _Pending:
    """Messages of one image, undecoded."""

    messages: dict[str, Any] = field(default_factory=dict)
    transport_ms: float | None = None
    end_to_end_ms: float | None = None


class Recorder(Node):
    """Subscribes to a perception node at once, and to the camera when `watch_camera` is called.

    Args:
        perception: name of the perception node, with its namespace.
        image_topic: raw images; reference depth and pose are looked for beside it.
        camera: name of the camera source node, whose counters are read from /diagnostics.
        wall_stamps: whether images are stamped with the time of sending, so that delays can be measured.

    Read the attributes after the executor has been stopped, and `finish` before.
    """

    def __init__(
        self,
        *,
        perception: str = "/perception",
        image_topic: str = "/camera/image_raw",
        camera: str = "/camera",
        wall_stamps: bool = True,
        **keywords: Any,
    ) -> None:
        super().__init__("recorder", **keywords)
        self._image_topic = image_topic
        self._camera, self._perception = camera.lstrip("/"), perception.lstrip("/")
        self._wall_stamps = wall_stamps
        self._pending: OrderedDict[int, _Pending] = OrderedDict()
        self._newest_completed = -1
        self.status: StreamStatus | None = None
        self.active = threading.Event()
        """Set once the perception node takes images."""
        self.fault = ""
        """Why the perception node cannot work, while it says so."""
        self.description = ""
        """What it said of itself when it was active."""
        self.backbone = ""
        """Hash of the backbone that perception runs; "" before its first features."""
        self.camera_counters: dict[str, str] = {}
        self.counts = dict.fromkeys(("image", "depth", "features", "odometry"), 0)
        self.last_result = time.monotonic()
        self.first_result: float | None = None
        self.frames: EvenSample[FrameRecord] = EvenSample(KEPT_FRAMES)
        self.transport_ms: EvenSample[float] = EvenSample(KEPT_NUMBERS)
        self.end_to_end_ms: EvenSample[float] = EvenSample(KEPT_NUMBERS)
        self.poses: EvenSample[tuple[int, NDArray[np.float64], NDArray[np.float64] | None]] = EvenSample(KEPT_NUMBERS)
        """Stamp in ns, T_odom_camera, reference T_world_camera."""
        self.create_subscription(StreamStatus, f"{perception}/status", self._on_status, qos_profile("latched"))
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos_profile("reliable"))
        for topic, name, kind in (
            ("depth", "depth", Image),
            ("depth_relative", "depth", Image),  # a checkpoint has one of the two
            ("features", "features", FeatureMap),
            ("odometry", "odometry", Odometry),
            ("camera_info", "camera_info", CameraInfo),
        ):
            self._listen(name, kind, f"{perception}/{topic}")

    def watch_camera(self) -> None:
        """Subscribes to the images, and to the reference depth and pose beside them."""
        beside = self._image_topic.rpartition("/")[0]
        self._listen("true_depth", Image, f"{beside}/ground_truth/depth")
        self._listen("true_pose", PoseStamped, f"{beside}/ground_truth/pose")
        self._listen("image", Image, self._image_topic)

    def set_parameter(self, node: str, name: str, value: Any) -> None:
        """Asks another node to change a parameter; it does so a moment later."""
        client = self.create_client(SetParameters, f"{node}/set_parameters")
        client.call_async(SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()]))

    def settled(self, quiet_s: float) -> bool:
        """Whether no result has come for `quiet_s` seconds."""
        return time.monotonic() - self.last_result > quiet_s

    def finish(self) -> None:
        """Takes the images that still wait into the statistics."""
        while self._pending:
            self._complete(*self._pending.popitem(last=False))

    # ---------------------------------------------------------------------------------------------- subscriptions

    def _listen(self, name: str, kind: Any, topic: str) -> None:
        def receive(message: Any) -> None:
            self._receive(name, message)

        # Reliable where the publisher is; our demo's publishers are.
        self.create_subscription(kind, topic, receive, qos_profile("reliable"))

    def _receive(self, name: str, message: Any) -> None:
        stamp = stamp_to_ns(message.header.stamp)
        delay_ms = (self.get_clock().now().nanoseconds - stamp) * 1e-6
        if name in self.counts:
            self.counts[name] += 1
        if name == "features":
            self.backbone = message.model_hash
        if name in RESULTS:
            self.last_result = time.monotonic()
            self.first_result = self.first_result or self.last_result
        if stamp <= self._newest_completed:
            return  # later than WINDOW images: too late for its statistics
        pending = self._pending.setdefault(stamp, _Pending())
        pending.messages[name] = message
        if name == "image":
            pending.transport_ms = delay_ms
        elif name == "depth" or (name in RESULTS and pending.end_to_end_ms is None):
            pending.end_to_end_ms = delay_ms
        while len(self._pending) > WINDOW:
            oldest = min(self._pending)
            self._complete(oldest, self._pending.pop(oldest))
            self._newest_completed = oldest

    def _on_status(self, status: StreamStatus) -> None:
        self.status = status
        if status.state == StreamStatus.STATE_ACTIVE:
            self.description = status.detail
        if status.state in (StreamStatus.STATE_ACTIVE, StreamStatus.STATE_STALE):  # stale: it waits for the camera
            self.active.set()

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name == f"{self._camera}: source":
                self.camera_counters = {value.key: value.value for value in status.values}
            elif status.name == f"{self._perception}: model":
                self.fault = status.message if status.level >= DiagnosticStatus.ERROR else ""

    # ---------------------------------------------------------------------------------------------- statistics

    def _complete(self, stamp: int, pending: _Pending) -> None:
        if self._wall_stamps and pending.transport_ms is not None:
            self.transport_ms.offer(_constant(pending.transport_ms))
        if self._wall_stamps and pending.end_to_end_ms is not None:
            self.end_to_end_ms.offer(_constant(pending.end_to_end_ms))
        if (odometry := pending.messages.get("odometry")) is not None:
            truth = pending.messages.get("true_pose")
            self.poses.offer(
                lambda: (stamp, pose_matrix(odometry.pose.pose), None if truth is None else pose_matrix(truth.pose))
            )
        if "depth" in pending.messages or "features" in pending.messages:
            self.frames.offer(lambda: _record(stamp, pending))


def _constant(value: float) -> Callable[[], float]:
    return lambda: value


def _record(stamp: int, pending: _Pending) -> FrameRecord:
    """Decodes the messages of one image and brings them to one resolution."""
    messages = pending.messages
    record = FrameRecord(stamp, transport_ms=pending.transport_ms, end_to_end_ms=pending.end_to_end_ms)
    if "depth" in messages:
        record.depth = decode_depth_image(messages["depth"])
    if "image" in messages:
        image = decode(messages["image"])
        height, width = image.shape[:2]
        size = (round(height * FALLBACK_WIDTH / width), FALLBACK_WIDTH) if record.depth is None else record.depth.shape
        record.image = np.asarray(Picture.fromarray(image).resize((size[1], size[0]), Picture.Resampling.BOX))
    if "features" in messages:
        record.features = feature_array(messages["features"])
    if "camera_info" in messages:
        record.K = intrinsics(messages["camera_info"])
    if "odometry" in messages:
        record.T_odom_camera = pose_matrix(messages["odometry"].pose.pose)
    if "true_depth" in messages and record.depth is not None:
        record.true_depth = _nearest(decode_depth_image(messages["true_depth"]), record.depth.shape)
    if "true_pose" in messages:
        record.T_world_camera = pose_matrix(messages["true_pose"].pose)
    return record


def feature_array(message: FeatureMap) -> NDArray[Any]:
    """[gh, gw, dim] of a FeatureMap. Raises InputError when its layout or length is not as documented there."""
    shape = (message.grid_height, message.grid_width, message.dim)
    if message.dtype not in ("float16", "float32") or message.layout != "row_major_hwc":
        found = f"{message.dtype}, {message.layout}"
        raise InputError(f"feature map is {found!r}; expected float16 or float32, row_major_hwc")
    dtype = np.dtype(message.dtype).newbyteorder("<")
    if len(message.data) != int(np.prod(shape)) * dtype.itemsize:
        raise InputError(f"feature map of {shape} {message.dtype} has {len(message.data)} bytes")
    return np.frombuffer(message.data, dtype).reshape(shape)


def pose_matrix(pose: Pose) -> NDArray[np.float64]:
    """geometry_msgs/Pose as [4, 4]."""
    p, q = pose.position, pose.orientation
    return from_translation_quaternion([p.x, p.y, p.z, q.x, q.y, q.z, q.w])


def _nearest(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """[H, W] sampled at the pixel centres of [h, w]; depth must not be interpolated over edges."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(shape, values.shape, strict=True)
    )
    return values[np.ix_(rows, columns)]
