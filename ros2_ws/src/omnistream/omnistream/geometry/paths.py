# SPDX-License-Identifier: Apache-2.0
"""Camera paths: how long one is, and what a straight walk would have made of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def path_length(poses: ArrayLike) -> float:
    """m: sum of the steps between positions of poses [N, 4, 4]."""
    return float(np.linalg.norm(np.diff(np.asarray(poses, np.float64)[:, :3, 3], axis=0), axis=1).sum())


def straight_line(positions: ArrayLike) -> NDArray[np.float64]:
    """Positions [N, 3] of a straight walk at constant speed, fitted to the given ones by Sim(3).

    That fit is the linear regression on the frame number: Sim(3) gives a line any direction and speed.
    """
    points = np.asarray(positions, np.float64)
    steps = np.arange(len(points)) - (len(points) - 1) / 2
    centre = points.mean(axis=0)
    return centre + steps[:, None] * (steps @ (points - centre)) / max(float(steps @ steps), 1e-300)
