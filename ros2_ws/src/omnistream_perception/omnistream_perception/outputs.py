# SPDX-License-Identifier: Apache-2.0
"""What one camera publishes, and which heads have to run for it. Topics exist where the checkpoint can fill them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from omnistream.engines.base import TAPS
from omnistream.geometry.pinhole import pixel_rays
from omnistream.stream.layers import PATCHES, layer_name, layers_of
from omnistream.stream.result import StepResult
from omnistream_msgs.msg import FeatureMap
from omnistream_ros import images
from omnistream_ros.lifecycle import ManagedNode
from omnistream_ros.qos import qos_profile

from .motion import Motion, odometry_message
from .transforms import TransformPublisher


@dataclass(frozen=True)
class Topic:
    """One output topic: its message, its QoS parameter, and the meaning, from which the documentation is made."""

    name: str
    kind: type
    qos: str
    description: str


DEPTH = Topic(
    "depth",
    Image,
    "depth",
    "32FC1, metres along the optical axis, NaN invalid; from a checkpoint of metric scale.",
)
DEPTH_RELATIVE = Topic(
    "depth_relative", Image, "depth", "The same from a checkpoint whose scale is not metric: the unit is not known."
)
CONFIDENCE = Topic("confidence", Image, "depth", "32FC1, of depth: 1 is none, larger is more.")
CAMERA_INFO = Topic("camera_info", CameraInfo, "depth", "Of depth and confidence: K and P scaled to their resolution.")
POINTS = Topic(
    "points", PointCloud2, "points", "x, y, z, rgb in the optical frame, organised at network resolution, NaN invalid."
)
ODOMETRY = Topic(
    "odometry",
    Odometry,
    "odometry",
    "Pose since the start, going on over resets, and twist; covariance from parameters.",
)
FEATURES = Topic("features", FeatureMap, "features", "One vector per 16x16 pixels of the network's input.")
TOPICS = (DEPTH, DEPTH_RELATIVE, CAMERA_INFO, CONFIDENCE, POINTS, ODOMETRY, FEATURES)


def topics_of(outputs: Iterable[str], scale: str, allow_relative: bool) -> tuple[tuple[Topic, ...], str]:
    """The topics that a checkpoint can fill, and a sentence on those that it cannot ('' when all are there)."""
    have = set(outputs)
    metric = scale == "metric"
    topics = [FEATURES]
    missing = []
    if "depth" in have:
        topics += [DEPTH if metric else DEPTH_RELATIVE, CAMERA_INFO, CONFIDENCE]
        if metric or allow_relative:
            topics.append(POINTS)
    else:
        missing.append("the checkpoint has no depth head: no depth, confidence, camera_info, points")
    if "pose" in have:
        if metric or allow_relative:
            topics.append(ODOMETRY)
    else:
        missing.append("the checkpoint has no pose head: no odometry")
    if have & {"depth", "pose"} and not metric:
        nature = "relative" if scale == "relative" else f"{scale!r} (untrained: the numbers mean nothing)"
        held = "" if allow_relative else "; points and odometry are off (allow_relative)"
        missing.append(f"scale is {nature}: depth is on depth_relative{held}")
    return tuple(topics), "; ".join(missing)


class Outputs:
    """The publishers of one camera.

    Args:
        node: whose parameters are read at every frame (those that may change at run time).
        prefix: ``~/`` or ``~/<camera>/``.
        topics: of `topics_of`.
        odom_frame: in which odometry is told.
        transforms: where odometry also goes when `publish_tf` is set; None where that is not possible.
    """

    def __init__(
        self,
        node: ManagedNode,
        prefix: str,
        topics: Iterable[Topic],
        odom_frame: str,
        transforms: TransformPublisher | None,
    ) -> None:
        self._node = node
        self._odom_frame = odom_frame
        self._transforms = transforms
        self._publishers: dict[Topic, Any] = {}
        self._rays_of: tuple[float, ...] = ()
        self._kept_rays = np.empty((0, 0, 3), np.float32)
        for topic in topics:
            qos = qos_profile(node.parameters[f"qos.{topic.qos}"])
            self._publishers[topic] = node.create_lifecycle_publisher(topic.kind, prefix + topic.name, qos)

    def enable(self) -> None:
        """For publishers made while the node is active, which it could not enable at its transition."""
        for publisher in self._publishers.values():
            publisher.on_activate(None)

    def destroy(self) -> None:
        """Removes the topics."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def wanted(self, calibrated: bool) -> frozenset[str]:
        """The heads that somebody needs right now, and taps; the pose always, where there is odometry."""
        heads = set()
        if any(map(self._heard, (DEPTH, DEPTH_RELATIVE, CONFIDENCE, POINTS))):
            heads.add("depth")
        if ODOMETRY in self._publishers:
            heads.add("pose")  # nobody listens, and after a reset it goes on from there all the same (1% of a step)
        predicting = not calibrated and self._node.parameters["allow_predicted_intrinsics"]
        if predicting and any(map(self._heard, (POINTS, CAMERA_INFO))):
            heads.add("pose")  # K is predicted by the same head
        if self._node.parameters["feature_taps"] and self._heard(FEATURES):
            heads.add(TAPS)
        return frozenset(heads)

    def publish(
        self,
        result: StepResult,
        image: NDArray[np.uint8],
        header: Header,
        info: CameraInfo | None,
        motion: Motion | None,
        backbone_hash: str,
        policy: str,
        frames_seen: int,
    ) -> None:
        """Publishes what somebody listens to.

        Args:
            image: u8 [H, W, 3], the one that was stepped.
            header: of the image; its stamp and frame go out with everything.
            info: its calibration, None when it is unknown.
            motion: of the pose head, None when that did not run.
            backbone_hash, policy, frames_seen: of the stream, for who goes on from its features.
        """
        if motion is not None:
            self._publish_motion(motion, header)
        depth, confidence = self._depth(result)
        depth_topic = DEPTH if DEPTH in self._publishers else DEPTH_RELATIVE
        full = self._node.parameters["depth_resolution"] == "full"
        size = (image.shape[0], image.shape[1]) if full else result.network_size
        predicted = result.K if self._node.parameters["allow_predicted_intrinsics"] else None
        if self._heard(CAMERA_INFO) and (scaled := _info_at(size, info, predicted, result.network_size, header)):
            self._publishers[CAMERA_INFO].publish(scaled)
        if depth is not None and self._heard(depth_topic):
            self._publishers[depth_topic].publish(images.image_message(_resize(depth, size), header))
        if confidence is not None and self._heard(CONFIDENCE):
            self._publishers[CONFIDENCE].publish(images.image_message(_resize(confidence, size), header))
        if depth is not None and self._heard(POINTS):
            at = _info_at(result.network_size, info, predicted, result.network_size, header)
            if at is not None:
                points = self._rays(at.k, depth.shape) * depth[..., None]
                self._publishers[POINTS].publish(images.points_message(points, header, _sample(image, depth.shape)))
        taps = self._node.parameters["feature_taps"]
        if self._heard(FEATURES) and (result.taps or not taps):  # who came during the step has the next one
            dtype = self._node.parameters["features_dtype"]
            features, cls = layers_of(result, taps)
            layer = layer_name(taps)
            self._publishers[FEATURES].publish(
                features_message(features, cls, header, backbone_hash, policy, frames_seen, dtype, layer)
            )

    def _heard(self, topic: Topic) -> bool:
        publisher = self._publishers.get(topic)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _publishes_tf(self) -> bool:
        return self._transforms is not None and self._node.parameters["publish_tf"]

    def _publish_motion(self, motion: Motion, header: Header) -> None:
        parameters = self._node.parameters
        if self._heard(ODOMETRY):
            self._publishers[ODOMETRY].publish(
                odometry_message(
                    motion,
                    header,
                    self._odom_frame,
                    parameters["position_sigma"],
                    parameters["rotation_sigma"],
                )
            )
        if self._transforms is not None and self._publishes_tf():
            parent = Header(stamp=header.stamp, frame_id=self._odom_frame)
            self._transforms.publish(motion.T_odom_child, parent, motion.child_frame)

    def _rays(self, k: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float32]:
        """[h, w, 3] rays whose product with the depth is the point; kept, since K hardly ever changes."""
        key = (*k.tolist(), *size)
        if self._rays_of != key:
            self._rays_of, self._kept_rays = key, pixel_rays(k.reshape(3, 3), (size[0], size[1]))
        return self._kept_rays

    def _depth(self, result: StepResult) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Depth [h, w] with NaN where confidence is too low, and confidence."""
        least = self._node.parameters["min_confidence"]
        depth, confidence = result.depth, result.depth_confidence
        if depth is not None and confidence is not None and least > 1:
            depth = np.where(confidence >= least, depth, np.float32(np.nan))
        return depth, confidence


def features_message(
    features: NDArray[np.float32],
    cls: NDArray[np.float32],
    header: Header,
    backbone_hash: str,
    policy: str,
    frames_seen: int,
    dtype: str = "float16",
    layer: str = PATCHES,
) -> FeatureMap:
    """[h, w, D] and [D] as omnistream_msgs/FeatureMap, in little-endian `dtype` (float16 or float32)."""
    height, width, dim = features.shape
    little = np.dtype(dtype).newbyteorder("<")
    return FeatureMap(
        header=header,
        grid_height=height,
        grid_width=width,
        dim=dim,
        dtype=dtype,
        layer=layer,
        layout="row_major_hwc",
        model_hash=backbone_hash,
        data=images.byte_array(features.astype(little)),
        cls=images.byte_array(cls.astype(little)),
        policy=policy,
        frames_seen=frames_seen,
    )


def _info_at(
    size: tuple[int, int],
    info: CameraInfo | None,
    predicted: NDArray[np.float64] | None,
    network_size: tuple[int, int],
    header: Header,
) -> CameraInfo | None:
    """CameraInfo of the picture at `size` (height, width): the given one, else the predicted one, scaled."""
    if info is None and predicted is not None:
        info = images.camera_info_message(predicted, network_size[1], network_size[0], header)
    if info is None:
        return None
    scaled = images.scale_camera_info(info, size[1], size[0])
    scaled.header = header
    return scaled


def _resize(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """[h, w] at `size`, bilinear; NaN spreads to what it touches."""
    if values.shape == size:
        return values
    out = F.interpolate(torch.from_numpy(values)[None, None], size=size, mode="bilinear", align_corners=False)
    return out[0, 0].numpy()


def _sample(image: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The image's pixels nearest to the centres of a coarser grid, [h, w, 3]."""
    rows, columns = (
        ((np.arange(n) + 0.5) * (full / n)).astype(np.intp) for n, full in zip(size, image.shape[:2], strict=True)
    )
    return image[rows[:, None], columns]
