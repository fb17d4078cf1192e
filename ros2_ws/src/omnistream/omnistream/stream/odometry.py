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
        self._T_first_world: NDArray[np.float64] | None = None

    def update(self, T_world_camera: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pose in the stream's world -> `T_odom_camera` [4, 4]. A segment's first pose maps onto the last one known."""
        if self._T_first_world is None:
            # By definition the world is frame 0; a network is only nearly right about that, and the seam must not jump.
            self._T_first_world = rigid.inverse(T_world_camera)
        self._last = self._T_odom_segment @ self._T_first_world @ T_world_camera
        return self._last

    def new_segment(self) -> None:
        """The stream was reset."""
        self.segment += 1
        self._T_odom_segment = self._last
        self._T_first_world = None
