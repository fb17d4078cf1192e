# SPDX-License-Identifier: Apache-2.0
"""Pictures or features of all cameras, state and position of the arm: aligned as in training, and never trusted.

The same `omnistream.sync` that makes data sets from bags pairs the messages here: the first camera gives the ticks.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from omnistream.contract import Contract
from omnistream.errors import ConfigError, InputError
from omnistream.policy.session import CameraFeatures
from omnistream.sync.aligner import Aligner, Observation, Stream
from omnistream_msgs.msg import FeatureMap
from omnistream_ros import images
from omnistream_ros.parameters import Parameters
from omnistream_ros.qos import qos_profile

from .parameters import JOINTS

STATE = "state"
"""Name of the state's stream beside those of the cameras."""


@dataclass(frozen=True)
class Place:
    """Where the arm was, and when somebody said so."""

    values: NDArray[np.float64]
    """[N] SI; 0 for dimensions that nobody measures (rotations of a tool)."""
    orientation: tuple[float, ...] | None
    """Of the tool, quaternion x y z w."""
    arrived: float
    """Steady time, s."""


class Inputs:
    """The subscriptions of an active node.

    Args:
        observed: called with each aligned observation (messages, undecoded), in the thread of the callback.
    """

    def __init__(
        self,
        node: Node,
        parameters: Parameters,
        contract: Contract,
        state: bool,
        observed: Callable[[Observation], None],
    ) -> None:
        """state: whether the policy reads the contract's state."""
        self._node, self._parameters, self._contract = node, parameters, contract
        self._observed = observed
        self._state = state
        self._lock = threading.Lock()
        self._subscriptions: list[Any] = []
        self._group = MutuallyExclusiveCallbackGroup()
        self.drops: Counter[str] = Counter()
        self.identical = 1
        self.newest: Observation | None = None
        self.place: Place | None = None
        self._last_data: object = None
        self._aligner = self._new_aligner()

    @property
    def located(self) -> bool:
        """Whether somebody is asked where the arm is."""
        return bool(self._parameters["position_topic"])

    def topics(self) -> dict[str, str]:
        """Camera (or state, position) -> topic, resolved."""
        features = self._parameters["source"] == "features"
        template = self._parameters["features_topic" if features else "image_topic"]
        found = {c.name: template.replace("{camera}", c.name) for c in self._contract.cameras}
        if len(set(found.values())) < len(found):
            raise ConfigError(f"{len(found)} cameras are read from {template!r}; expected {{camera}} in it")
        if self._state:
            found[STATE] = self._parameters["state_topic"]
        return {name: self._node.resolve_topic_name(topic) for name, topic in found.items()}

    def subscribe(self) -> None:
        """Messages are taken from now on."""
        self.forget()
        qos = qos_profile(self._parameters["qos.input"])
        kind = FeatureMap if self._parameters["source"] == "features" else Image
        for name, topic in self.topics().items():
            if name == STATE:
                self._listen(JointState, topic, self._on_state, qos)
            else:
                self._listen(kind, topic, partial(self._on_picture, name), qos)
        if self.located:
            joints = self._contract.action.frame == JOINTS
            self._listen(
                JointState if joints else PoseStamped,
                self._parameters["position_topic"],
                self._on_joints if joints else self._on_pose,
                qos,
            )

    def unsubscribe(self) -> None:
        """No more messages."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def forget(self) -> None:
        """An episode begins, or the clock jumped: nothing that was seen counts."""
        with self._lock:
            self._aligner = self._new_aligner()
            self.newest, self.place, self._last_data, self.identical = None, None, None, 1

    def age(self, ros_now: float, now: float) -> float | None:
        """Of the newest observation, s: the larger of that by its stamp and that by its arrival."""
        newest = self.newest
        if newest is None:
            return None
        by_stamp, by_arrival = ros_now - newest.stamp / 1e9, now - newest.arrival / 1e9
        return by_stamp if by_stamp < 0 and -by_stamp > by_arrival else max(by_stamp, by_arrival)

    def place_age(self, now: float) -> float | None:
        """Of the arm's position, s; 0 where nobody is asked."""
        if not self.located:
            return 0.0
        return None if self.place is None else now - self.place.arrived

    def _listen(self, kind: Any, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        self._subscriptions.append(
            self._node.create_subscription(kind, topic, callback, qos, callback_group=self._group)
        )

    def _new_aligner(self) -> Aligner:
        skew = round(self._parameters["max_skew"] * 1e9)
        names = [camera.name for camera in self._contract.cameras] + ([STATE] if self._state else [])
        period = round(1e9 / self._contract.rate)
        return Aligner([Stream(name, skew, 8) for name in names], names[0], period, patience=period // 2)

    # ---------------------------------------------------------------- callbacks

    def _on_picture(self, name: str, message: Image | FeatureMap) -> None:
        if isinstance(message, Image):
            try:
                images.check_image(message)
            except InputError:
                self.drops["malformed"] += 1
                return
        if name == self._contract.cameras[0].name:
            same = self._last_data is not None and self._last_data == message.data
            self.identical = self.identical + 1 if same else 1
            self._last_data = message.data
        self._add(name, images.stamp_to_ns(message.header.stamp), message)

    def _on_state(self, message: JointState) -> None:
        names = list(self._parameters["state_names"]) or list(self._contract.state_names)
        values = _positions(message, names)
        if values is None:
            self.drops["state"] += 1
            return
        self._add(STATE, images.stamp_to_ns(message.header.stamp), values)

    def _on_joints(self, message: JointState) -> None:
        action = self._contract.action
        names = list(self._parameters["joint_names"]) or [self._contract.action_names[i] for i in action.arm]
        if (values := _positions(message, names)) is None:
            self.drops["position"] += 1
            return
        self.place = Place(values, None, time.monotonic())

    def _on_pose(self, message: PoseStamped) -> None:
        p, q = message.pose.position, message.pose.orientation
        values = np.zeros(len(self._contract.action.arm))
        values[:3] = p.x, p.y, p.z
        turn = (q.x, q.y, q.z, q.w)
        if not np.isfinite(values).all() or not 0.9 < math.hypot(*turn) < 1.1:
            self.drops["position"] += 1
            return
        self.place = Place(values, turn, time.monotonic())

    def _add(self, name: str, stamp: int, value: Any) -> None:
        arrival = time.monotonic_ns()
        with self._lock:
            found = list(self._aligner.add(name, stamp, value, arrival))
            for item in found:
                if isinstance(item, Observation):
                    self.newest = item
                else:
                    self.drops["incomplete"] += 1
        for item in found:
            if isinstance(item, Observation):
                self._observed(item)


def camera_input(message: Image | FeatureMap, memory: str) -> NDArray[np.uint8] | CameraFeatures:
    """What `PolicySession.observe` takes. memory: cache policy of the stream that the policy was trained with.

    Raises InputError for what cannot be used: sizes that do not fit, NaN, another kind of memory.
    """
    if isinstance(message, Image):
        return images.decode(message)
    if message.policy != memory:
        raise InputError(
            f"features come from a stream with policy {message.policy!r}; the robot's policy was trained with "
            f"{memory!r}: set it at the perception node"
        )
    if message.dtype not in ("float16", "float32") or (message.layer, message.layout) != ("patches", "row_major_hwc"):
        raise InputError(f"features are {message.dtype}, {message.layer}, {message.layout}; expected patches as floats")
    little = np.dtype(message.dtype).newbyteorder("<")
    shape = (message.grid_height, message.grid_width, message.dim)
    found, expected = len(message.data), math.prod(shape) * little.itemsize
    if found != expected or len(message.cls) != message.dim * little.itemsize:
        raise InputError(
            f"features {shape} have {found} bytes and a summary of {len(message.cls)}; expected {expected}"
        )
    features = np.frombuffer(message.data, little).reshape(shape).astype(np.float32)
    cls = np.frombuffer(message.cls, little).astype(np.float32)
    if not (np.isfinite(features).all() and np.isfinite(cls).all()):
        raise InputError("features hold NaN or infinity")
    return CameraFeatures(features=features, cls=cls, backbone=message.model_hash)


def _positions(message: JointState, names: list[str]) -> NDArray[np.float64] | None:
    """By name; None where one is missing or not finite."""
    at = {name: i for i, name in enumerate(message.name)}
    if any(name not in at or at[name] >= len(message.position) for name in names):
        return None
    values = np.array([message.position[at[name]] for name in names], np.float64)
    return values if np.isfinite(values).all() else None
