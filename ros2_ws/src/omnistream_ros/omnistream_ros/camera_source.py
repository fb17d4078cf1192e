# SPDX-License-Identifier: Apache-2.0
"""Camera source node: publishes a recording (video, folder, rosbag2) the way a camera driver publishes a camera.

    omnistream-up camera --ros-args -p input:=clip.mp4 -p topic:=camera/image_raw -p loop:=true

Topics, next to the image's (`camera/image_raw` here):
    camera/image_raw (or camera/image_raw/compressed), camera/camera_info,
    camera/ground_truth/depth (32FC1 metres), camera/ground_truth/pose (T_world_camera) with `ground_truth`,
    /clock with `publish_clock`, /diagnostics.
Ends by itself with exit code 0 when the recording is over, unless `loop`.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from omnistream.errors import InputError, OmniStreamError
from omnistream.io import open_source
from omnistream.io.frames import DEFAULT_RATE
from omnistream_ros.camera_messages import CameraMessages, MessageMaker, ReadAhead
from omnistream_ros.camera_parameters import PARAMETERS, intrinsics_matrix
from omnistream_ros.diagnostics import Diagnostics, Level, Report
from omnistream_ros.images import seconds_to_stamp
from omnistream_ros.pacing import Timetable, wait_until
from omnistream_ros.parameters import Parameters, help_text
from omnistream_ros.qos import qos_profile
from omnistream_ros.running import run

# A writer sees a new reader a little before the reader sees the writer; what is sent in between is lost.
SETTLE_S = 0.3
LAST_MESSAGE_S = 2.0
"""How long the end of the recording waits for the last image to be acknowledged."""
LEAVE_S = 0.1
"""What is sent best effort, and the last report, need a moment to leave this process."""


class CameraSource(Node):
    """Publishes one recording, from its construction on, in a thread of its own that keeps the time.

    Attributes:
        finished: set at the end of the recording, after `stop`, or after an error.
        error: what reading or publishing raised, or None.
        exit_code: 1 after an error, else 0.
        published: images sent so far.

    Raises:
        OmniStreamError: a parameter is refused, or the recording cannot be opened.
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__("camera", **keywords)
        self.finished = threading.Event()
        self.error: Exception | None = None
        self.exit_code = 0
        self.published = 0
        self._stopping = threading.Event()
        p = self.parameters = Parameters(self, PARAMETERS)
        for sentence in p.undeclared():
            self.get_logger().warn(sentence)
        if not p["input"]:
            raise InputError("`input` is empty; give a video, a folder of images or a rosbag2: -p input:=PATH")
        if p["publish_clock"] and p["stamp"] != "recorded":
            raise InputError(f"`publish_clock` is true and `stamp` is {p['stamp']!r}; expected stamp:=recorded with it")
        self.source = open_source(p["input"], topic=p["bag_topic"] or None, loop=p["loop"], on_error="skip")
        self._timetable = Timetable(p["rate"], self.source.rate or DEFAULT_RATE)
        self._make = MessageMaker(
            frame_id=p["frame_id"],
            intrinsics=intrinsics_matrix(p["intrinsics"]),
            jpeg_quality=p["jpeg_quality"] if p["transport"] == "compressed" else 0,
            ground_truth=p["ground_truth"],
        )
        qos = qos_profile(p["qos"])
        self._acknowledged = qos.reliability is ReliabilityPolicy.RELIABLE
        compressed = p["transport"] == "compressed"
        beside = p["topic"].rpartition("/")[0]
        beside = f"{beside}/" if beside else ""
        self._image_topic = self.create_publisher(
            CompressedImage if compressed else Image, p["topic"] + ("/compressed" if compressed else ""), qos
        )
        self._info_topic = self.create_publisher(CameraInfo, f"{beside}camera_info", qos)
        self._depth_topic: Publisher | None = None
        self._pose_topic: Publisher | None = None
        if p["ground_truth"]:
            self._depth_topic = self.create_publisher(Image, f"{beside}ground_truth/depth", qos)
            self._pose_topic = self.create_publisher(PoseStamped, f"{beside}ground_truth/pose", qos)
        self._clock_topic = (
            self.create_publisher(ClockMessage, "/clock", qos_profile("sensor:1")) if p["publish_clock"] else None
        )
        self._diagnostics = Diagnostics(self, hardware_id=self.source.description)
        self._diagnostics.add("source", self.report)
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends publishing, and waits until it has ended."""
        self._stopping.set()
        self._thread.join(timeout=LAST_MESSAGE_S + 1.0)

    def report(self) -> Report:
        """The counters, for /diagnostics."""
        late, skipped = self._timetable.late, self.source.skipped
        findings = []
        if late:
            findings.append((Level.WARN, f"{late} images were later than one period: reading is too slow"))
        if skipped:
            findings.append((Level.WARN, f"{skipped} images cannot be read"))
        return Report.worst(
            findings, f"{self.published} images published", published=self.published, late=late, skipped=skipped
        )

    def _run(self) -> None:
        try:
            self._publish_all()
        except Exception as error:  # of this thread; main turns it into the exit code
            self.error, self.exit_code = error, 1
            expected = isinstance(error, OmniStreamError)
            self.get_logger().fatal(str(error) if expected else traceback.format_exc())
        finally:
            self.finished.set()

    def _publish_all(self) -> None:
        log = self.get_logger()
        log.info(f"{self.source.description}: publishing on {self._image_topic.topic_name}")
        self._wait_for_subscribers()
        self._stopping.wait(self.parameters["start_delay"])
        started = time.monotonic()
        for messages in ReadAhead(self.source, self._make, self._stopping):
            if not wait_until(self._timetable.next(messages.recorded_stamp), self._stopping):
                break
            self._publish(messages)
        elapsed = time.monotonic() - started
        for reason in self.source.skip_reasons:
            log.warning(f"left out: {reason}")
        if self.published == 0 and not self._stopping.is_set():
            raise InputError(f"{self.source.description}: none of its images can be read")
        self._diagnostics.publish()
        self._wait_for_last_messages()
        late = f", {self._timetable.late} later than one period" if self._timetable.late else ""
        how = "stopped" if self._stopping.is_set() else "end of the recording"
        log.info(f"{how}: {self.published} images in {elapsed:.1f} s{late}")

    def _publish(self, messages: CameraMessages) -> None:
        recorded = seconds_to_stamp(messages.recorded_stamp)
        if self._clock_topic is not None:
            self._clock_topic.publish(ClockMessage(clock=recorded))
        messages.stamped(recorded if self.parameters["stamp"] == "recorded" else self.get_clock().now().to_msg())
        # The image comes last: who has it finds its calibration already there.
        if messages.info is not None:
            self._info_topic.publish(messages.info)
        if self._depth_topic is not None and messages.depth is not None:
            self._depth_topic.publish(messages.depth)
        if self._pose_topic is not None and messages.pose is not None:
            self._pose_topic.publish(messages.pose)
        self._image_topic.publish(messages.image)
        self.published += 1

    def _wait_for_subscribers(self) -> None:
        wanted = self.parameters["wait_for_subscribers"]
        if wanted == 0:
            return
        self.get_logger().info(f"waiting for {wanted} subscribers of {self._image_topic.topic_name}")
        while self._image_topic.get_subscription_count() < wanted and not self._stopping.wait(0.02):
            pass
        self._stopping.wait(SETTLE_S)

    def _wait_for_last_messages(self) -> None:
        if self._acknowledged and not self._stopping.is_set():
            self._image_topic.wait_for_all_acked(Duration(seconds=LAST_MESSAGE_S))
        time.sleep(LEAVE_S)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; 0 at the end of the recording or after a signal, 1 when reading failed, 2 when it was refused."""
    return run(CameraSource, args, help_text=help_text(__doc__ or "", PARAMETERS))


if __name__ == "__main__":
    sys.exit(main())
