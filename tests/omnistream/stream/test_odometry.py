# SPDX-License-Identifier: Apache-2.0
"""Odometry goes on over resets."""

from __future__ import annotations

import numpy as np

from omnistream.geometry import rigid
from omnistream.geometry.rotations import matrix_from_quaternion
from omnistream.stream.odometry import SegmentedOdometry


def pose(x: float, yaw: float = 0.0) -> np.ndarray:
    return rigid.transform(matrix_from_quaternion([0, np.sin(yaw / 2), 0, np.cos(yaw / 2)]), [x, 0, 2 * x])


def test_a_new_segment_continues_from_the_last_pose():
    odometry = SegmentedOdometry()
    walk = [pose(0.1 * i, 0.05 * i) for i in range(6)]
    whole = [odometry.update(p) for p in walk]
    np.testing.assert_allclose(whole, walk, atol=1e-12)

    odometry = SegmentedOdometry()
    for p in walk[:4]:
        odometry.update(p)
    odometry.new_segment()
    rest = [odometry.update(rigid.inverse(walk[3]) @ p) for p in walk[3:]]  # the stream's world is frame 3 now
    np.testing.assert_allclose(rest, walk[3:], atol=1e-12)
    assert odometry.segment == 1


def test_a_pose_is_told_since_frame_0_also_when_that_one_was_not_asked_for():
    np.testing.assert_allclose(SegmentedOdometry().update(pose(0.4, 0.2)), pose(0.4, 0.2), atol=1e-12)


def test_resets_without_frames_between_move_nothing():
    odometry = SegmentedOdometry()
    odometry.update(pose(0))
    last = odometry.update(pose(1))
    odometry.new_segment()
    odometry.new_segment()
    np.testing.assert_allclose(odometry.update(np.eye(4)), last)
    assert odometry.segment == 2
