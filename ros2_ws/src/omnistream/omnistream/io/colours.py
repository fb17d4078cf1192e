# SPDX-License-Identifier: Apache-2.0
"""Numbers to colours for people: depth on a logarithmic near-far scale, relative error, and features by PCA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

NO_VALUE = (38, 41, 47)
"""Colour of pixels without a value: between the background and the darkest depth."""


def _table(*stops: str) -> U8:
    """256 colours [256, 3] through `stops` (#rrggbb) at equal distances."""
    points = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops], np.float64)
    at, places = np.linspace(0, 1, 256), np.linspace(0, 1, len(stops))
    return np.stack([np.interp(at, places, points[:, i]) for i in range(3)], axis=1).round().astype(np.uint8)


# All the hues, so that steps in depth show, but dark to bright over the far two thirds, so that it also reads in grey.
DEPTH = _table("#1a1033", "#323a94", "#2280bf", "#2bb5a0", "#9bd15c", "#fbd04a", "#fb8a3a", "#c92a3a")
ERROR = _table("#122630", "#1f5a6e", "#5d9e9b", "#ead9a0", "#ef9440", "#c0302b")


def look_up(table: U8, values: NDArray[Any]) -> U8:
    """values [...] within 0..1 (clipped) -> colours [..., 3]; NaN gives `NO_VALUE`."""
    known = np.isfinite(values)
    index = (np.where(known, np.clip(values, 0, 1), 0) * 255 + 0.5).astype(np.uint8)
    return np.where(known[..., None], table[index], np.array(NO_VALUE, np.uint8))


def depth_range(depths: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """(near, far): the 2nd and 98th percentile of all positive finite values; (1, 2) if there are none."""
    known = [depth[np.isfinite(depth) & (depth > 0)] for depth in depths]
    values = np.concatenate(known) if known else np.empty(0)
    if values.size == 0:
        return 1.0, 2.0
    near, far = (float(value) for value in np.percentile(values, (2, 98)))
    return (near, far) if far > near * 1.01 else (near / 1.1, near * 1.1)  # a flat wall still needs a scale


def colour_depth(depth: NDArray[Any], near: float, far: float) -> U8:
    """Depth [H, W] -> [H, W, 3]: near red, far dark blue, even steps of ratio (a tenth of a metre matters near by)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log(far / depth) / np.log(far / near)
    return look_up(DEPTH, np.where(np.asarray(depth) > 0, values, np.nan))


def colour_error(error: NDArray[Any], worst: float = 0.5) -> U8:
    """Relative error [H, W] -> [H, W, 3]: 0 dark, `worst` and more red."""
    return look_up(ERROR, error / worst)


@dataclass(frozen=True, eq=False)
class FeatureColours:
    """Three directions of feature space as red, green, blue; fitted once, so that a colour means the same all over."""

    mean: NDArray[np.float64]
    """[D]"""
    directions: NDArray[np.float64]
    """[3, D] the directions of largest variance, the strongest first."""
    spread: NDArray[np.float64]
    """[3] standard deviation along each."""

    @staticmethod
    def fit(samples: Sequence[NDArray[Any]]) -> FeatureColours:
        """samples: feature maps [..., D] from all over the stream."""
        x = np.concatenate([np.asarray(sample, np.float64).reshape(-1, sample.shape[-1]) for sample in samples])
        mean = x.mean(axis=0)
        x = x - mean
        _, vectors = np.linalg.eigh(x.T @ x / max(1, len(x) - 1))
        directions = vectors[:, ::-1][:, :3].T
        # An eigenvector's sign is arbitrary: its largest entry is made positive, lest colours flip between runs.
        largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
        directions = directions * np.where(largest < 0, -1, 1)
        return FeatureColours(mean, directions, (x @ directions.T).std(axis=0))

    def __call__(self, features: NDArray[Any]) -> U8:
        """[h, w, D] -> [h, w, 3]; a logistic curve keeps outliers from eating the range and colours from glaring."""
        values = (np.asarray(features, np.float64) - self.mean) @ self.directions.T / np.maximum(self.spread, 1e-12)
        values = 1 / (1 + np.exp(-1.3 * np.clip(values, -20, 20)))
        return (30 + 210 * values + 0.5).astype(np.uint8)
