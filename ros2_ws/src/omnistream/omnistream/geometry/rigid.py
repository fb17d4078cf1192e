# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms as [..., 4, 4] float64 matrices: `T_a_b @ p_b = p_a`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.geometry.rotations import matrix_from_quaternion, quaternion_from_matrix


def transform(rotation: ArrayLike, translation: ArrayLike) -> NDArray[np.float64]:
    """Rotation [..., 3, 3] and translation [..., 3] -> [..., 4, 4]."""
    r, t = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
    out = np.zeros((*np.broadcast_shapes(r.shape[:-2], t.shape[:-1]), 4, 4))
    out[..., :3, :3], out[..., :3, 3], out[..., 3, 3] = r, t, 1
    return out


def inverse(pose: ArrayLike) -> NDArray[np.float64]:
    """`T_b_a` of `T_a_b`, exact for rigid transforms."""
    p = np.asarray(pose, np.float64)
    r = np.swapaxes(p[..., :3, :3], -1, -2)
    return transform(r, -(r @ p[..., :3, 3:])[..., 0])


def apply(pose: ArrayLike, points: ArrayLike) -> NDArray[np.float64]:
    """Map points [..., 3] of b into a by one `T_a_b` [4, 4]."""
    p = np.asarray(pose, np.float64)
    return np.asarray(points, np.float64) @ p[:3, :3].T + p[:3, 3]


def from_translation_quaternion(values: ArrayLike) -> NDArray[np.float64]:
    """[..., 7] tx ty tz qx qy qz qw (the TUM order) -> [..., 4, 4]."""
    v = np.asarray(values, np.float64)
    return transform(matrix_from_quaternion(v[..., 3:]), v[..., :3])


def to_translation_quaternion(pose: ArrayLike) -> NDArray[np.float64]:
    """[..., 4, 4] -> [..., 7] tx ty tz qx qy qz qw."""
    p = np.asarray(pose, np.float64)
    return np.concatenate([p[..., :3, 3], quaternion_from_matrix(p[..., :3, :3])], -1)
