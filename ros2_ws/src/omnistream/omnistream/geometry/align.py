# SPDX-License-Identifier: Apache-2.0
"""The rigid or similarity transform that brings one camera path onto another (Umeyama, PAMI 13(4), 1991)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.errors import InputError, OmniStreamError


class DegenerateError(OmniStreamError):
    """Points that leave the transform open: all in one place, or all on one line."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """p -> scale * rotation @ p + translation."""

    scale: float
    rotation: NDArray[np.float64]
    """[3, 3]"""
    translation: NDArray[np.float64]
    """[3]"""

    def points(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map points [..., 3]."""
        return self.scale * np.asarray(points, np.float64) @ self.rotation.T + self.translation

    def poses(self, poses: ArrayLike) -> NDArray[np.float64]:
        """Map camera poses `T_world_camera` [..., 4, 4]: positions as points, orientations by the rotation alone."""
        out = np.array(poses, np.float64)
        out[..., :3, 3] = self.points(out[..., :3, 3])
        out[..., :3, :3] = self.rotation @ out[..., :3, :3]
        return out


def umeyama(source: ArrayLike, target: ArrayLike, *, with_scale: bool) -> Similarity:
    """The transform of `source` [N, 3] with the least mean squared distance to `target` [N, 3].

    with_scale: Sim(3); otherwise SE(3), scale 1.
    Raises DegenerateError where the rotation is not determined: fewer than 3 points, or all (nearly) on a line.
    """
    x, y = _points(source, "source"), _points(target, "target")
    if len(x) != len(y):
        raise InputError(f"{len(x)} source and {len(y)} target points; expected pairs")
    if len(x) < 3:
        raise DegenerateError(f"{len(x)} pairs of points; an alignment needs at least 3")
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    dx, dy = x - mean_x, y - mean_y
    u, d, vt = np.linalg.svd(dy.T @ dx / len(x))
    if d[1] <= np.finfo(np.float64).eps * d[0]:
        where = "on a line" if d[0] > 0 else "in one place"
        raise DegenerateError(f"the points lie {where}: their rotation is not determined")
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])  # a rotation, never a reflection
    rotation = (u * sign) @ vt
    scale = float((d * sign).sum() / np.square(dx).sum(axis=1).mean()) if with_scale else 1.0
    return Similarity(scale, rotation, mean_y - scale * rotation @ mean_x)


def _points(values: ArrayLike, name: str) -> NDArray[np.float64]:
    points = np.asarray(values, np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"{name} has shape {points.shape}; expected [N, 3]")
    if not np.isfinite(points).all():
        raise InputError(f"{name} holds numbers that are not finite")
    return points
