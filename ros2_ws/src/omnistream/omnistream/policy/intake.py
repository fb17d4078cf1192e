# SPDX-License-Identifier: Apache-2.0
"""Pictures or features of all cameras, state and position of the arm: aligned as in training, and never trusted.

The same `omnistream.sync` that makes data sets from bags pairs the messages here: the first camera gives the ticks.
Messages are those of rclpy or of rosbags: a live node and `omnistream-replay` feed the same code.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Contract
from omnistream.errors import ConfigError, InputError
from omnistream.io import pixels
from omnistream.policy.session import CameraFeatures
from omnistream.stream.layers import taps_in
from omnistream.sync.aligner import Aligner, Gap, Observation, Stream

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
    stamp: int = 0
    """ROS time, ns; 0 where the message has none, and its arrival has to do."""


class Intake:
    """See the module. Times of arrival are steady, as `time.monotonic` and `time.monotonic_ns` give them.

    Args:
        parameters: by the names of docs/reference.md: max_skew, state_names, joint_names, position_topic and, where it
            is given, command_frame.
        contract: of the policy.
        state: whether the policy reads the contract's state.
    """

    def __init__(self, parameters: Mapping[str, Any], contract: Contract, state: bool) -> None:
        action = contract.action
        self.contract, self.has_state = contract, state
        self.drops: Counter[str] = Counter()
        self.newest: Observation | None = None
        self.place: Place | None = None
        self.located = bool(parameters["position_topic"])
        """Whether somebody is asked where the arm is."""
        self._skew = round(parameters["max_skew"] * 1e9)
        self._state_names = list(parameters["state_names"]) or list(contract.state_names)
        self._joint_names = list(parameters["joint_names"]) or [contract.action_names[i] for i in action.arm]
        self._frame = parameters.get("command_frame") or action.frame
        self._lock = threading.Lock()
        self._last_data: dict[str, Any] = {}
        self._identical: dict[str, int] = {}
        self._aligner = self._new_aligner()

    def forget(self) -> None:
        """An episode begins, or the clock jumped: nothing that was seen counts."""
        with self._lock:
            self._aligner = self._new_aligner()
            self.newest, self.place, self._last_data, self._identical = None, None, {}, {}

    @property
    def identical(self) -> int:
        """Pictures in a row with the same bytes, of the camera with most of them."""
        return max(self._identical.values(), default=1)

    def age(self, ros_now: float, now: float) -> float | None:
        """Of the newest observation, s: the larger of that by its stamp and that by its arrival."""
        newest = self.newest
        if newest is None:
            return None
        return _age(ros_now - newest.stamp / 1e9, now - newest.arrival / 1e9)

    def place_age(self, ros_now: float, now: float) -> float | None:
        """Of the arm's position, s, as `age`; 0 where nobody is asked."""
        if not self.located:
            return 0.0
        place = self.place
        if place is None:
            return None
        by_arrival = now - place.arrived
        return _age(ros_now - place.stamp / 1e9, by_arrival) if place.stamp else by_arrival

    # ---------------------------------------------------------------- messages

    def add_picture(self, name: str, message: Any, arrival: int) -> list[Observation]:
        """An Image or FeatureMap of camera `name`; arrival in ns. The observations that it completes."""
        if hasattr(message, "encoding"):
            try:
                check_picture(message)
            except InputError:
                self.drops["malformed"] += 1
                return []
        last = self._last_data.get(name)
        same = last is not None and np.array_equal(_bytes(last), _bytes(message.data))
        counts = self._identical | {name: self._identical.get(name, 1) + 1 if same else 1}
        self._identical = counts  # in one step: the control loop reads it
        self._last_data[name] = message.data
        return self._add(name, stamp_of(message), message, arrival)

    def add_state(self, message: Any, arrival: int) -> list[Observation]:
        """A JointState with the contract's state."""
        if (values := _positions(message, self._state_names)) is None:
            self.drops["state"] += 1
            return []
        return self._add(STATE, stamp_of(message), values, arrival)

    def add_joints(self, message: Any, now: float) -> None:
        """A JointState that says where the arm is; now in s."""
        if (values := _positions(message, self._joint_names)) is None:
            self.drops["position"] += 1
            return
        self.place = Place(values, None, now, stamp_of(message))

    def add_pose(self, message: Any, now: float) -> None:
        """A PoseStamped that says where the tool is, in the frame of the commands; now in s."""
        if message.header.frame_id.removeprefix("/") != self._frame:
            self.drops["position_frame"] += 1  # of another frame, the numbers would be believed and be wrong
            return
        p, q = message.pose.position, message.pose.orientation
        values = np.zeros(len(self.contract.action.arm))
        values[:3] = p.x, p.y, p.z
        turn = (float(q.x), float(q.y), float(q.z), float(q.w))
        if not np.isfinite(values).all() or not 0.9 < math.hypot(*turn) < 1.1:
            self.drops["position"] += 1
            return
        self.place = Place(values, turn, now, stamp_of(message))

    def _add(self, name: str, stamp: int, value: Any, arrival: int) -> list[Observation]:
        with self._lock:
            found: list[Observation | Gap] = list(self._aligner.add(name, stamp, value, arrival))
            seen = [item for item in found if isinstance(item, Observation)]
            self.drops["incomplete"] += len(found) - len(seen)
            if seen:
                self.newest = seen[-1]
        return seen

    def _new_aligner(self) -> Aligner:
        names = [camera.name for camera in self.contract.cameras] + ([STATE] if self.has_state else [])
        period = round(1e9 / self.contract.rate)
        return Aligner([Stream(name, self._skew, 8) for name in names], names[0], period, patience=period // 2)


def _age(by_stamp: float, by_arrival: float) -> float:
    """The larger; a stamp of the future is as wrong as it is far."""
    return by_stamp if by_stamp < 0 and -by_stamp > by_arrival else max(by_stamp, by_arrival)


def camera_topics(parameters: Mapping[str, Any], contract: Contract) -> dict[str, str]:
    """Camera -> topic, not yet resolved. ConfigError where one topic would be read for several cameras."""
    template = parameters["features_topic" if parameters["source"] == "features" else "image_topic"]
    found = {camera.name: template.replace("{camera}", camera.name) for camera in contract.cameras}
    if len(set(found.values())) < len(found):
        raise ConfigError(f"{len(found)} cameras are read from {template!r}; expected {{camera}} in it")
    return found


# ------------------------------------------------------------------------------------------------ messages


def stamp_of(message: Any) -> int:
    """Of the header, ns."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def check_picture(message: Any) -> None:
    """What costs nothing to check of an Image; InputError. Float images (rare) are searched for NaN as well."""
    pixels.check_image(message.encoding, message.height, message.width, message.step, len(message.data))
    if message.encoding.startswith("32F"):
        camera_input(message, "")


def checksum(message: Any) -> int:
    """CRC-32 of the bytes of an Image or FeatureMap: which of two with one stamp was meant, is it whole."""
    return pixels.checksum(message.data, message.cls) if hasattr(message, "cls") else pixels.checksum(message.data)


def camera_input(message: Any, memory: str) -> NDArray[np.uint8] | CameraFeatures:
    """What `PolicySession.observe` takes. memory: cache policy of the stream that the policy was trained with.

    Raises InputError for what cannot be used: sizes that do not fit, NaN, another kind of memory.
    """
    if hasattr(message, "encoding"):
        return pixels.decode_image(
            message.encoding, message.height, message.width, message.step, message.data, message.is_bigendian
        )
    if message.policy != memory:
        raise InputError(
            f"features come from a stream with policy {message.policy!r}; the robot's policy was trained with "
            f"{memory!r}: set it at the perception node"
        )
    if message.dtype not in ("float16", "float32") or message.layout != "row_major_hwc":
        raise InputError(f"features are {message.dtype}, {message.layout}; expected floats in row_major_hwc")
    taps = taps_in(message.layer)
    little = np.dtype(message.dtype).newbyteorder("<")
    shape = (int(message.grid_height), int(message.grid_width), int(message.dim))
    found, expected = len(message.data), math.prod(shape) * little.itemsize
    if found != expected or len(message.cls) != shape[2] * little.itemsize:
        raise InputError(
            f"features {shape} have {found} bytes and a summary of {len(message.cls)}; expected {expected}"
        )
    features = np.frombuffer(message.data, little).reshape(shape).astype(np.float32)
    cls = np.frombuffer(message.cls, little).astype(np.float32)
    if not (np.isfinite(features).all() and np.isfinite(cls).all()):
        raise InputError("features hold NaN or infinity")
    return CameraFeatures(features=features, cls=cls, backbone=message.model_hash, taps=taps)


def _bytes(data: Any) -> NDArray[np.uint8]:
    """A view; of array('B'), bytes or numpy alike."""
    return np.frombuffer(data, np.uint8) if len(data) else np.zeros(0, np.uint8)


def _positions(message: Any, names: Sequence[str]) -> NDArray[np.float64] | None:
    """By name; None where one is missing or not finite."""
    at = {name: i for i, name in enumerate(message.name)}
    if any(name not in at or at[name] >= len(message.position) for name in names):
        return None
    values = np.array([message.position[at[name]] for name in names], np.float64)
    return values if np.isfinite(values).all() else None
