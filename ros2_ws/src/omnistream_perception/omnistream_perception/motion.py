# SPDX-License-Identifier: Apache-2.0
"""From the camera's pose in its stream's world to nav_msgs/Odometry: of the base, continuous over resets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from std_msgs.msg import Header

from omnistream.geometry import rigid
from omnistream.geometry.rotations import quaternion_from_matrix
from omnistream.stream.odometry import SegmentedOdometry

OPTICAL_TO_BODY = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""Optical axes (right, down, forward) as body axes (forward, left, up): REP-103."""

UNKNOWN_VARIANCE = 1e6
"""Of a twist that cannot be told, (m/s)^2 and (rad/s)^2: large, since zero would mean certain."""


@dataclass(frozen=True)
class Motion:
    """Where the child frame is now, and how it moves."""

    T_odom_child: NDArray[np.float64]
    child_frame: str
    twist: NDArray[np.float64] | None
    """[6] linear, angular in the child frame; None for the first pose of a segment."""
    period: float
    """Seconds between the two poses that the twist comes from."""


class MotionTracker:
    """The odometry of one camera.

    Args:
        base_frame: whose motion is told; '' for the camera's optical frame.

    The odom frame is x forward, z up, and lies where the child was at the first image: where the base was, or where the
    camera was, looking forward. It stays there when another camera goes on: `T_base_camera` may change with a segment.
    """

    def __init__(self, base_frame: str) -> None:
        self.base_frame = base_frame
        self.odometry = SegmentedOdometry()
        self._previous: tuple[float, str, NDArray[np.float64]] | None = None
        self._T_base_camera: NDArray[np.float64] | None = None

    @property
    def segment(self) -> int:
        """Resets so far."""
        return self.odometry.segment

    def new_segment(self) -> None:
        """The stream was reset; the pose goes on from the last one."""
        self.odometry.new_segment()
        self._previous = None

    def update(
        self,
        T_world_camera: NDArray[np.float64],
        stamp: float,
        camera_frame: str,
        T_base_camera: NDArray[np.float64] | None,
    ) -> Motion | None:
        """One pose. None while the base's motion is asked for and `T_base_camera` is not known: the camera's own would
        be that of another body, and its transform a second parent.
        """
        if self.base_frame and T_base_camera is not None:
            if self._T_base_camera is not None and not np.array_equal(T_base_camera, self._T_base_camera):
                self.odometry.change_camera(rigid.inverse(self._T_base_camera) @ T_base_camera)
            self._T_base_camera = T_base_camera
        T_odom_camera = self.odometry.update(T_world_camera)
        if self.base_frame and T_base_camera is None:
            return None
        if self.base_frame and T_base_camera is not None:
            child, pose = self.base_frame, T_base_camera @ T_odom_camera @ rigid.inverse(T_base_camera)
        else:
            child, pose = camera_frame, OPTICAL_TO_BODY @ T_odom_camera
        twist, period = None, 0.0
        if self._previous is not None and self._previous[1] == child and stamp > self._previous[0]:
            period = stamp - self._previous[0]
            twist = _twist(rigid.inverse(self._previous[2]) @ pose, period)
        self._previous = (stamp, child, pose)
        return Motion(pose, child, twist, period)


def odometry_message(
    motion: Motion, stamp_header: Header, odom_frame: str, position_sigma: float, rotation_sigma: float
) -> Odometry:
    """nav_msgs/Odometry of `motion`; both sigmas > 0, in metres and radians."""
    message = Odometry(child_frame_id=motion.child_frame)
    message.header = Header(stamp=stamp_header.stamp, frame_id=odom_frame)
    x, y, z, qx, qy, qz, qw = map(float, rigid.to_translation_quaternion(motion.T_odom_child))
    position, orientation = message.pose.pose.position, message.pose.pose.orientation
    position.x, position.y, position.z = x, y, z
    orientation.x, orientation.y, orientation.z, orientation.w = qx, qy, qz, qw
    variances = np.repeat([position_sigma**2, rotation_sigma**2], 3)
    message.pose.covariance = np.diag(variances).ravel()
    if motion.twist is None:
        message.twist.covariance = np.diag(np.full(6, UNKNOWN_VARIANCE)).ravel()
        return message
    linear, angular = message.twist.twist.linear, message.twist.twist.angular
    linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = map(float, motion.twist)
    # A difference of two poses over a period: twice the variance, divided by the square of the period.
    message.twist.covariance = np.diag(2 * variances / motion.period**2).ravel()
    return message


def _twist(T_before_now: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """Mean velocity [6] over the period that a motion took, in the frame that moved (its axes at the end)."""
    rotation = T_before_now[:3, :3]
    *vector, w = quaternion_from_matrix(rotation)
    sine = float(np.linalg.norm(vector))
    angle = 2 * math.atan2(sine, w)
    axis_angle = np.array(vector) * (angle / sine if sine > 1e-12 else 2.0)
    return np.concatenate((rotation.T @ T_before_now[:3, 3], axis_angle)) / period
