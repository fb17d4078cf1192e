# SPDX-License-Identifier: Apache-2.0
"""The demo's errors against true depth and poses, beside what no model at all would have scored.

Depth: the best constant (the one with the least AbsRel, and the one with the most pixels below 1.25). Path: a straight
walk at constant speed, fitted by Sim(3) as the estimate is; and standing still.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.geometry import rigid
from omnistream.geometry.align import DegenerateError, umeyama
from omnistream.geometry.paths import path_length, straight_line
from omnistream.io.depth_error import compare_depth, stream_scale
from omnistream_ros.recorder import Recorder

MIN_POSES = 3
DELTA = 1.25


def scores(recorder: Recorder, metric: bool) -> dict[str, dict[str, float]]:
    """Against reference depth and poses, where there are any. Depth without a metric scale is scaled to fit first."""
    found: dict[str, dict[str, float]] = {}
    pairs = [(f.depth, f.true_depth) for f in recorder.frames if f.depth is not None and f.true_depth is not None]
    if depth := depth_scores(pairs, metric):
        found["depth"] = depth
    poses = [(own, true) for _, own, true in recorder.poses if true is not None]
    if len(poses) >= MIN_POSES:
        own, reference = (np.array(each) for each in zip(*poses, strict=True))
        found["path"] = path_scores(own, reference)
    return found


def depth_scores(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], metric: bool) -> dict[str, float]:
    """Means over the images of (depth, reference) [H, W] each; {} if there is none with a known pixel."""
    factor = 1.0 if metric else stream_scale(pairs)
    errors = [compare_depth(depth * factor, true) for depth, true in pairs]
    known = [error for error in errors if math.isfinite(error.abs_rel)]
    if not known:
        return {}
    true = np.concatenate([true[np.isfinite(true) & (true > 0)] for _, true in pairs]).astype(np.float64)
    true.sort()
    return {
        "abs_rel": float(np.mean([error.abs_rel for error in known])),
        "delta1": float(np.mean([error.delta1 for error in known])),
        "scale": factor,
        "images": len(known),
        "constant_abs_rel": _constant_abs_rel(true),
        "constant_delta1": _constant_delta1(true),
    }


def path_scores(own: NDArray[np.float64], reference: NDArray[np.float64]) -> dict[str, float]:
    """Of poses T_world_camera [N, 4, 4] of the same frames, N >= 3; each may have a world of its own.

    ATE is the RMSE of the positions after the Sim(3) that fits best, in per cent of the reference's length; rotations
    are those since the first frame, the mean of their errors.
    """
    length = max(path_length(reference), 1e-9)
    places = reference[:, :3, 3]
    spread = _rms(places - places.mean(axis=0))
    try:
        fit = umeyama(own[:, :3, 3], places, with_scale=True)
        ate, scale = _rms(fit.points(own[:, :3, 3]) - places), fit.scale
    except DegenerateError:  # it does not move: the best that is left is one point
        ate, scale = spread, math.nan
    own_turned, true_turned = (rigid.inverse(poses[0])[:3, :3] @ poses[:, :3, :3] for poses in (own, reference))
    return {
        "length": path_length(own),
        "reference_length": length,
        "poses": len(own),
        "ate_percent": 100 * ate / length,
        "ate_m": ate,
        "scale": scale,
        "rotation_deg": _mean_angle(np.swapaxes(true_turned, 1, 2) @ own_turned),
        "line_ate_percent": 100 * _rms(straight_line(places) - places) / length,
        "still_ate_percent": 100 * spread / length,
        "still_rotation_deg": _mean_angle(true_turned),
    }


def _constant_abs_rel(true: NDArray[np.float64]) -> float:
    """AbsRel of the best constant for depths [P], ascending: their median under the weights 1 / depth."""
    weights = np.cumsum(1 / true)
    best = true[np.searchsorted(weights, weights[-1] / 2)]
    return float(np.mean(np.abs(best - true) / true))


def _constant_delta1(true: NDArray[np.float64]) -> float:
    """The largest share of depths [P], ascending, that one constant can be within 1.25 of."""
    reached = np.searchsorted(true, true * DELTA**2, side="left") - np.arange(true.size)
    return float(reached.max() / true.size)


def _mean_angle(rotations: NDArray[np.float64]) -> float:
    """Degrees, of [N, 3, 3]."""
    r = rotations
    sines = np.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], axis=1)
    return float(np.degrees(np.arctan2(np.linalg.norm(sines, axis=1), np.trace(r, axis1=1, axis2=2) - 1)).mean())


def _rms(differences: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(differences).sum(axis=1).mean()))
