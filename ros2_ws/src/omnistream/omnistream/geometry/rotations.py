# SPDX-License-Identifier: Apache-2.0
"""Unit quaternions (x, y, z, w: the order of ROS messages) and rotation matrices, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def matrix_from_quaternion(quaternion: ArrayLike) -> NDArray[np.float64]:
    """[..., 4] x y z w (any positive length) -> [..., 3, 3]. Raises ValueError for a zero or non-finite quaternion."""
    q = np.asarray(quaternion, np.float64)
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    if not np.all(np.isfinite(norm)) or np.any(norm < 1e-12):
        raise ValueError(f"quaternion {q.tolist()} has no direction; expected a finite, non-zero x y z w")
    x, y, z, w = np.moveaxis(q / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def quaternion_from_matrix(matrix: ArrayLike) -> NDArray[np.float64]:
    """[..., 3, 3] rotations -> [..., 4] x y z w with w >= 0.

    The largest of the four squared components is found first, so no division is by a small number (Shepperd 1978).
    """
    m = np.asarray(matrix, np.float64)
    trace = np.trace(m, axis1=-2, axis2=-1)
    diagonal = np.diagonal(m, axis1=-2, axis2=-1)
    # Column c of this symmetric 4x4 matrix is 4 * q * q_c.
    products = np.empty((*m.shape[:-2], 4, 4))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        products[..., i, i] = 1 + 2 * diagonal[..., i] - trace
        products[..., i, j] = products[..., j, i] = m[..., i, j] + m[..., j, i]
        products[..., i, 3] = products[..., 3, i] = m[..., k, j] - m[..., j, k]
    products[..., 3, 3] = 1 + trace
    best = np.argmax(np.diagonal(products, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(products, best[..., None, None], axis=-1)[..., 0]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., 3:] < 0, -q, q)
