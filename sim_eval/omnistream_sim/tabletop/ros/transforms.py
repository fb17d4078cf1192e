# SPDX-License-Identifier: Apache-2.0
"""/tf and /tf_static as tf2_ros publishes them, without tf2_ros."""

from __future__ import annotations

from collections.abc import Sequence

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node

from omnistream.errors import ConfigError
from omnistream_ros.qos import qos_profile

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # rclpy from PyPI without the interface packages that `make` builds
    TFMessage = None


class Transforms:
    """Raises ConfigError where tf2_msgs is not installed."""

    def __init__(self, node: Node) -> None:
        if TFMessage is None:
            raise ConfigError("tf2_msgs is not installed, so publish_tf is not possible; set it to false")
        self._moving = node.create_publisher(TFMessage, "/tf", qos_profile("reliable:100"))
        self._static = node.create_publisher(TFMessage, "/tf_static", qos_profile("latched"))

    def publish(self, transforms: Sequence[TransformStamped]) -> None:
        """What moves."""
        self._moving.publish(TFMessage(transforms=list(transforms)))

    def publish_static(self, transforms: Sequence[TransformStamped]) -> None:
        """All that stays, for those who come later too."""
        self._static.publish(TFMessage(transforms=list(transforms)))
