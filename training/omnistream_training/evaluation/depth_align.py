# SPDX-License-Identifier: Apache-2.0
"""Alignments of predicted depth to reference depth, over all valid pixels of a sequence at once.

    metric           none
    scale            one factor towards the least absolute error, 10 rounds of reweighting (CUT3R `--align scale`)
    scale_exact      the one factor with the least absolute error
    scale_shift      factor and shift towards the least absolute error, by Adam (CUT3R `--align scale&shift`)
    median           the ratio of the medians
    lstsq            factor and shift with the least squared error
    lstsq_disparity  the same on 1 / depth (DepthCrafter)

Constants and stopping rules are those of CUT3R, `eval/video_depth/tools.py`. The published `scale` and `scale_shift`
stop before they arrive: ten rounds leave `scale` some per cent short of the optimum on noisy depth, and the last bit of
a float32 mean shows in its third digit, because a pixel without a residual weighs 1e8. Both are reproduced as they are;
our own protocols use `scale_exact`, which is what `scale` is meant to be.

All but `scale` sum in float64, in chunks: a sequence of 110 VGA frames has 34 million pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from omnistream.errors import ConfigError, InputError

Alignment = Literal["metric", "scale", "scale_exact", "scale_shift", "median", "lstsq", "lstsq_disparity"]
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)
Values = NDArray[np.floating]

CHUNK = 1 << 21
WEISZFELD_ROUNDS = 10
WEISZFELD_EPS = 1e-8
MIN_SCALE = 1e-3
BISECTIONS = 60
ADAM_STEPS = 1000
ADAM_RATE = 1e-4
ADAM_TOLERANCE = 1e-6
DISPARITY_EPS = 1e-8


@dataclass(frozen=True)
class DepthAlignment:
    """depth -> scale * depth + shift; with `disparity` the same on 1 / depth, then inverted (0 where that is <= 0)."""

    scale: float = 1.0
    shift: float = 0.0
    disparity: bool = False

    def __call__(self, depth: Values) -> Values:
        if not self.disparity:
            return self.scale * depth + self.shift
        disparity = self.scale / np.maximum(depth, DISPARITY_EPS) + self.shift
        positive = disparity > 0
        return np.where(positive, 1 / np.where(positive, disparity, 1), 0)


def align_depth(
    kind: Alignment, predicted: Values, reference: Values, *, steps_per_metre: float | None = None
) -> DepthAlignment:
    """The alignment of flat `predicted` [P] to `reference` [P] (m, valid pixels only: finite and positive).

    steps_per_metre: the reference is whole multiples of 1 / steps_per_metre m, read from integers; `scale` then uses
    these in float64 as the published code does, whatever the precision of `reference`.
    """
    if predicted.shape != reference.shape or predicted.ndim != 1 or predicted.size == 0:
        raise InputError(f"predicted {predicted.shape}, reference {reference.shape}; expected the same [P], P > 0")
    rules: dict[Alignment, Callable[[Values, Values], DepthAlignment]] = {
        "metric": lambda p, g: DepthAlignment(),
        "scale": lambda p, g: _published_scale(p, g, steps_per_metre),
        "scale_exact": _least_absolute_scale,
        "scale_shift": _least_absolute_scale_shift,
        "median": lambda p, g: DepthAlignment(_lower_median(g) / _lower_median(p)),
        "lstsq": lambda p, g: DepthAlignment(*_least_squares(p, g)),
        "lstsq_disparity": _least_squares_disparity,
    }
    if kind not in rules:
        raise ConfigError(f"alignment {kind!r} is unknown; expected one of {', '.join(ALIGNMENTS)}")
    return rules[kind](predicted, reference)


def chunks(*arrays: Values) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """Pieces of flat arrays of equal size, as float64."""
    for start in range(0, arrays[0].size, CHUNK):
        yield tuple(array[start : start + CHUNK].astype(np.float64) for array in arrays)


def _published_scale(predicted: Values, reference: Values, steps_per_metre: float | None) -> DepthAlignment:
    """Weiszfeld's iteration for argmin_s sum |s p - g| from the ratio of the means, to the bit as published (on a CPU).

    There predictions are float32, and the reference float64 where it comes from integers and float32 where it does not;
    sums are torch's, over everything at once.
    """
    p = torch.from_numpy(np.ascontiguousarray(predicted, np.float32))
    g = torch.from_numpy(np.ascontiguousarray(reference, np.float32))
    if steps_per_metre is not None:
        g = (g.double() * steps_per_metre).round() / steps_per_metre
    scale = g.mean() / p.mean()
    for _ in range(WEISZFELD_ROUNDS):
        weights = 1 / ((scale * p - g).abs() + WEISZFELD_EPS)
        scale = (weights * p * g).sum() / (weights * p**2).sum()
    return DepthAlignment(max(float(scale), MIN_SCALE))


def _least_absolute_scale(predicted: Values, reference: Values) -> DepthAlignment:
    """argmin_s sum |s p - g|, by bisection on the slope of that convex function."""

    def rises(scale: float) -> bool:
        return sum(float(np.sign(scale * p - g) @ p) for p, g in chunks(predicted, reference)) > 0

    low, high = 0.0, float(reference.mean(dtype=np.float64) / np.abs(predicted).mean(dtype=np.float64))
    while not rises(high) and high < 1e12:
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) else (middle, high)
        if high - low <= 1e-12 * high:
            break
    return DepthAlignment(max((low + high) / 2, MIN_SCALE))


def _least_absolute_scale_shift(predicted: Values, reference: Values) -> DepthAlignment:
    """argmin sum |s p + t - g| as the protocol approaches it: Adam from (ratio of medians, 0) with a small step.

    In 1000 steps of 1e-4 neither number moves by much more than 0.1. That is the published protocol, so it stays.
    """
    parameters = np.array([_lower_median(reference) / _lower_median(predicted), 0.0])
    first, second = np.zeros(2), np.zeros(2)
    previous = float("inf")
    for step in range(1, ADAM_STEPS + 1):
        loss, gradient = 0.0, np.zeros(2)
        for p, g in chunks(predicted, reference):
            residual = parameters[0] * p + parameters[1] - g
            sign = np.sign(residual)
            loss += float(np.abs(residual).sum())
            gradient += (sign @ p, sign.sum())
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        root = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        parameters = parameters - ADAM_RATE * first / (1 - 0.9**step) / root
        if abs(previous - loss) < ADAM_TOLERANCE:
            break
        previous = loss
    return DepthAlignment(float(parameters[0]), float(parameters[1]))


def _least_squares(predicted: Values, reference: Values) -> tuple[float, float]:
    mean_p, mean_g = (float(values.mean(dtype=np.float64)) for values in (predicted, reference))
    variance = covariance = 0.0
    for p, g in chunks(predicted, reference):
        variance += float(np.square(p - mean_p).sum())
        covariance += float((p - mean_p) @ (g - mean_g))
    scale = covariance / variance if variance > 0 else 0.0  # a constant prediction can only be shifted
    return scale, mean_g - scale * mean_p


def _least_squares_disparity(predicted: Values, reference: Values) -> DepthAlignment:
    disparity = 1 / np.maximum(predicted.astype(np.float64), DISPARITY_EPS)
    scale, shift = _least_squares(disparity, 1 / (reference.astype(np.float64) + DISPARITY_EPS))
    return DepthAlignment(scale, shift, disparity=True)


def _lower_median(values: Values) -> float:
    """The lower of the two middle values, as torch's median has it."""
    middle = (values.size - 1) // 2
    return float(np.partition(values, middle)[middle])
