# SPDX-License-Identifier: Apache-2.0
"""Statistics of vectors that arrive in parts: one pass, bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Statistics

SAMPLE = 200_000
"""Rows that percentiles are taken from; exact up to here, beyond it a uniform sample."""

PERCENTILES = {"q01": 1, "q10": 10, "q50": 50, "q90": 90, "q99": 99}
"""Those of LeRobot's stats.json."""


class RunningStatistics:
    """Minimum, maximum, mean, deviation and percentiles of rows [N, D]."""

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self._minimum = np.full(dimensions, np.inf)
        self._maximum = np.full(dimensions, -np.inf)
        self._mean = np.zeros(dimensions)
        self._squares = np.zeros(dimensions)
        self._kept: list[NDArray[np.float64]] = []
        self._keys: list[NDArray[np.float64]] = []
        self._held = 0
        self._random = np.random.default_rng(0)

    def add(self, rows: NDArray[np.floating]) -> None:
        """Add [N, D] rows; they must be finite."""
        values = np.asarray(rows, np.float64)
        n = len(values)
        if n == 0:
            return
        self._minimum = np.minimum(self._minimum, values.min(0))
        self._maximum = np.maximum(self._maximum, values.max(0))
        mean = values.mean(0)
        apart = mean - self._mean  # Chan, Golub, LeVeque: joining two partial sums of squares
        total = self.count + n
        self._squares += ((values - mean) ** 2).sum(0) + apart**2 * self.count * n / total
        self._mean += apart * n / total
        self.count = total
        self._kept.append(values.copy())
        self._keys.append(self._random.random(n))
        self._held += n
        if self._held > 2 * SAMPLE:
            self._thin()

    def _thin(self) -> None:
        """Keep the rows with the smallest random keys: a uniform sample of all rows so far."""
        rows, keys = np.concatenate(self._kept), np.concatenate(self._keys)
        if len(rows) > SAMPLE:
            smallest = np.argpartition(keys, SAMPLE)[:SAMPLE]
            rows, keys = rows[smallest], keys[smallest]
        self._kept, self._keys, self._held = [rows], [keys], len(rows)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """LeRobot's names: min, max, mean, std, q01 .. q99, each [D]; count is [1]. Empty before the first row."""
        if self.count == 0:
            return {}
        self._thin()
        quantiles = np.percentile(self._kept[0], list(PERCENTILES.values()), axis=0)
        found = {
            "min": self._minimum,
            "max": self._maximum,
            "mean": self._mean,
            "std": np.sqrt(self._squares / self.count),
            "count": np.array([self.count]),
        }
        return found | dict(zip(PERCENTILES, quantiles, strict=True))

    def statistics(self) -> Statistics | None:
        """For the contract; None before the first row."""
        if self.count == 0:
            return None
        found = {name: tuple(float(x) for x in values) for name, values in self.arrays().items()}
        return Statistics(
            count=self.count,
            minimum=found["min"],
            maximum=found["max"],
            mean=found["mean"],
            std=found["std"],
            q01=found["q01"],
            q99=found["q99"],
        )


def image_rows(image: NDArray[np.uint8], side: int = 64) -> NDArray[np.float64]:
    """[N, 3] in 0..1: pixels of a coarse grid of at most side x side, enough for a picture's mean and deviation."""
    rows, columns = -(-image.shape[0] // side), -(-image.shape[1] // side)
    return image[::rows, ::columns].reshape(-1, 3) / 255.0
