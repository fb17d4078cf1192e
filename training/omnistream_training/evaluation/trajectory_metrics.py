# SPDX-License-Identifier: Apache-2.0
"""Errors of camera paths: absolute (ATE) and relative (RPE), as the tool evo defines them (a test compares)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream.geometry.align import DegenerateError, umeyama
from omnistream.geometry.paths import path_length

Poses = NDArray[np.float64]


@dataclass(frozen=True)
class TrajectoryScores:
    """One sequence."""

    ate: float
    """m: RMSE of positions after the Sim(3) that fits best."""
    ate_percent: float
    """`ate` in per cent of the reference path's length."""
    rpe_trans: float
    """m: RMSE of the relative translation from frame to frame, after the same Sim(3)."""
    rpe_rot: float
    """Degrees: RMSE of the relative rotation from frame to frame."""
    ate_rigid: float
    """m: RMSE of positions after the SE(3) that fits best: scale errors count. For metric checkpoints."""
    scale: float
    """Of that Sim(3): reference over estimate."""


TRAJECTORY_METRICS = ("ate", "ate_percent", "rpe_trans", "rpe_rot", "ate_rigid", "scale")


def score_trajectory(estimate: ArrayLike, reference: ArrayLike) -> TrajectoryScores:
    """Poses `T_world_camera` [N, 4, 4] of the same frames. Raises DegenerateError as `umeyama` does."""
    est, ref = _poses(estimate, "estimate"), _poses(reference, "reference")
    if len(est) != len(ref):
        raise InputError(f"{len(est)} estimated and {len(ref)} reference poses; expected one each per frame")
    sim3 = umeyama(est[:, :3, 3], ref[:, :3, 3], with_scale=True)
    aligned = sim3.poses(est)
    ate = ape_rmse(aligned, ref)
    rigid_fit = umeyama(est[:, :3, 3], ref[:, :3, 3], with_scale=False)
    rpe_trans, rpe_rot = rpe_rmse(aligned, ref)
    return TrajectoryScores(
        ate=ate,
        ate_percent=100 * ate / path_length(ref),
        rpe_trans=rpe_trans,
        rpe_rot=rpe_rot,
        ate_rigid=ape_rmse(rigid_fit.poses(est), ref),
        scale=sim3.scale,
    )


def score_or_worst(estimate: ArrayLike, reference: ArrayLike) -> TrajectoryScores:
    """Like `score_trajectory`, but a degenerate estimate gets what is left when Sim(3) shrinks it to a point.

    Its ATE is then the spread of the reference about its centre: the best that any estimate can do which does not move.
    The published protocols drop such sequences instead.
    """
    try:
        return score_trajectory(estimate, reference)
    except DegenerateError:
        est, ref = _poses(estimate, "estimate"), _poses(reference, "reference")
        still = np.array(est)
        still[:, :3, 3] = ref[:, :3, 3].mean(axis=0)
        ate = ape_rmse(still, ref)
        rpe_trans, rpe_rot = rpe_rmse(still, ref)
        return TrajectoryScores(ate, 100 * ate / path_length(ref), rpe_trans, rpe_rot, ate, 0.0)


def ape_rmse(estimate: Poses, reference: Poses) -> float:
    """m: RMSE of the distance between positions of [N, 4, 4] poses that are already aligned."""
    return _rms(np.linalg.norm(estimate[:, :3, 3] - reference[:, :3, 3], axis=1))


def rpe_rmse(estimate: Poses, reference: Poses, delta: int = 1) -> tuple[float, float]:
    """(m, degrees): RMSE of the relative pose over every pair of frames that are `delta` apart."""
    if len(reference) <= delta:
        raise InputError(f"{len(reference)} poses; relative errors over {delta} frames need at least {delta + 1}")
    moved_est = rigid.inverse(estimate[:-delta]) @ estimate[delta:]
    moved_ref = rigid.inverse(reference[:-delta]) @ reference[delta:]
    error = rigid.inverse(moved_ref) @ moved_est
    return _rms(np.linalg.norm(error[:, :3, 3], axis=1)), _rms(np.degrees(rotation_angle(error[:, :3, :3])))


def rotation_angle(rotations: ArrayLike) -> NDArray[np.float64]:
    """Angle in radians of rotations [..., 3, 3], exact near 0 and near pi."""
    r = np.asarray(rotations, np.float64)
    axis = np.stack([r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], axis=-1)
    return np.arctan2(np.linalg.norm(axis, axis=-1), np.trace(r, axis1=-2, axis2=-1) - 1)


def associate(stamps: ArrayLike, others: ArrayLike, max_difference: float) -> NDArray[np.intp]:
    """Pairs [M, 2] of indices with |difference| < max_difference (s), each used once, closest pairs first.

    The rule of the TUM benchmark's `associate.py`. Pairs come in the order of `stamps`.
    """
    a, b = np.asarray(stamps, np.float64), np.asarray(others, np.float64)
    order = np.argsort(b, kind="stable")
    low = np.searchsorted(b[order], a - max_difference, side="left")
    high = np.searchsorted(b[order], a + max_difference, side="right")
    near = [(abs(a[i] - b[j]), a[i], b[j], i, j) for i in range(len(a)) for j in order[low[i] : high[i]]]
    used_a, used_b, pairs = set(), set(), []
    for difference, _, _, i, j in sorted(near):
        if difference < max_difference and i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
            pairs.append((i, j))
    pairs.sort(key=lambda pair: a[pair[0]])
    return np.array(pairs, np.intp).reshape(-1, 2)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _poses(values: ArrayLike, name: str) -> Poses:
    poses = np.asarray(values, np.float64)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not np.isfinite(poses).all():
        raise InputError(f"{name} poses have shape {poses.shape}; expected finite [N, 4, 4]")
    return poses
