# SPDX-License-Identifier: Apache-2.0
"""One camera: from its image topic through its stream to its output topics.

The subscription callback checks what costs nothing and hands over; `process`, on the worker thread, does the rest:

    rate limit -> decode -> gate, undistort and step (`omnistream.stream.camera`) -> publish
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from omnistream.errors import InputError
from omnistream.io.pixels import IMAGE_ENCODINGS, checksum
from omnistream.io.run_log import RunLog
from omnistream.stream.camera import CameraStream, Taken
from omnistream.stream.gate import DropReason, ResetReason, StreamGate
from omnistream.stream.result import StepResult
from omnistream.stream.session import StreamSession
from omnistream_ros import images
from omnistream_ros.lifecycle import ManagedNode
from omnistream_ros.qos import qos_profile

from .calibration import Calibration
from .monitor import Monitor
from .motion import Motion, MotionTracker
from .outputs import Outputs, topics_of
from .parameters import CameraSettings
from .transforms import StaticTransforms, TransformPublisher

RATE_SLACK = 0.9
"""An image this share of a period after the last one is in time: stamps jitter."""


@dataclass(frozen=True)
class Arrival:
    """An image message and when it came, on the steady clock."""

    message: Image | CompressedImage
    time: float


class Camera:
    """See the module. Made at configure, destroyed at cleanup.

    Args:
        node: the perception node, for topics, parameters and the log.
        settings: of this camera.
        session: its stream.
        put: hands an `Arrival` to the worker, which calls `process`.
        failed: told why, when `max_failures` images in a row could not be processed.
        changed: called after a reset.
        static_transforms: where the extrinsic is looked up; None when no /tf_static is needed or available.
        transform_publisher: None where tf2_msgs is missing.
        log: where everything that decides about results is written down.
    """

    def __init__(
        self,
        node: ManagedNode,
        settings: CameraSettings,
        session: StreamSession,
        put: Callable[[str, Arrival], None],
        failed: Callable[[str], None],
        changed: Callable[[], object],
        static_transforms: StaticTransforms | None,
        transform_publisher: TransformPublisher | None,
        log: RunLog | None = None,
    ) -> None:
        self.settings = settings
        self.monitor = Monitor(node.get_logger().warning)
        self.motion = MotionTracker(settings.base_frame)
        self._node = node
        self._put = put
        self._failed = failed
        self._changed = changed
        self._static_transforms = static_transforms
        self._transform_publisher = transform_publisher
        self._T_base_camera = settings.T_base_camera
        self._looked_up_of = ""  # the frame whose extrinsic was found on /tf_static
        self.missing = ""
        """Why there is no odometry at present, a sentence; '' where nothing is missing."""
        parameters = node.parameters
        gate = StreamGate(parameters["time_base"], parameters["max_gap"])
        self.stream = CameraStream(settings.name, session, gate, log)
        rectify = parameters["rectify"] == "auto"
        self._calibration = Calibration(rectify, settings.image_topic, node.get_logger().warning)
        self._subscriptions: list[object] = []
        self._last_stamp = -np.inf
        self._last_data: object = None
        self._failures = 0
        self._make_outputs()

    @property
    def session(self) -> StreamSession:
        """The stream."""
        return self.stream.session

    # ---------------------------------------------------------------- executor thread

    @property
    def topic(self) -> str:
        """Where images are expected, with namespace and remapping applied."""
        return self._node.resolve_topic_name(self.settings.image_topic)

    def subscribe(self) -> None:
        """Images are consumed from now on."""
        self.monitor.activated()
        self._calibration.topic = self.topic
        parameters, settings = self._node.parameters, self.settings
        kind = CompressedImage if settings.compressed else Image
        image_qos, info_qos = qos_profile(parameters["qos.image"]), qos_profile(parameters["qos.camera_info"])
        create = self._node.create_subscription
        self._subscriptions = [
            create(CameraInfo, settings.camera_info_topic, self._calibration.update, info_qos),
            create(kind, settings.image_topic, self.on_image, image_qos),
        ]

    def unsubscribe(self) -> None:
        """No more images."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def destroy(self) -> None:
        """Removes all topics."""
        self.unsubscribe()
        self.outputs.destroy()

    def on_image(self, message: Image | CompressedImage) -> None:
        """The subscription's callback: cheap checks and hand-over."""
        self.monitor.arrived()
        try:
            images.check_image(message)
        except InputError as error:
            self.monitor.dropped(_why(message), f"{self.topic}: {error}")
            return
        self._put(self.settings.name, Arrival(message, time.monotonic()))

    # ---------------------------------------------------------------- worker thread

    def process(self, arrivals: list[Arrival]) -> None:
        """Uses the newest of `arrivals` (newest first) that is good; the others are superseded."""
        for older in reversed(arrivals[1:]):
            self._heard(older)
        for index, arrival in enumerate(arrivals):
            try:
                used = self._process(arrival)
            except Exception as error:
                self._count_failure(error, DropReason.STEP_FAILED)
                used = True
            if used:
                for _ in arrivals[index + 1 :]:
                    self.monitor.dropped(DropReason.SUPERSEDED)
                return

    def unused(self, reason: DropReason, arrival: Arrival) -> None:
        """An image had to go before the worker came to it."""
        if reason is DropReason.SUPERSEDED:
            self._heard(arrival)
        self.monitor.dropped(reason)

    def reset(self, reason: ResetReason, stamp_ns: int | None = None) -> None:
        """Forgets all frames; the next image is frame 0. Odometry goes on from its last pose."""
        self.stream.reset()
        self._begin_segment(reason, stamp_ns)

    def replace_session(self, session: StreamSession, reason: ResetReason) -> None:
        """Goes on with another stream (new policy or new weights); topics follow what its checkpoint has."""
        before = (self.session.outputs, self.session.scale)
        self.stream.replace(session)
        if (session.outputs, session.scale) != before:
            active = bool(self._subscriptions)
            self.outputs.destroy()
            self._make_outputs()
            if active:
                self.outputs.enable()
        self._failures = 0
        self.monitor.model_replaced()
        self._begin_segment(reason, None)

    def _process(self, arrival: Arrival) -> bool:
        """Whether this image was stepped; False when it was dropped. Raises what a step raises."""
        message = arrival.message
        stamp = images.stamp_to_seconds(message.header.stamp)
        rate = self._node.parameters["max_rate"]
        if rate and 0 < stamp - self._last_stamp < RATE_SLACK / rate:
            self._heard(arrival)
            self.monitor.dropped(DropReason.RATE_LIMIT)
            return False
        start = time.perf_counter()
        try:
            image = images.decode(message)
        except InputError as error:
            self.monitor.dropped(_why(message), f"{self.topic}: {error}")
            return False
        decoded = time.perf_counter()
        taken, info = self._take(image, message)
        if taken.dropped is not None:
            self.monitor.dropped(taken.dropped, f"{self.topic}: {taken.detail}")
            return False
        assert taken.result is not None
        stepped = time.perf_counter()
        self._last_stamp = stamp
        try:
            motion = self._motion(taken.result, message)
            stream = self.session
            identity = (stream.backbone_hash, str(stream.policy), stream.frames_seen)
            self.outputs.publish(taken.result, taken.image, message.header, info, motion, *identity)
        except Exception as error:  # unlike a step that fails, this leaves the frame in the stream's memory
            self._count_failure(error, DropReason.PUBLISH_FAILED)
            return True
        self._failures = 0
        self.monitor.processed += 1
        before = decoded - start + taken.prepare_ms / 1e3
        self._record(taken.result, before, time.perf_counter() - stepped, time.monotonic() - arrival.time)
        return True

    def _heard(self, arrival: Arrival) -> None:
        """It is not used, but it is no pause either: a model slower than `max_gap` must not reset at each image."""
        self.stream.heard(images.stamp_to_ns(arrival.message.header.stamp))

    def _take(self, image: NDArray[np.uint8], message: Image | CompressedImage) -> tuple[Taken, CameraInfo | None]:
        size = (image.shape[0], image.shape[1])
        undistort, info = self._calibration.undistortion(size, self._calibration.of(size))
        stamp = images.stamp_to_ns(message.header.stamp)

        def begin(reason: ResetReason, detail: str) -> None:
            self._node.get_logger().info(f"{self.topic}: reset ({reason}): {detail}")
            self._begin_segment(reason, stamp)

        taken: Taken | None = None
        try:
            taken = self.stream.take(
                image,
                stamp=stamp,
                crc=lambda: checksum(message.data),
                frame_id=message.header.frame_id,
                K=None if info is None else images.intrinsics(info),  # of what is stepped: P's on a rectified topic
                undistort=undistort,
                want=self.outputs.wanted(info is not None),
                on_reset=begin,
            )
        finally:
            if taken is None or taken.dropped is None:
                self._note(message)
        return taken, info

    def _motion(self, result: StepResult, message: Image | CompressedImage) -> Motion | None:
        if result.T_world_camera is None:
            return None
        frame = message.header.frame_id
        self._find_extrinsic(frame)
        stamp = images.stamp_to_seconds(message.header.stamp)
        return self.motion.update(result.T_world_camera, stamp, frame, self._T_base_camera)

    def _find_extrinsic(self, frame: str) -> None:
        """Of images of `frame`: as configured, or from /tf_static, once for each frame."""
        base = self.settings.base_frame
        if not base or self.settings.T_base_camera is not None:
            return
        if self._T_base_camera is None or self._looked_up_of != frame:
            transforms = self._static_transforms
            self._T_base_camera = None if transforms is None else transforms.lookup(base, frame)
            self._looked_up_of = frame
        missing = ""
        if self._T_base_camera is None:
            missing = (
                f"the pose of {frame!r} in {base!r} is not known (neither base_to_camera nor /tf_static tells): no "
                "odometry until it is"
            )
        if missing and missing != self.missing:
            self._node.get_logger().warning(f"{self.topic}: {missing}")
        self.missing = missing

    def _note(self, message: Image | CompressedImage) -> None:
        """Remembers the frame for status and for telling a frozen camera; comparing arrays of bytes is a memcmp."""
        self.monitor.frame_id = message.header.frame_id
        same = self._last_data is not None and self._last_data == message.data
        self.monitor.identical = self.monitor.identical + 1 if same else 1
        self._last_data = message.data

    def _count_failure(self, error: Exception, reason: DropReason) -> None:
        self._failures += 1
        last = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        self.monitor.dropped(reason, f"{self.topic}: {detail}")
        if self._failures >= self._node.parameters["max_failures"]:
            self._failed(f"{self._failures} images in a row failed on {self.topic}, the last with {detail}")

    def _record(self, result: StepResult, before: float, publish: float, total: float) -> None:
        windows = self.monitor.latencies
        windows["preprocess"].add(before * 1e3 + result.timings["preprocess"])
        windows["backbone"].add(result.timings["backbone"])
        if result.depth is not None or result.T_world_camera is not None:
            windows["heads"].add(result.timings["heads"])
        windows["publish"].add(publish * 1e3)
        windows["total"].add(total * 1e3)

    def _begin_segment(self, reason: ResetReason, stamp_ns: int | None) -> None:
        self.motion.new_segment()
        now = self._node.get_clock().now().nanoseconds
        self.monitor.was_reset(reason, now if stamp_ns is None else stamp_ns)
        self._last_stamp = -np.inf
        self._changed()

    def _make_outputs(self) -> None:
        relative = self._node.parameters["allow_relative"]
        topics, self.limits = topics_of(self.session.outputs, self.session.scale, relative)
        self.outputs = Outputs(
            self._node, self.settings.prefix, topics, self.settings.odom_frame, self._transform_publisher
        )


def _why(message: Image | CompressedImage) -> DropReason:
    """The reason why an image cannot be used."""
    if isinstance(message, Image) and message.encoding not in IMAGE_ENCODINGS:
        return DropReason.ENCODING
    if not isinstance(message, Image) or not message.encoding.startswith("32F") or len(message.data) % 4:
        return DropReason.MALFORMED
    values = np.frombuffer(message.data, ">f4" if message.is_bigendian else "<f4")
    return DropReason.MALFORMED if np.isfinite(values).all() else DropReason.NOT_FINITE
