# SPDX-License-Identifier: Apache-2.0
"""Percentile bootstrap over sequences, and over training seeds: how sure a mean or a difference is."""

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


def crossed_difference(a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0) -> Interval:
    """Mean of a [seeds, S] minus mean of b [other seeds, S]: paired over sequences, both and the seeds resampled.

    Every resample draws the sequences once for both sides, and each side's training seeds for themselves. With one seed
    a side, this is `paired_difference`. With three, seeds are few: the interval is a little too narrow, never empty.
    """
    x, y = np.atleast_2d(np.asarray(a, np.float64)), np.atleast_2d(np.asarray(b, np.float64))
    if x.shape[1] != y.shape[1] or x.ndim != 2 or y.ndim != 2 or x.size == 0:
        raise InputError(f"{x.shape} and {y.shape}; a paired comparison needs [seeds, S] of the same sequences")
    w = np.ones(x.shape[1]) if weights is None else np.asarray(weights, np.float64)
    value = float((x.mean(0) - y.mean(0)) @ w / w.sum())
    if x.shape[1] < 2:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(x.shape[1], np.full(x.shape[1], 1 / x.shape[1]), RESAMPLES) * w
    total = drawn.sum(axis=1, keepdims=True)
    sides = []
    for side in (x, y):
        means = drawn @ side.T / np.maximum(total, 1e-300)  # [resamples, seeds]
        picks = rng.integers(0, len(side), means.shape)
        sides.append(np.take_along_axis(means, picks, axis=1).mean(axis=1))
    low, high = np.quantile(sides[0] - sides[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def _resampled(x: NDArray[np.float64], w: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    draws = np.random.default_rng(seed).integers(0, x.size, (RESAMPLES, x.size))
    return (x[draws] * w[draws]).sum(axis=1) / w[draws].sum(axis=1)
