# SPDX-License-Identifier: Apache-2.0
"""results.json and the table that a person reads."""

from __future__ import annotations

from typing import Any

from .protocols import Benchmark
from .records import EpisodeRecord
from .scores import scores, timings


def results(
    benchmark: Benchmark,
    records: list[EpisodeRecord],
    *,
    run: dict[str, Any],
    found: dict[str, Any],
    failures: dict[int, str],
) -> dict[str, Any]:
    """The content of results.json. Everything but `timings` is the same for any number of workers."""
    return {
        "benchmark": benchmark.name,
        **scores(records),
        "planned_episodes": len(benchmark.episodes),
        "not_finished": {str(index): reason for index, reason in sorted(failures.items())},
        "run": run,
        "found": found,
        "deviations": list(benchmark.deviations),
        "digests": {str(record.index): record.digest for record in sorted(records, key=lambda r: r.index)},
        "timings": timings(records),
    }


def short_score(records: list[EpisodeRecord]) -> str:
    """A few words for the live line."""
    if not records:
        return ""
    solved = [record.solved for record in records]
    length = max(len(record.tasks) for record in records)
    if length > 1:
        return f"Avg. Len {sum(solved) / len(solved):.2f}"
    return f"{100 * sum(solved) / len(solved):.0f} % solved"


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    name, count, planned = report["benchmark"], report["episodes"], report["planned_episodes"]
    chains = len(report["chain_sr"]) > 1
    noun = "chains" if chains else "episodes"
    lines = [f"{name}: {count} of {planned} {noun}" if count != planned else f"{name}: {count} {noun}"]
    if chains:
        low, high = report["avg_seq_len_bootstrap95"]
        lines += ["", f"{'in a row':<34}{'rate':>8}   95 % interval"]
        for k, rate in report["chain_sr"].items():
            lines.append(f"{k:<34}{100 * rate:>7.1f}%   {_interval(report['chain_wilson95'][k])}")
        lines.append(f"{'Avg. Len':<34}{report['avg_seq_len']:>8.3f}   {low:.3f} .. {high:.3f} (bootstrap)")
    lines += ["", f"{'task':<34}{'rate':>8}   95 % interval    solved"]
    for task, row in report["task_info"].items():
        share = f"{row['success']}/{row['total']}"
        lines.append(f"{task:<34}{100 * row['rate']:>7.1f}%   {_interval(row['wilson95'])}   {share:>6}")
    if not chains:
        row = report["success"]
        share = f"{row['success']}/{row['total']}"
        lines.append(f"{'all episodes':<34}{100 * row['rate']:>7.1f}%   {_interval(row['wilson95'])}   {share:>6}")
        if len(report["task_info"]) > 1:
            lines.append(f"{'mean of tasks':<34}{100 * report['mean_of_tasks']:>7.1f}%")
    for task, row in report["metrics"].items():
        lines.append(f"{task}: " + ", ".join(f"{metric} {value:.3g}" for metric, value in row.items()))
    lines += ["", *_about(report)]
    return "\n".join(lines)


def _about(report: dict[str, Any]) -> list[str]:
    lines = []
    for part in ("simulator", "policy"):
        values = report["found"].get(part, {})
        if values:
            lines.append(f"{part:<10} " + ", ".join(f"{key} {value}" for key, value in values.items()))
    execute = report["run"].get("execute")
    lines.append(f"{'chunks':<10} " + ("executed whole" if not execute else f"first {execute} steps executed"))
    for stage in ("policy_ms", "simulator_ms"):
        row = report["timings"][stage]
        if row["count"]:
            name = stage.removesuffix("_ms")
            lines.append(f"{name + ' ms':<13} p50 {row['p50']:.1f}, p90 {row['p90']:.1f}, p99 {row['p99']:.1f}")
    if (outside := report["timings"]["share_outside"]) == outside:
        films = 100 * report["timings"]["share_films"]
        lines.append(f"time       {100 * outside:.1f} % outside simulator and policy, films {films:.1f} %")
    lines += [f"deviation: {words}" for words in report["deviations"]]
    lines += [f"NOT FINISHED: episode {index}: {reason}" for index, reason in report["not_finished"].items()]
    return lines


def _interval(pair: list[float]) -> str:
    return f"{100 * pair[0]:>5.1f} .. {100 * pair[1]:>5.1f}"
