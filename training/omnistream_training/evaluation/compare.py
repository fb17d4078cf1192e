# SPDX-License-Identifier: Apache-2.0
"""Two ways of doing it, each with any number of training seeds, on the same sequences: is one better?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnistream.errors import InputError
from omnistream_training.evaluation.bootstrap import crossed_difference
from omnistream_training.evaluation.depth_metrics import DEPTH_METRICS
from omnistream_training.evaluation.results import COMPARED, FORMAT


def load_report(path: Path) -> dict[str, Any]:
    """A results.json of ours; InputError if it is none."""
    path = path / "results.json" if path.is_dir() else path
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise InputError(f"{path}: not a report of `omnistream-eval geometry`")
    return report


def compare(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], method_a: str, method_b: str
) -> list[dict[str, Any]]:
    """Per number of frames and metric: a - b, paired over sequences; each side's reports are its training seeds.

    The interval is over sequences and seeds (`crossed_difference`). Depth counts by pixels or by sequences as the
    protocol of the reports says. Sequences that any report lacks are left out. Raises InputError where the reports do
    not share the protocol, a length, or a sequence, or where sequences of one name show different pictures.
    """
    lines = {report["protocol"]["line"] for report in [*a, *b]}
    if len(lines) > 1:
        raise InputError(f"the reports follow {len(lines)} protocols; expected one: {' | '.join(sorted(lines))}")
    _check_pictures([*a, *b])
    by_pixels = (a[0]["protocol"]["depth"] or {}).get("weighting") == "pixels"
    found = []
    for frames in [label for label in a[0]["sequences"] if all(label in report["sequences"] for report in [*a, *b])]:
        sides = [[_scores(report, frames, name) for report in side] for side, name in ((a, method_a), (b, method_b))]
        for metric in COMPARED:
            part = "depth" if metric in DEPTH_METRICS else "pose"
            tables = [[_known(scores, part, metric) for scores in side] for side in sides]
            common = [seq for seq in tables[0][0] if all(seq in table for side in tables for table in side)]
            if not common:
                continue
            values = [np.array([[table[seq] for seq in common] for table in side]) for side in tables]
            weights = [sides[0][0][seq][part]["pixels"] if part == "depth" and by_pixels else 1.0 for seq in common]
            by_seed = [np.average(side, axis=1, weights=weights) for side in values]
            difference = crossed_difference(values[0], values[1], weights)
            found.append(
                {
                    "frames": frames,
                    "metric": metric,
                    "a": float(by_seed[0].mean()),
                    "b": float(by_seed[1].mean()),
                    "a_by_seed": by_seed[0].tolist(),
                    "b_by_seed": by_seed[1].tolist(),
                    "sequences": len(common),
                    "seeds": [len(side) for side in sides],
                    "excludes_zero": difference.excludes_zero,
                    "difference": dataclasses.asdict(difference),
                }
            )
    if not found:
        raise InputError("the reports have no number of frames and no sequence in common")
    return found


def differing(found: Sequence[Mapping[str, Any]], per_cent: float) -> list[str]:
    """What of `compare` differs by more than that of B's value, in either direction: a line each."""
    lines = []
    for row in found:
        a, b = row["a"], row["b"]
        if abs(a - b) > per_cent / 100 * abs(b):
            share = f"{100 * (a - b) / b:+.2f} %" if b else "B is 0"
            lines.append(f"{row['metric']} over {row['frames']} frames: {a:.5g} against {b:.5g} ({share})")
    return lines


def comparison_text(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Cells for `table.align_columns`."""
    cells = [["frames metric", "A (seeds)", "B (seeds)", "A - B, 95 % interval", "", "n"]]
    for row in found:
        difference = row["difference"]
        relative = f"{100 * difference['value'] / row['b']:+.1f} %" if row["b"] else "-"
        interval = f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
        clear = "clear" if row["excludes_zero"] else "not clear"
        cells.append(
            [
                f"{row['frames']:>6} {row['metric']}",
                _mean_and_seeds(row["a"], row["a_by_seed"]),
                _mean_and_seeds(row["b"], row["b_by_seed"]),
                f"{interval} ({relative})",
                clear,
                str(row["sequences"]),
            ]
        )
    return cells


def _mean_and_seeds(mean: float, by_seed: Sequence[float]) -> str:
    return f"{mean:.4f}" if len(by_seed) < 2 else f"{mean:.4f} ({min(by_seed):.4f} .. {max(by_seed):.4f})"


def _check_pictures(reports: Sequence[Mapping[str, Any]]) -> None:
    """Sequences of one name must begin with the same picture: data sets may differ and share their names."""
    first: dict[str, str] = {}
    for report in reports:
        for found in report["surveys"]:
            if first.setdefault(found["name"], found["first_image"]) != found["first_image"]:
                raise InputError(f"sequence {found['name']!r} shows other pictures in one report than in another")


def _scores(report: Mapping[str, Any], frames: str, method: str) -> dict[str, Any]:
    methods: dict[str, Any] = report["sequences"][frames]
    if method not in methods:
        raise InputError(f"no method {method!r} in a report; there are {', '.join(methods)}")
    scores: dict[str, Any] = methods[method]
    return scores


def _known(scores: Mapping[str, Any], part: str, metric: str) -> dict[str, float]:
    known = {seq: values[part] for seq, values in scores.items() if values[part] is not None}
    return {seq: values[metric] for seq, values in known.items() if values.get(metric) is not None}
