# SPDX-License-Identifier: Apache-2.0
"""Alignments of predicted depth to reference depth, over all valid pixels of a sequence at once.

    metric           none
    scale            one factor with the least absolute error, by 10 rounds of reweighting (CUT3R `--align scale`)
    scale_shift      factor and shift with the least absolute error, by Adam               (CUT3R `--align scale&shift`)
    median           the ratio of the medians
    lstsq            factor and shift with the least squared error
    lstsq_disparity  the same on 1 / depth                                                 (DepthCrafter)

Constants and stopping rules are those of CUT3R, `eval/video_depth/tools.py`. Sums run in float64, in chunks: a sequence
of 110 VGA frames has 34 million pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError, InputError

Alignment = Literal["metric", "scale", "scale_shift", "median", "lstsq", "lstsq_disparity"]
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)
Values = NDArray[np.floating]

CHUNK = 1 << 21
WEISZFELD_ROUNDS = 10
WEISZFELD_EPS = 1e-8
MIN_SCALE = 1e-3
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


def align_depth(kind: Alignment, predicted: Values, reference: Values) -> DepthAlignment:
    """The alignment of flat `predicted` [P] to `reference` [P] (m, valid pixels only: finite and positive)."""
    if predicted.shape != reference.shape or predicted.ndim != 1 or predicted.size == 0:
        raise InputError(f"predicted {predicted.shape}, reference {reference.shape}; expected the same [P], P > 0")
    rules: dict[Alignment, Callable[[Values, Values], DepthAlignment]] = {
        "metric": lambda p, g: DepthAlignment(),
        "scale": _least_absolute_scale,
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


def _least_absolute_scale(predicted: Values, reference: Values) -> DepthAlignment:
    """Weiszfeld's iteration for argmin_s sum |s p - g|, from the ratio of the means."""
    scale = float(reference.mean(dtype=np.float64) / predicted.mean(dtype=np.float64))
    for _ in range(WEISZFELD_ROUNDS):
        upper = lower = 0.0
        for p, g in chunks(predicted, reference):
            weighted = p / (np.abs(scale * p - g) + WEISZFELD_EPS)
            upper += float(weighted @ g)
            lower += float(weighted @ p)
        scale = upper / lower
    return DepthAlignment(max(scale, MIN_SCALE))


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
