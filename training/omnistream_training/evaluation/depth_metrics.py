# SPDX-License-Identifier: Apache-2.0
"""Depth errors as the benchmarks define them (Eigen et al. 2014; CUT3R `eval/video_depth/tools.py`).

abs_rel mean |p - g| / g;  sq_rel mean (p - g)^2 / g;  rmse in m;  log_rmse of natural logarithms;
delta1, delta2, delta3: share of pixels with max(p / g, g / p) < 1.25, 1.25^2, 1.25^3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError, InputError
from omnistream_training.evaluation.depth_align import Values, chunks

Weighting = Literal["pixels", "sequences"]

DEPTH_METRICS = ("abs_rel", "sq_rel", "rmse", "log_rmse", "delta1", "delta2", "delta3")
MIN_PREDICTION = 1e-5
"""m; predictions are raised to it before logarithms and ratios, as the protocol does (not before abs_rel and rmse)."""


class DepthSums:
    """Sums over pixels from which the metrics of any union of pixel sets follow."""

    def __init__(self) -> None:
        self._sums = np.zeros(len(DEPTH_METRICS))
        self.pixels = 0.0

    def add(self, predicted: Values, reference: Values, counts: Values | None = None) -> None:
        """Flat depths [P] in m, reference finite and positive; counts [P]: how many pixels each entry stands for."""
        if predicted.shape != reference.shape or predicted.ndim != 1:
            raise InputError(f"predicted {predicted.shape}, reference {reference.shape}; expected the same [P]")
        weights = np.ones(reference.size, np.float32) if counts is None else counts
        for p, g, n in chunks(predicted, reference, weights):
            if not (np.isfinite(p).all() and np.isfinite(g).all() and (g > 0).all()):
                raise InputError("depth to compare is not finite, or reference depth not positive")
            squared = np.square(p - g)
            raised = np.maximum(p, MIN_PREDICTION)
            ratio = np.maximum(raised / g, g / raised)
            values = (np.abs(p - g) / g, squared / g, squared, np.square(np.log(raised / g)))
            self._sums += [v @ n for v in values] + [(ratio < 1.25**k) @ n for k in (1, 2, 3)]
            self.pixels += float(n.sum())

    def metrics(self) -> dict[str, float]:
        """`DEPTH_METRICS` by name; NaN without pixels."""
        means = self._sums / self.pixels if self.pixels else np.full(len(DEPTH_METRICS), math.nan)
        values = dict(zip(DEPTH_METRICS, means.tolist(), strict=True))
        return values | {name: math.sqrt(values[name]) for name in ("rmse", "log_rmse")}


def depth_metrics(predicted: Values, reference: Values) -> dict[str, float]:
    """`DEPTH_METRICS` of flat depths [P] (m, valid pixels only)."""
    sums = DepthSums()
    sums.add(predicted, reference)
    return sums.metrics()


def valid_pixels(reference: Values, min_depth: float = 0.0, max_depth: float | None = None) -> NDArray[np.bool_]:
    """Where min_depth < reference < max_depth (m); never where it is not finite."""
    with np.errstate(invalid="ignore"):
        valid = (reference > min_depth) & np.isfinite(reference)
        return valid if max_depth is None else valid & (reference < max_depth)


def sequence_weights(pixels: Sequence[float], weighting: Weighting) -> NDArray[np.float64]:
    """Weights [S], sum 1, of sequences with so many valid pixels: `pixels` (published) or `sequences` (plain mean)."""
    if weighting not in ("pixels", "sequences"):
        raise ConfigError(f"weighting is {weighting!r}; expected 'pixels' or 'sequences'")
    counts = np.asarray(pixels, np.float64)
    weights = counts if weighting == "pixels" else np.ones_like(counts)
    return weights / weights.sum() if weights.sum() > 0 else weights


def pool(metrics: Sequence[Mapping[str, float]], weights: NDArray[np.float64]) -> dict[str, float]:
    """Weighted mean over sequences, metric by metric (of rmse too: the published tables average per-sequence RMSEs)."""
    return {name: float(np.dot(weights, [values[name] for values in metrics])) for name in metrics[0]}
