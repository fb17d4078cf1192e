# SPDX-License-Identifier: Apache-2.0
"""What a number has to beat: the best constant depth, the mean depth map, a straight line, standing still.

Without them an error says little: in our own first trial a network that had learnt no motion at all scored an ATE of
6 % of the path; so does a straight line.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.geometry.paths import path_length, straight_line
from omnistream_training.evaluation.depth_metrics import DepthSums
from omnistream_training.evaluation.trajectory_metrics import Poses, rpe_rmse

MAX_VALUES = 1 << 20


class DepthHistogram:
    """How often each depth occurs. Exact for 16-bit depth files.

    More than a million different values (floating-point depth) are rounded to 16 bits of mantissa: 8e-6, relative.
    """

    def __init__(self, values: ArrayLike = (), counts: ArrayLike = ()) -> None:
        self.values: NDArray[np.float32] = np.asarray(values, np.float32)
        """[V] m, ascending."""
        self.counts: NDArray[np.float64] = np.asarray(counts, np.float64)
        """[V] pixels, or any weights."""

    @property
    def pixels(self) -> float:
        return float(self.counts.sum())

    def add(self, depth: NDArray[np.float32]) -> None:
        """Count flat depths [P] (m, valid pixels only)."""
        values, counts = np.unique(depth.astype(np.float32), return_counts=True)
        self._merge([self, DepthHistogram(values, counts)])

    @classmethod
    def union(cls, parts: Iterable[DepthHistogram], weights: Iterable[float]) -> DepthHistogram:
        """All together, each part's counts times its weight."""
        scaled = [cls(part.values, part.counts * weight) for part, weight in zip(parts, weights, strict=True)]
        whole = cls()
        whole._merge(scaled)
        return whole

    def _merge(self, parts: list[DepthHistogram]) -> None:
        values = np.concatenate([part.values for part in parts])
        counts = np.concatenate([part.counts for part in parts])
        distinct, inverse = np.unique(values, return_inverse=True)
        if distinct.size > MAX_VALUES:
            rounded = (values.view(np.uint32) + np.uint32(64)) & np.uint32(0xFFFFFF80)
            distinct, inverse = np.unique(rounded.view(np.float32), return_inverse=True)
        self.values = distinct
        self.counts = np.bincount(inverse, counts, distinct.size).astype(np.float64)

    def best_for_abs_rel(self) -> float:
        """The constant c with the least mean |c - g| / g: the median of g under the weights 1 / g."""
        weights = np.cumsum(self.counts / self.values.astype(np.float64))
        return float(self.values[np.searchsorted(weights, weights[-1] / 2)])

    def best_for_delta1(self) -> float:
        """The constant c with the most pixels strictly within c / 1.25 .. c * 1.25."""
        values = self.values.astype(np.float64)
        total = np.concatenate([[0.0], np.cumsum(self.counts)])
        # Let v be the nearest depth that the best c reaches: then it reaches all of v .. 1.25^2 v, that end left out.
        end = np.searchsorted(values, values * 1.25**2, side="left")
        best = int(np.argmax(total[end] - total[:-1]))
        nearest, farthest = values[best], values[end[best] - 1]
        return float(np.sqrt(nearest * farthest))

    def metrics_of_constant(self, constant: float) -> dict[str, float]:
        """`DEPTH_METRICS` of that depth (m) everywhere."""
        sums = DepthSums()
        sums.add(np.full(self.values.size, constant), self.values, self.counts)
        return sums.metrics()


class DepthMap:
    """Mean depth at each place of the picture, on a coarse grid that any picture is laid over."""

    GRID = (24, 32)

    def __init__(self, sums: NDArray[np.float64] | None = None, counts: NDArray[np.float64] | None = None) -> None:
        self.sums = np.zeros(self.GRID) if sums is None else sums
        self.counts = np.zeros(self.GRID) if counts is None else counts

    def add(self, depth: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add a frame [H, W] (m)."""
        height, width = depth.shape
        rows = np.arange(height) * self.GRID[0] // height
        columns = np.arange(width) * self.GRID[1] // width
        cells = (rows[:, None] * self.GRID[1] + columns)[valid]
        size = self.GRID[0] * self.GRID[1]
        self.sums += np.bincount(cells, depth[valid], size).reshape(self.GRID)
        self.counts += np.bincount(cells, minlength=size).reshape(self.GRID)

    def minus(self, other: DepthMap) -> DepthMap:
        """Without the frames of `other`: the map of all other sequences."""
        return DepthMap(self.sums - other.sums, self.counts - other.counts)

    def mean(self) -> NDArray[np.float32]:
        """[24, 32] m; cells that never had a value take the mean of all."""
        known = self.counts > 0.5
        if not known.any():
            return np.ones(self.GRID, np.float32)
        everywhere = self.sums[known].sum() / self.counts[known].sum()
        return np.where(known, self.sums / np.maximum(self.counts, 1), everywhere).astype(np.float32)


def straight_line_ate(reference: ArrayLike) -> float:
    """m: ATE of `straight_line` for poses [N, 4, 4]."""
    positions = np.asarray(reference, np.float64)[:, :3, 3]
    return float(np.sqrt(np.square(positions - straight_line(positions)).sum(axis=1).mean()))


def simple_paths(reference: Poses) -> dict[str, dict[str, float]]:
    """`straight line` (its ATE) and `standing still` (its ATE and RPE) for reference poses [N, 4, 4]."""
    length = path_length(reference)
    still = np.broadcast_to(np.eye(4), reference.shape)
    rpe_trans, rpe_rot = rpe_rmse(np.array(still), reference)
    spread = float(np.sqrt(np.square(reference[:, :3, 3] - reference[:, :3, 3].mean(axis=0)).sum(axis=1).mean()))
    line = straight_line_ate(reference)
    return {
        "straight line": {"ate": line, "ate_percent": 100 * line / length},
        "standing still": {
            "ate": spread,
            "ate_percent": 100 * spread / length,
            "rpe_trans": rpe_trans,
            "rpe_rot": rpe_rot,
        },
    }
