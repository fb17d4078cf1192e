# SPDX-License-Identifier: Apache-2.0
"""The report: data set values with intervals, baselines beside them, paired differences, numbers per sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from omnistream.errors import InputError
from omnistream_training.evaluation.baselines import DepthHistogram
from omnistream_training.evaluation.bootstrap import interval, paired_difference
from omnistream_training.evaluation.depth_metrics import DEPTH_METRICS, sequence_weights
from omnistream_training.evaluation.findings import summary
from omnistream_training.evaluation.protocols import Protocol
from omnistream_training.evaluation.run import Outcome
from omnistream_training.evaluation.survey import ALL, Survey
from omnistream_training.evaluation.trajectory_metrics import TRAJECTORY_METRICS

FORMAT = "omnistream-geometry-evaluation"
VERSION = 1
POSE_METRICS = (*TRAJECTORY_METRICS, "fov_error")
COMPARED = ("abs_rel", "delta1", "ate", "ate_percent", "rpe_trans", "rpe_rot")

Scores = dict[str, Any]
"""{"depth": {...} or None, "pose": {...} or None} of one sequence at one length."""
Methods = dict[str, dict[str, Scores]]
"""By method, then by sequence."""


def build_report(
    outcome: Outcome,
    protocol: Protocol,
    lengths: Sequence[int],
    streamed: Sequence[str],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """For `write_report`. streamed: the methods that the others are baselines of; about: provenance, model, data.

    In strict mode a mean over fewer sequences than there are is an InputError.
    """
    rows, differences, everything = [], [], {}
    for length in lengths:
        methods = {name: {seq: by[length] for seq, by in found.items()} for name, found in outcome.scores.items()}
        methods |= baseline_scores(outcome.surveys, protocol, length)
        label = "all" if length == ALL else length
        everything[str(label)] = methods
        weights = _weights(outcome.surveys, protocol, length)
        for name, scores in methods.items():
            row = _row(name, label, scores, weights, protocol, streamed=name in streamed)
            if protocol.strict:
                _check_complete(row, len(outcome.surveys))
            rows.append(row | ({"seconds": outcome.seconds[name]} if name in outcome.seconds else {}))
        for name in streamed:
            others = [other for other in methods if other not in streamed or other == streamed[0] != name]
            for other in others:
                found = _difference(name, other, methods, weights)
                if found:
                    differences.append({"frames": label, "method": name, "minus": other, **found})
    return {
        "format": FORMAT,
        "version": VERSION,
        **about,
        "protocol": {"line": protocol.line, **dataclasses.asdict(protocol)},
        "rows": rows,
        "differences": differences,
        "sequences": everything,
        "surveys": [_survey(found) for found in outcome.surveys],
        "findings": summary(outcome.findings),
    }


def baseline_scores(surveys: Sequence[Survey], protocol: Protocol, length: int) -> Methods:
    """What needs no pixels again: the constants, the straight line and standing still.

    Without alignment a constant is the best for the whole set. With one, each sequence has its own best constant: an
    alignment would give it no less.
    """
    methods: Methods = {}
    if protocol.depth is not None:
        parts = {found.name: found.histograms[length] for found in surveys if found.histograms[length].values.size}
        scope = "per set" if protocol.depth.alignment == "metric" else "per sequence"
        for goal, best in (("AbsRel", DepthHistogram.best_for_abs_rel), ("delta", DepthHistogram.best_for_delta1)):
            found_scores: dict[str, Scores] = {}
            whole = _whole(parts, protocol) if scope == "per set" and parts else None
            for name, part in parts.items():
                constant = best(part if whole is None else whole)
                depth = part.metrics_of_constant(constant) | {"pixels": part.pixels, "constant": constant}
                found_scores[name] = {"depth": depth, "pose": None}
            if found_scores:
                methods[f"best constant for {goal}, {scope}"] = found_scores
    for name in ("straight line", "standing still"):
        paths = {found.name: found.paths[length] for found in surveys}
        known = {seq: {"depth": None, "pose": path[name]} for seq, path in paths.items() if path is not None}
        if known:
            methods[name] = known
    return methods


def _whole(parts: Mapping[str, DepthHistogram], protocol: Protocol) -> DepthHistogram:
    """All depths of the set, weighted so that their mean is the mean which the protocol states."""
    assert protocol.depth is not None
    pixels = [part.pixels for part in parts.values()]
    weights = sequence_weights(pixels, protocol.depth.weighting)
    return DepthHistogram.union(parts.values(), [w / n for w, n in zip(weights.tolist(), pixels, strict=True)])


def _weights(surveys: Sequence[Survey], protocol: Protocol, length: int) -> dict[str, float]:
    """Weight of each sequence's depth metrics."""
    pixels = [found.histograms[length].pixels for found in surveys]
    weighting = "sequences" if protocol.depth is None else protocol.depth.weighting
    return dict(zip([found.name for found in surveys], sequence_weights(pixels, weighting).tolist(), strict=True))


def _row(
    name: str,
    label: int | str,
    scores: Mapping[str, Scores],
    weights: Mapping[str, float],
    protocol: Protocol,
    streamed: bool,
) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name, "frames": label, "streamed": streamed, "protocol": protocol.line}
    for part, metrics in (("depth", DEPTH_METRICS), ("pose", POSE_METRICS)):
        known = {seq: values[part] for seq, values in scores.items() if values[part] is not None}
        if not known:
            continue
        row[part] = {"sequences": len(known)}
        for metric in metrics:
            values = {seq: found[metric] for seq, found in known.items() if found.get(metric) is not None}
            if values:
                of = [weights[seq] for seq in values] if part == "depth" else None
                row[part][metric] = dataclasses.asdict(interval(list(values.values()), of))
    return row


def _difference(name: str, other: str, methods: Methods, weights: Mapping[str, float]) -> dict[str, Any]:
    """Paired over the sequences that both have."""
    found: dict[str, Any] = {}
    for metric in COMPARED:
        part = "depth" if metric in DEPTH_METRICS else "pose"
        a, b = (_values(methods[method], part, metric) for method in (name, other))
        both = [seq for seq in a if seq in b]
        if len(both) > 1:
            of = [weights[seq] for seq in both] if part == "depth" else None
            difference = paired_difference([a[seq] for seq in both], [b[seq] for seq in both], of)
            found[metric] = dataclasses.asdict(difference) | {
                "sequences": len(both),
                "excludes_zero": difference.excludes_zero,
            }
    return found


def _values(scores: Mapping[str, Scores], part: str, metric: str) -> dict[str, float]:
    known = {seq: values[part] for seq, values in scores.items() if values[part] is not None}
    return {seq: values[metric] for seq, values in known.items() if values.get(metric) is not None}


def _check_complete(row: Mapping[str, Any], total: int) -> None:
    for part in ("depth", "pose"):
        if part in row and row[part]["sequences"] != total:
            raise InputError(
                f"strict: {part} of {row['method']!r} has {row[part]['sequences']} of {total} sequences; "
                "a strict mean is over all of them"
            )


def _survey(found: Survey) -> dict[str, Any]:
    """What the data check says of a sequence."""
    names = ("name", "frames", "size", "depth_frames", "pose_frames", "depth_range", "first_image")
    return {name: getattr(found, name) for name in names}
