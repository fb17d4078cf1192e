# SPDX-License-Identifier: Apache-2.0
"""Pinhole cameras. K [3, 3] in pixels; integer coordinates are pixel centres: images span -0.5 .. width - 0.5."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def scale_intrinsics(K: ArrayLike, source: tuple[int, int], target: tuple[int, int]) -> NDArray[np.float64]:
    """K of an image resized from `source` (height, width) to `target`.

    The image's outer edges map onto each other, hence cx' = (cx + 0.5) * sx - 0.5.
    """
    sy, sx = target[0] / source[0], target[1] / source[1]
    resize = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
    return resize @ np.asarray(K, np.float64)


def intrinsics_from_fov(fov: tuple[float, float], size: tuple[int, int]) -> NDArray[np.float64]:
    """K from vertical and horizontal field of view (rad) of an image of `size` (height, width), centred."""
    (height, width), (fov_h, fov_w) = size, fov
    fy, fx = height / 2 / math.tan(fov_h / 2), width / 2 / math.tan(fov_w / 2)
    return np.array([[fx, 0, (width - 1) / 2], [0, fy, (height - 1) / 2], [0, 0, 1]])


def fov_from_intrinsics(K: ArrayLike, size: tuple[int, int]) -> tuple[float, float]:
    """Vertical and horizontal field of view (rad) of an image of `size` (height, width), the principal point taken for
    its centre: the inverse of `intrinsics_from_fov`."""
    K = np.asarray(K, np.float64)
    return 2 * math.atan(size[0] / (2 * K[1, 1])), 2 * math.atan(size[1] / (2 * K[0, 0]))


def pixel_rays(K: ArrayLike, size: tuple[int, int]) -> NDArray[np.float32]:
    """[H, W, 3] rays K^-1 (u, v, 1), so that z-depth times ray is the point in the camera's optical frame."""
    height, width = size
    v, u = np.mgrid[:height, :width].astype(np.float64)
    pixels = np.stack([u, v, np.ones_like(u)], -1)
    return (pixels @ np.linalg.inv(np.asarray(K, np.float64)).T).astype(np.float32)


def unproject(depth: ArrayLike, K: ArrayLike) -> NDArray[np.float32]:
    """Depth [H, W] along z -> points [H, W, 3] in the optical frame; NaN depth gives NaN points."""
    z = np.asarray(depth, np.float32)
    return pixel_rays(K, (z.shape[0], z.shape[1])) * z[..., None]
