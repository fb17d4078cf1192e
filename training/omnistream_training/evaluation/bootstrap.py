# SPDX-License-Identifier: Apache-2.0
"""Percentile bootstrap over sequences: how sure a mean, or the difference between two methods, is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.errors import InputError

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; low and high are NaN for fewer than 2 sequences."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def interval(values: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0) -> Interval:
    """The weighted mean of one value per sequence [S]. Sequences are drawn with replacement, with their weights."""
    x = np.asarray(values, np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    if x.ndim != 1 or x.shape != w.shape or x.size == 0:
        raise InputError(f"values {x.shape} and weights {w.shape}; expected the same [S], S > 0")
    mean = float(x @ w / w.sum())
    if x.size < 2:
        return Interval(mean, float("nan"), float("nan"))
    low, high = np.quantile(_resampled(x, w, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))


def paired_difference(a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0) -> Interval:
    """a - b, paired: the same drawn sequences for both."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape:
        raise InputError(f"{x.size} and {y.size} sequences; a paired comparison needs the same ones")
    return interval(x - y, weights, seed=seed)


def _resampled(x: NDArray[np.float64], w: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    draws = np.random.default_rng(seed).integers(0, x.size, (RESAMPLES, x.size))
    return (x[draws] * w[draws]).sum(axis=1) / w[draws].sum(axis=1)
