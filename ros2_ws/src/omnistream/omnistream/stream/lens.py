# SPDX-License-Identifier: Apache-2.0
"""What known intrinsics make of a network's depth and rays.

Focal length and depth explain a picture together: it looks almost the same from twice as far through a lens twice as
long. A network that took the lens for longer than it is takes everything for that much farther, and every ray for
that much steeper. It says what it took the lens for (its field of view), so that the true lens can put both right, as
in Metric3D (arXiv 2307.10984), with the network's own guess in the place of a canonical camera.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def lens_factor(guessed: ArrayLike, known: ArrayLike) -> float:
    """By how much depth is too large: guessed over known focal length, geometric mean of both axes.

    guessed, known: vertical and horizontal field of view, rad. As `omnistream.heads.camera.lens_error`, for one frame.
    """
    return math.sqrt(math.prod(_spread(known) / _spread(guessed)))


def through_lens(
    rays: NDArray[np.float32], R_own_camera: NDArray[np.float64], guessed: ArrayLike, known: ArrayLike
) -> NDArray[np.float32]:
    """[h, w, 6] rays (origin, direction with z = 1 in the camera) in any frame -> the same, spread by the known lens.

    R_own_camera: [3, 3], turns the camera's directions into the frame of the rays.
    """
    vertical, horizontal = _spread(known) / _spread(guessed)
    turn = R_own_camera @ np.diag([horizontal, vertical, 1.0]) @ R_own_camera.T
    return np.concatenate([rays[..., :3], rays[..., 3:] @ turn.T.astype(np.float32)], -1)


def _spread(fov: ArrayLike) -> NDArray[np.float64]:
    """[2] half the picture over the focal length."""
    return np.tan(np.asarray(fov, np.float64) / 2)
