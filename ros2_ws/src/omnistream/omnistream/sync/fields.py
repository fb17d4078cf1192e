# SPDX-License-Identifier: Apache-2.0
"""The numbers in a message, by the names of its fields. For messages of rclpy and of rosbags alike.

sensor_msgs/JointState            joint names; positions, or velocities and efforts by `quantity`
trajectory_msgs/JointTrajectory   joint names; positions of the first point
geometry_msgs/Pose...             x y z, roll pitch yaw (fixed axes) or qx qy qz qw; nav_msgs/Odometry too
geometry_msgs/Twist...            vx vy vz wx wy wz; nav_msgs/Odometry too
std_msgs/Float64MultiArray ...    positions in the array: "0", "1", ...
std_msgs/Float64, Bool, Int32 ... "value"; control_msgs/GripperCommand: "position" or "max_effort"
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError

JOINT_QUANTITIES = ("position", "velocity", "effort")
POINT_QUANTITIES = {"position": "positions", "velocity": "velocities", "effort": "effort"}
"""What trajectory_msgs/JointTrajectoryPoint calls them."""
POSE_FIELDS = ("x", "y", "z", "roll", "pitch", "yaw", "qx", "qy", "qz", "qw")
TWIST_FIELDS = ("vx", "vy", "vz", "wx", "wy", "wz")

UNITS = (
    dict.fromkeys(("x", "y", "z"), "m")
    | dict.fromkeys(("roll", "pitch", "yaw"), "rad")
    | dict.fromkeys(("qx", "qy", "qz", "qw"), "1")
    | dict.fromkeys(("vx", "vy", "vz"), "m/s")
    | dict.fromkeys(("wx", "wy", "wz"), "rad/s")
)
"""Units of fields whose meaning is fixed (REP-103); those of joints are the mapping's to say."""


def read_fields(message: Any, fields: Sequence[str], quantity: str = "position") -> NDArray[np.float64]:
    """[len(fields)] numbers. InputError if the message has no such field, an empty array in its place, or NaN.

    Joints are found by name: drivers change their order, and merge messages of several devices.
    """
    values = np.array(_read(message, fields, quantity), np.float64)
    if not np.isfinite(values).all():
        raise InputError(
            f"{_kind(message)} has {dict(zip(fields, values.tolist(), strict=True))}; expected finite numbers"
        )
    return values


def read_text(message: Any) -> str:
    """The text of a std_msgs/String."""
    text = getattr(message, "data", None)
    if not isinstance(text, str):
        raise InputError(f"{_kind(message)} holds no text; expected std_msgs/String")
    return text


def _read(message: Any, fields: Sequence[str], quantity: str) -> list[float]:
    if hasattr(message, "joint_names"):  # JointTrajectory
        if len(message.points) == 0:
            raise InputError(f"{_kind(message)} has no points")
        return _joints(message, message.joint_names, message.points[0], fields, POINT_QUANTITIES[quantity])
    if hasattr(message, "name") and hasattr(message, "position"):  # JointState
        return _joints(message, message.name, message, fields, quantity)
    if hasattr(message, "data"):
        return _array(message, fields)
    if hasattr(message, "command"):  # a GripperCommand inside another message
        message = message.command
    numbers: dict[str, float] = {}
    for name in ("max_effort", "position"):
        if isinstance(getattr(message, name, None), float):
            numbers[name] = getattr(message, name)
    pose, twist = _inner(message, "pose", "position"), _inner(message, "twist", "linear")
    if pose is not None:
        numbers |= _pose(pose)
    if twist is not None:
        linear, angular = twist.linear, twist.angular
        parts = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
        numbers |= dict(zip(TWIST_FIELDS, parts, strict=True))
    missing = [name for name in fields if name not in numbers]
    if missing:
        known = ", ".join(numbers) or "none that is known here"
        raise InputError(f"{_kind(message)} has no field {missing[0]!r}; it has {known}")
    return [float(numbers[name]) for name in fields]


def _inner(message: Any, name: str, mark: str) -> Any:
    """The Pose or Twist in a message, however many covers it is in (stamp, covariance); None if there is none."""
    for _ in range(3):
        if hasattr(message, mark) and not isinstance(getattr(message, mark), float):
            return message
        message = getattr(message, name, None)
        if message is None:
            return None
    return None


def _pose(pose: Any) -> dict[str, float]:
    p, q = pose.position, pose.orientation
    x, y, z, w = q.x, q.y, q.z, q.w
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not norm > 1e-6:
        raise InputError(f"orientation is {[x, y, z, w]}; expected a unit quaternion")
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    if w < 0:  # q and -q are one rotation; one sign keeps the numbers continuous for small motions
        x, y, z, w = -x, -y, -z, -w
    angles = (
        math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
        math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x)))),
        math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
    )
    return dict(zip(POSE_FIELDS, (p.x, p.y, p.z, *angles, x, y, z, w), strict=True))


def _joints(message: Any, names: Sequence[str], holder: Any, fields: Sequence[str], quantity: str) -> list[float]:
    places = {name: i for i, name in enumerate(names)}
    values = getattr(holder, quantity, None)
    if values is None:
        raise InputError(f"{_kind(message)} has no {quantity!r}; expected one of {', '.join(JOINT_QUANTITIES)}")
    missing = [name for name in fields if name not in places]
    if missing:
        raise InputError(f"{_kind(message)} has no joint {missing[0]!r}; it has {', '.join(names)}")
    if len(values) != len(names):
        raise InputError(f"{_kind(message)} has {len(values)} of {quantity} for {len(names)} joints")
    return [float(values[places[name]]) for name in fields]


def _array(message: Any, fields: Sequence[str]) -> list[float]:
    data = message.data
    if isinstance(data, (bool, int, float, np.number, np.bool_)):
        if list(fields) != ["value"]:
            raise InputError(f"{_kind(message)} is one number; its field is 'value', not {list(fields)}")
        return [float(data)]
    if isinstance(data, (str, bytes)):
        raise InputError(f"{_kind(message)} holds text; expected numbers")
    numbers = []
    for name in fields:
        if not name.isdecimal() or int(name) >= len(data):
            raise InputError(f"{_kind(message)} has {len(data)} numbers; no field {name!r} (expected 0, 1, ...)")
        numbers.append(float(data[int(name)]))
    return numbers


def _kind(message: Any) -> str:
    return type(message).__name__.rpartition("__")[2]
