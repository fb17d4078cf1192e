# SPDX-License-Identifier: Apache-2.0
"""Depth against a reference: the two usual numbers, and the one factor that a relative scale leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError


@dataclass(frozen=True, eq=False)
class DepthError:
    """Where both depths are known and positive; NaN elsewhere and if they are so nowhere."""

    relative: NDArray[np.float64]
    """[H, W] |depth - reference| / reference."""
    abs_rel: float
    """Its mean."""
    delta1: float
    """Share of pixels with max(depth / reference, reference / depth) < 1.25."""

    @property
    def text(self) -> str:
        return f"AbsRel {self.abs_rel:.3f}   <1.25: {self.delta1:.0%}"


def compare_depth(depth: NDArray[Any], reference: NDArray[Any]) -> DepthError:
    """depth and reference [H, W] in the same unit (Eigen et al. 2014, section 4.2, names and formulas)."""
    if depth.shape != reference.shape:
        raise InputError(f"depth is {depth.shape}, reference {reference.shape}; expected the same size")
    known = _known(depth, reference)
    relative = np.full(depth.shape, np.nan)
    if not known.any():
        return DepthError(relative, float("nan"), float("nan"))
    d, r = depth[known].astype(np.float64), reference[known].astype(np.float64)
    relative[known] = np.abs(d - r) / r
    return DepthError(relative, float(relative[known].mean()), float((np.maximum(d / r, r / d) < 1.25).mean()))


def stream_scale(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """The one factor for a whole stream that brings depth to the reference: the median ratio; 1 if nothing is known."""
    ratios = [(reference[known] / depth[known]) for depth, reference in pairs for known in [_known(depth, reference)]]
    values = np.concatenate(ratios) if ratios else np.empty(0)
    return float(np.median(values)) if values.size else 1.0


def _known(depth: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isfinite(depth) & np.isfinite(reference) & (depth > 0) & (reference > 0)
