# SPDX-License-Identifier: Apache-2.0
"""/tf and /tf_static, as far as this node needs them: a static extrinsic in, odometry out. tf2_ros is not needed."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from geometry_msgs.msg import Transform, TransformStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header

from omnistream.errors import ConfigError
from omnistream.geometry import rigid

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # rclpy from PyPI without the interface packages that `make` builds
    TFMessage = None

# Those of tf2_ros' own listener and broadcaster.
_STATIC_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_TF_DEPTH = 100


def tf_available() -> bool:
    """Whether tf2_msgs is installed."""
    return TFMessage is not None


class StaticTransforms:
    """The tree that /tf_static tells of. Moving joints (/tf) are left out: an extrinsic is fixed."""

    def __init__(self, node: Node) -> None:
        if TFMessage is None:
            raise ConfigError("tf2_msgs is not installed, so /tf_static cannot be read; give base_to_camera instead")
        self._parents: dict[str, tuple[str, NDArray[np.float64]]] = {}
        self._lock = threading.Lock()
        self._node = node
        self._subscription = node.create_subscription(TFMessage, "/tf_static", self._on_transforms, _STATIC_QOS)

    def lookup(self, target: str, source: str) -> NDArray[np.float64] | None:
        """T_target_source [4, 4]; None while the tree does not connect the two."""
        with self._lock:
            up_source, up_target = self._chain(source.lstrip("/")), self._chain(target.lstrip("/"))
        common = next((frame for frame in up_source if frame in up_target), None)
        return None if common is None else rigid.inverse(up_target[common]) @ up_source[common]

    def destroy(self) -> None:
        """Stops listening."""
        self._node.destroy_subscription(self._subscription)

    def _chain(self, frame: str) -> dict[str, NDArray[np.float64]]:
        """T_ancestor_frame for `frame` itself and each of its ancestors, nearest first."""
        pose = np.eye(4)
        chain = {frame: pose}
        while frame in self._parents:
            frame, step = self._parents[frame]
            if frame in chain:  # a loop is somebody's mistake, but must not hang us
                break
            pose = step @ pose
            chain[frame] = pose
        return chain

    def _on_transforms(self, message: Any) -> None:
        with self._lock:
            for transform in message.transforms:
                t, q = transform.transform.translation, transform.transform.rotation
                values = [t.x, t.y, t.z, q.x, q.y, q.z, q.w]
                if not np.isfinite(values).all() or np.linalg.norm(values[3:]) < 1e-6:
                    continue
                pose = rigid.from_translation_quaternion(values)
                self._parents[transform.child_frame_id.lstrip("/")] = (transform.header.frame_id.lstrip("/"), pose)


class TransformPublisher:
    """Publishes one moving transform on /tf."""

    def __init__(self, node: Node) -> None:
        if TFMessage is None:
            raise ConfigError("tf2_msgs is not installed, so publish_tf is not possible; set it to false")
        self._node = node
        self._publisher: Any = None  # made when it is first needed: most nodes of ours never publish to /tf

    def publish(self, T_parent_child: NDArray[np.float64], header: Header, child_frame: str) -> None:
        """header: stamp, and the parent as frame_id."""
        x, y, z, qx, qy, qz, qw = map(float, rigid.to_translation_quaternion(T_parent_child))
        transform = Transform()
        transform.translation.x, transform.translation.y, transform.translation.z = x, y, z
        transform.rotation.x, transform.rotation.y, transform.rotation.z, transform.rotation.w = qx, qy, qz, qw
        stamped = TransformStamped(header=header, child_frame_id=child_frame, transform=transform)
        if self._publisher is None:
            self._publisher = self._node.create_publisher(TFMessage, "/tf", _TF_DEPTH)
        self._publisher.publish(TFMessage(transforms=[stamped]))

    def destroy(self) -> None:
        """Stops publishing."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
        self._publisher = None
