# SPDX-License-Identifier: Apache-2.0
"""From the track of one sequence to its numbers, for any number of its first frames."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.geometry.align import DegenerateError
from omnistream.geometry.paths import path_length
from omnistream_training.evaluation.depth_align import align_depth
from omnistream_training.evaluation.depth_metrics import DepthSums
from omnistream_training.evaluation.findings import Findings
from omnistream_training.evaluation.predict import Track
from omnistream_training.evaluation.protocols import DepthRule, PoseRule, Protocol
from omnistream_training.evaluation.trajectory_metrics import score_or_worst, score_trajectory

MIN_POSES = 3
STILL = 0.01
"""m; a camera that moves less stands still, and an error in per cent of its path means nothing."""


def score(track: Track, protocol: Protocol, frames: int, findings: Findings) -> dict[str, Any]:
    """Numbers of the first `frames` frames: {"frames", "depth": {...} or None, "pose": {...} or None}.

    What cannot be scored is None and a finding says why. Predictors see only earlier frames, hence the beginning of a
    track is the track of the beginning.
    """
    used = min(frames, len(track))
    depth = None if protocol.depth is None else score_depth(track, protocol.depth, used, findings)
    pose = None if protocol.pose is None else score_pose(track, protocol.pose, used, findings)
    if pose is not None:
        errors = [abs(error) for error in track.fov_errors[:used] if error is not None]
        pose["fov_error"] = float(np.mean(errors)) if errors else None
    return {"frames": used, "depth": depth, "pose": pose}


def score_depth(track: Track, rule: DepthRule, frames: int, findings: Findings) -> dict[str, float] | None:
    """`DEPTH_METRICS` after the rule's alignment over all valid pixels, `pixels`, and the alignment found."""
    predicted = np.concatenate([*track.predicted[:frames], np.empty(0, np.float32)])
    reference = np.concatenate([*track.reference[:frames], np.empty(0, np.float32)])
    if predicted.size == 0:
        return None
    broken = predicted.size - int(np.isfinite(predicted).sum())
    if broken:
        findings.add("prediction", f"{broken} of {predicted.size} predicted depths are not finite")
        return None
    if predicted.max() <= 0:
        findings.add("prediction", f"none of {predicted.size} predicted depths is positive")
        return None
    alignment = align_depth(rule.alignment, predicted, reference, steps_per_metre=rule.steps_per_metre)
    sums = DepthSums()
    for p, g in zip(track.predicted[:frames], track.reference[:frames], strict=True):
        aligned = alignment(p.astype(np.float64))
        sums.add(aligned if rule.clip is None else np.minimum(aligned, rule.clip), g)
    return sums.metrics() | {"pixels": sums.pixels, "scale": alignment.scale, "shift": alignment.shift}


def score_pose(track: Track, rule: PoseRule, frames: int, findings: Findings) -> dict[str, Any] | None:
    """`TRAJECTORY_METRICS`, `path` in m and `poses`, of the frames that have both poses."""
    both = [
        (estimate, reference, index < frames)
        for index, (estimate, reference) in enumerate(zip(track.poses, track.reference_poses, strict=True))
        if estimate is not None and reference is not None
    ]
    pairs = [(estimate, reference) for estimate, reference, among in both if among]
    if not pairs:
        return None
    estimate, reference = (np.stack(poses) for poses in zip(*pairs, strict=True))
    if not np.isfinite(estimate).all():
        findings.add("prediction", "predicted poses are not finite")
        return None
    whole = path_length(np.stack([reference for _, reference, _ in both]))
    length = usable_path(reference, whole, rule, frames, findings)
    if length is None:
        return None
    try:
        scores = (score_or_worst if rule.degenerate == "worst" else score_trajectory)(estimate, reference)
    except DegenerateError as error:
        findings.add("degenerate", f"first {frames} frames: {error}")
        return None
    return dataclasses.asdict(scores) | {"path": length, "poses": len(pairs)}


def usable_path(
    reference: NDArray[np.float64], whole: float, rule: PoseRule, frames: int, findings: Findings
) -> float | None:
    """Length in m of the reference path [N, 4, 4]; None, with a finding, where no error of a path can be stated.

    whole: length in m over all frames that are used, however few of them are scored here. The rule's least path is
    asked of it, so that every number of frames is scored on the same sequences.
    """
    length = path_length(reference)
    if len(reference) < MIN_POSES:
        findings.add(
            "path", f"first {frames} frames: {len(reference)} reference poses; at least {MIN_POSES} are needed"
        )
        return None
    if length < STILL or whole < rule.min_path:
        moves, least = (length, STILL) if length < STILL else (whole, rule.min_path)
        findings.add("path", f"first {frames} frames: the camera moves {moves:.3f} m; at least {least:g} m are needed")
        return None
    return length
