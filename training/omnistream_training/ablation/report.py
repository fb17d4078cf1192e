# SPDX-License-Identifier: Apache-2.0
"""From what was measured to a table: every variant minus the full recipe, with 95 % intervals over seeds and samples.

Samples (clips, test scenes, episodes) are drawn once for both sides, seeds of each side for themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream_training.ablation.plan import FULL
from omnistream_training.evaluation.bootstrap import Interval, crossed_difference
from omnistream_training.evaluation.probe.measure import Score, difference, interval
from omnistream_training.evaluation.table import align_columns

Measured = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One line of the table."""

    name: str
    source: str
    """Where in measured.json: clips, probes or episodes."""
    key: str
    unit: str
    better: int
    """-1 where less is better."""
    paper: Mapping[str, int]
    """Which way the paper's nearest number moves without the task: -1 worse, 1 better. From its ablation table: NYUv2
    for depth, SSv2 for motion, ADE20K for things, CALVIN for a policy; it has none for pose."""


WORSE = {"no-video": -1, "no-geometry": -1, "no-captions": -1}
QUESTIONS = (
    Question("depth, one scale", "clips", "abs_rel_scaled", "AbsRel", -1, WORSE),
    Question("pose", "clips", "ate_percent", "ATE, % of path", -1, {}),
    Question("motion probe", "probes", "whether its thing moves", "% right", 1, WORSE),
    Question("object probe: colour", "probes", "which colour its thing has", "% right", 1, WORSE),
    Question("object probe: place", "probes", "where the thing of a colour is", "% of width", -1, WORSE),
    Question("largest thing", "probes", "where the largest thing is", "% of width", -1, WORSE),
    Question("policy", "episodes", "", "solved", 1, WORSE),
)


def compare(measured: Mapping[str, Sequence[Measured]]) -> list[dict[str, Any]]:
    """One row per question that all runs answer. measured: by variant, in the order of the seeds."""
    rows = []
    for question in QUESTIONS:
        sides = {variant: [_value(one, question) for one in of_seeds] for variant, of_seeds in measured.items()}
        if any(value is None for values in sides.values() for value in values):
            continue
        rows.append(
            {
                "question": question.name,
                "unit": question.unit,
                "better": "less" if question.better < 0 else "more",
                "values": {variant: _plain(_mean(values)) for variant, values in sides.items()},
                "by_seed": {variant: [_single(value) for value in values] for variant, values in sides.items()},
                "differences": {
                    variant: _judged(_difference(values, sides[FULL]), question, variant)
                    for variant, values in sides.items()
                    if variant != FULL
                },
            }
        )
    return rows


def _value(one: Measured, question: Question) -> Score | NDArray[np.float64] | None:
    """What a run has to say: sums per scene, or a value per clip or episode."""
    if question.source == "probes":
        found = one["probes"].get(question.key)
        return None if found is None else Score(np.array(found["sums"], np.float64), 0.0, np.empty((0, 0)))
    if question.source == "episodes":
        return np.array(one["episodes"], np.float64) if one["episodes"] else None
    values = np.array([row.get(question.key, np.nan) for row in one["clips"]], np.float64)
    return values if np.isfinite(values).any() else None


def _mean(values: Sequence[Any]) -> Interval:
    if isinstance(values[0], Score):
        return interval(values)
    table = _table([values])[0]
    return crossed_difference(table, np.zeros((1, table.shape[1])))


def _difference(a: Sequence[Any], b: Sequence[Any]) -> Interval:
    if isinstance(a[0], Score):
        return difference(a, b)
    one, other = _table([a, b])
    return crossed_difference(one, other)


def _table(sides: Sequence[Sequence[NDArray[np.float64]]]) -> list[NDArray[np.float64]]:
    """[seeds, S] of each side, of the samples that all have."""
    length = min(len(values) for side in sides for values in side)
    tables = [np.stack([values[:length] for values in side]) for side in sides]
    common = np.all([np.isfinite(table).all(0) for table in tables], axis=0)
    return [table[:, common] for table in tables]


def _single(value: Any) -> float:
    return float(value.value()[0]) if isinstance(value, Score) else float(np.nanmean(value))


def _plain(found: Interval) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}


def _judged(found: Interval, question: Question, variant: str) -> dict[str, Any]:
    """The difference in its own unit, and in words: better or worse without the task, and what the paper says."""
    sign = int(np.sign(found.value)) * question.better if found.excludes_zero else 0
    paper = question.paper.get(variant)
    return _plain(found) | {
        "without": {1: "better", -1: "worse", 0: "not clear"}[sign],
        "paper": {None: None, 1: "better", -1: "worse"}[paper],
        "agrees": None if paper is None or sign == 0 else sign == paper,
    }


def report_text(rows: Sequence[Mapping[str, Any]], seeds: int) -> list[str]:
    """The table, and one line per difference that the paper has too."""
    if not rows:
        return ["nothing to compare yet"]
    variants = [FULL, *(variant for variant in rows[0]["values"] if variant != FULL)]
    cells = [["", "unit", *variants]]
    for row in rows:
        shown = [_shown(row["values"][FULL])]
        for variant in variants[1:]:
            gap = row["differences"][variant]
            mark = {"worse": " worse", "better": " better", "not clear": ""}[gap["without"]]
            shown.append(f"{_shown(row['values'][variant])}{mark}")
        cells.append([row["question"], f"{row['unit']}, {row['better']} is better", *shown])
    lines = align_columns(cells)
    lines += ["", f"95 % intervals over {seeds} seed(s) and samples. worse, better: than the full recipe; the interval"]
    lines += ["of the paired difference excludes 0.", ""]
    for row in rows:
        for variant, gap in row["differences"].items():
            if gap["paper"] is not None:
                verdict = "no clear difference" if gap["agrees"] is None else "agrees" if gap["agrees"] else "disagrees"
                width = f"{gap['value']:+.3g} [{gap['low']:+.3g}, {gap['high']:+.3g}]"
                lines.append(f"{row['question']}, {variant}: {width} {row['unit']}; paper: {gap['paper']}; {verdict}")
    return lines


def _shown(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3g} [{found['low']:.3g}, {found['high']:.3g}]"
