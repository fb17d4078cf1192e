# SPDX-License-Identifier: Apache-2.0
"""A pose that survives resets: each segment of a stream has its own world, odometry strings them together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnistream.geometry import rigid


class SegmentedOdometry:
    """After a reset the world is the new frame 0; odometry goes on from the last pose and counts a new segment."""

    def __init__(self) -> None:
        self.segment = 0
        self._T_odom_segment: NDArray[np.float64] = np.eye(4)
        self._last: NDArray[np.float64] = np.eye(4)

    def update(self, T_world_camera: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pose in the stream's world, as a `StepResult` has it -> `T_odom_camera` [4, 4].

        A segment's frame 0, whose pose is the identity, lies on the last pose known, whether frame 0 was told or not.
        """
        self._last = self._T_odom_segment @ T_world_camera
        return self._last

    def change_camera(self, T_before_now: NDArray[np.float64]) -> None:
        """The segment is another camera's on the same body, which stood there in the one before: the body goes on."""
        T_now_before = rigid.inverse(T_before_now)
        self._T_odom_segment = T_now_before @ self._T_odom_segment @ T_before_now
        self._last = T_now_before @ self._last @ T_before_now

    def new_segment(self) -> None:
        """The stream was reset."""
        self.segment += 1
        self._T_odom_segment = self._last
