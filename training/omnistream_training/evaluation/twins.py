# SPDX-License-Identifier: Apache-2.0
"""`omnistream-eval twins`: runs of `omnistream_training.twins` on held-out sequences, over sequences and seeds.

Streaming has to beat the twin that sees only the frame in depth, and the one that sees the first frame too in pose.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from omnistream.cli.report import environment, write_report
from omnistream.errors import ConfigError, InputError
from omnistream.stream.policy import parse_policy
from omnistream_training.evaluation.bootstrap import crossed_difference
from omnistream_training.evaluation.compare import compare, comparison_text, load_report
from omnistream_training.evaluation.options import Geometry, Twins
from omnistream_training.evaluation.plots import pyplot_or_none, save_figure
from omnistream_training.evaluation.table import align_columns

FORMAT, VERSION = "omnistream-twins", 1
TWIN_POLICY = {"frame": "window:1", "anchor": "sink_window:1,1"}
JUDGED = {"abs_rel": "frame", "delta1": "frame", "ate_percent": "anchor", "rpe_trans": "anchor", "rpe_rot": "anchor"}
"""Metric, and the twin that streaming has to beat in it."""
Reports = dict[str, list[dict[str, Any]]]


def run_twins(options: Twins) -> dict[str, Any]:
    """Evaluate every finished run, compare, write DIR/twins.json and plots, print; returns the report.

    Raises ConfigError for a wrong option, InputError where a kind of run is missing altogether.
    """
    for policy in options.policy:
        parse_policy(policy)
    pairs = [entry.partition("=") for entry in options.data]
    if any(not equals for _, equals, _ in pairs):
        raise ConfigError(f"--data {' '.join(options.data)}: expected PROTOCOL=DIR each")
    found = trained_runs(options.runs)
    sets = {name: _evaluate_set(options, name, Path(folder), found) for name, _, folder in pairs}
    report: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "made_by": "omnistream-eval twins",
        "options": asdict(options),
        "environment": environment(),
        "runs": {kind: [path.name for path in paths] for kind, paths in found.items()},
        "sets": {name: _compare_set(reports, options.policy) for name, reports in sets.items()},
    }
    write_report(options.out / "twins.json", report)
    plots = [_plot(options.out / "plots" / f"twins_{name}.png", found) for name, found in report["sets"].items()]
    print("\n".join(twins_text(report)))
    print(f"\nwrote {', '.join(['twins.json', *(name for name in plots if name)])} in {options.out}")
    return report


def trained_runs(folder: Path) -> dict[str, list[Path]]:
    """Directories of finished runs by kind, in the order of their seeds; of all kinds the same seeds."""
    seeds = {
        kind: {int(path.name.rpartition("-")[2]): path for path in folder.glob(f"{kind}-*") if _finished(path)}
        for kind in ("stream", *TWIN_POLICY)
    }
    shared = sorted(set.intersection(*(set(by_seed) for by_seed in seeds.values())))
    if not shared:
        raise InputError(
            f"{folder} has no seed of which stream-S, frame-S and anchor-S are all finished; `make twins` makes them"
        )
    return {kind: [by_seed[seed] for seed in shared] for kind, by_seed in seeds.items()}


def _finished(run: Path) -> bool:
    return (run / "finished").exists() and run.name.rpartition("-")[2].isdigit()


def _evaluate_set(options: Twins, protocol: str, data: Path, found: Mapping[str, Sequence[Path]]) -> Reports:
    """results.json of every run on one data set."""
    from omnistream_training.evaluation.geometry_command import evaluate

    reports: Reports = {}
    for kind, runs in found.items():
        policies = options.policy if kind == "stream" else (TWIN_POLICY[kind],)
        for run in runs:
            out = options.out / protocol / run.name
            print(f"{protocol}: {run.name}", flush=True)
            out.mkdir(parents=True, exist_ok=True)
            with open(out / "report.txt", "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
                evaluate(
                    Geometry(
                        data=data,
                        out=out,
                        protocol=protocol,
                        weights=str(run / "weights"),
                        policy=policies,
                        frames=options.frames,
                        frame_by_frame=False,
                        limit=options.limit,
                        time_base="stamps",
                        pictures=0,
                        device=options.device,
                        threads=options.threads,
                    )
                )
            reports.setdefault(kind, []).append(load_report(out))
    return reports


def _compare_set(reports: Reports, policies: Sequence[str]) -> dict[str, Any]:
    """Streaming under every policy minus each twin, and the curves over the number of frames."""
    comparisons = [
        {"policy": policy, "twin": twin, "rows": compare(reports["stream"], reports[twin], policy, TWIN_POLICY[twin])}
        for policy in policies
        for twin in TWIN_POLICY
    ]
    methods = [("stream", policy) for policy in policies] + list(TWIN_POLICY.items())
    curves = {
        f"streaming, {policy}" if kind == "stream" else f"twin, {policy}": _curve(reports[kind], policy)
        for kind, policy in methods
    }
    return {"protocol": reports["stream"][0]["protocol"]["line"], "comparisons": comparisons, "curves": curves}


def _curve(reports: Sequence[Mapping[str, Any]], method: str) -> list[dict[str, Any]]:
    """Per number of frames and metric: mean over seeds and its interval over sequences and seeds."""
    points = []
    for frames in reports[0]["sequences"]:
        for part, metric in (("depth", "abs_rel"), ("pose", "ate_percent")):
            tables = [_values(report["sequences"][frames][method], part, metric) for report in reports]
            common = [name for name in tables[0] if all(name in table for table in tables)]
            if common:
                values = np.array([[table[name] for name in common] for table in tables])
                pixels = [reports[0]["sequences"][frames][method][name]["depth"] for name in common]
                by_pixels = part == "depth" and reports[0]["protocol"]["depth"]["weighting"] == "pixels"
                weights = [depth["pixels"] for depth in pixels] if by_pixels else None
                found = crossed_difference(values, np.zeros((1, len(common))), weights)
                points.append({"frames": int(frames), "metric": metric, "sequences": len(common)} | asdict(found))
    return points


def _values(scores: Mapping[str, Any], part: str, metric: str) -> dict[str, float]:
    return {name: found[part][metric] for name, found in scores.items() if found[part] is not None}


def twins_text(report: Mapping[str, Any]) -> list[str]:
    """One block per data set: the judged metrics against their twins, then a verdict per metric and length."""
    lines: list[str] = []
    seeds = len(report["runs"]["stream"])
    for name, found in report["sets"].items():
        lines += ["", f"{name}: {found['protocol']}", f"A streaming, B its twin; {seeds} seed(s) each"]
        for comparison in found["comparisons"]:
            rows = [row for row in comparison["rows"] if JUDGED.get(row["metric"]) == comparison["twin"]]
            if rows:
                lines += ["", f"{comparison['policy']} against the twin {TWIN_POLICY[comparison['twin']]}"]
                lines += align_columns(comparison_text(rows))
    return lines[1:]


def _plot(path: Path, found: Mapping[str, Any]) -> str | None:
    """AbsRel and ATE over the number of frames. Needs matplotlib; the name of what was written."""
    pyplot = pyplot_or_none()
    metrics = (("abs_rel", "AbsRel"), ("ate_percent", "ATE, % of the path"))
    shown = [m for m in metrics if any(p["metric"] == m[0] for points in found["curves"].values() for p in points)]
    if pyplot is None or not shown:
        return None
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5.4 * len(shown), 4.0), squeeze=False, dpi=110)
    for axis, (metric, label) in zip(axes.flat, shown, strict=True):
        for name, points in found["curves"].items():
            rows = [point for point in points if point["metric"] == metric]
            x = [row["frames"] for row in rows]
            style = "--s" if name.startswith("twin") else "-o"
            (line,) = axis.plot(x, [row["value"] for row in rows], style, label=name, markersize=4)
            low, high = ([row[end] for row in rows] for end in ("low", "high"))
            axis.fill_between(x, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        axis.set_xticks(sorted({point["frames"] for points in found["curves"].values() for point in points}))
        axis.set_xlabel("frames streamed")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
    figure.suptitle(found["protocol"].split(":")[0] + ", mean over seeds, 95 % intervals", fontsize=10)
    save_figure(pyplot, figure, path)
    return f"plots/{path.name}"
