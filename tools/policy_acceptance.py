# SPDX-License-Identifier: Apache-2.0
"""What the default policy has to reach, and whether reports of the evaluator reach it. Pure functions of reports.

A row of the acceptance is plain data: `name`, `value`, `low` and `high` (95 %), `shown` and `has_to` in words,
`accepted` (None: nothing is asked of it, it stands beside others), `beside`, and `source`: who asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omnistream.cli.report import environment
from omnistream.io.files import write_bytes
from omnistream_sim.evaluation.records import EpisodeRecord
from omnistream_sim.evaluation.scores import Rate, mean_interval
from omnistream_sim.tabletop.benchmark import by_kind

KINDS, MEAN, LEAST = 6, 0.90, 0.75
AVG_LEN = 3.5
MIB = 15.0
TOLD, MEANT = 0.75, 0.10
"""Told another task: how often that one is done, and how often the one that the start was drawn for. Ours."""
TARGET, OURS = "target", "our reading of it"

Report = Mapping[str, Any]
Row = dict[str, Any]


def kinds_rows(report: Report) -> list[Row]:
    """Success on new sentences and starts: how many kinds, their mean, each of them."""
    rates = by_kind(report)  # type: ignore[arg-type]
    values = [rate.value for rate in rates.values()]
    pooled = Rate(sum(rate.success for rate in rates.values()), sum(rate.total for rate in rates.values()))
    mean = float(np.mean(values)) if values else float("nan")
    whole = _whole(report)
    rows = [
        _row("kinds of task", len(rates), shown=str(len(rates)), has_to=f">= {KINDS}", accepted=len(rates) >= KINDS),
        _rate_row("mean success of the kinds", pooled, f">= {_percent(MEAN)}", whole and mean >= MEAN, value=mean),
    ]
    for kind, rate in rates.items():
        rows.append(_rate_row(f"success: {kind}", rate, f">= {_percent(LEAST)}", whole and rate.value >= LEAST))
    return rows


def chains_rows(report: Report) -> list[Row]:
    """Five tasks in a row."""
    value, (low, high) = report["avg_seq_len"], report["avg_seq_len_bootstrap95"]
    rates = {f"{k} in a row": _percent(rate) for k, rate in report["chain_sr"].items()}
    shown = f"{value:.2f} [{low:.2f}, {high:.2f}] of {report['episodes']} chains"
    accepted = _whole(report) and value >= AVG_LEN
    row = _row("chains of five: Avg. Len", value, shown=shown, has_to=f">= {AVG_LEN}", accepted=accepted, beside=rates)
    return [row | {"low": low, "high": high}]


def blank_rows(report: Report, chance: float) -> list[Row]:
    """Told nothing. chance: of somebody who does any possible task at random."""
    rate = _pooled(report)
    low, high = rate.interval
    has_to = f"interval contains {_percent(chance)}"
    accepted = _whole(report) and low <= chance <= high
    return [_rate_row("told nothing", rate, has_to, accepted, beside={"picked at random": _percent(chance)})]


def swapped_rows(report: Report) -> list[Row]:
    """Told another possible task than the one that the start was drawn for."""
    told = _pooled(report)
    meant = Rate(_other(report), told.total)
    whole = _whole(report)
    name = "told another task"
    return [
        _rate_row(f"{name}: does it", told, f">= {_percent(TOLD)}", whole and told.value >= TOLD, source=OURS),
        _rate_row(
            f"{name}: does the first", meant, f"<= {_percent(MEANT)}", whole and meant.value <= MEANT, source=OURS
        ),
    ]


def size_rows(folder: Path) -> list[Row]:
    """Of the policy's folder."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    return [_row("size", size, shown=f"{size:.1f} MiB", has_to=f"<= {MIB:g} MiB", accepted=size <= MIB)]


def control_rows(name: str, report: Report, mine: Mapping[int, bool], theirs: Mapping[int, bool]) -> list[Row]:
    """Another policy on the same starts: nothing is asked of it, the difference has an interval.

    mine, theirs: episode number to success of the policy that is judged, and of the control.
    """
    both = sorted(mine.keys() & theirs.keys())
    differences = [float(mine[number]) - float(theirs[number]) for number in both]
    low, high = mean_interval(differences)
    beside = {}
    if both:
        beside = {
            "this policy on the same starts": _percent(float(np.mean([mine[number] for number in both]))),
            "better by": f"{100 * float(np.mean(differences)):.1f} points [{100 * low:.1f}, {100 * high:.1f}]",
        }
    return [_rate_row(f"control: {name}", _pooled(report), "", None, beside=beside)]


def outcomes(records: Mapping[int, EpisodeRecord]) -> dict[int, bool]:
    """Episode number to whether all its tasks were solved."""
    return {number: record.solved == len(record.tasks) for number, record in records.items()}


def acceptance(rows: list[Row], left_out: list[str], about: dict[str, Any]) -> dict[str, Any]:
    """The report; `accepted` only where nothing was left out."""
    judged = [row for row in rows if row["accepted"] is not None]
    return {
        "format": "omnistream-policy-acceptance",
        "version": 1,
        "made_by": "make eval-policy-default",
        "environment": environment(),
        **about,
        "left_out": left_out,
        "accepted": bool(judged) and not left_out and all(row["accepted"] for row in judged),
        "rows": rows,
    }


HEADINGS = ("", "measured, 95 %", "has to be", "", "beside it")


def cells(report: Report) -> list[list[str]]:
    """The table, headings first."""
    verdicts = {True: "accepted", False: "NOT ACCEPTED", None: ""}
    lines = [list(HEADINGS)]
    for row in report["rows"]:
        beside = ", ".join(f"{name} {value}" for name, value in row["beside"].items())
        lines.append([row["name"], row["shown"], row["has_to"], verdicts[row["accepted"]], beside])
    return lines


def write_markdown(path: Path, report: Report) -> None:
    """The table for a document, with what it was measured on."""
    table = cells(report)
    lines = ["| " + " | ".join(line) + " |" for line in table]
    lines.insert(1, "|" + " --- |" * len(HEADINGS))
    policy = report["policy"]
    about = f"policy {policy['sha256'][:16]}, backbone {policy['backbone']}; seed {report['seed']}; "
    about += f"first {report['execute']} steps of a chunk executed"
    left = [f"Left out: {', '.join(report['left_out'])}.", ""] if report["left_out"] else []
    write_bytes(path, "\n".join([*lines, "", about, "", *left]).encode())


def _row(name: str, value: float, *, shown: str, has_to: str, accepted: bool | None, **more: Any) -> Row:
    row = {"name": name, "value": value, "low": None, "high": None, "shown": shown, "has_to": has_to}
    return row | {"accepted": accepted, "beside": {}, "source": TARGET} | more


def _rate_row(name: str, rate: Rate, has_to: str, accepted: bool | None, **more: Any) -> Row:
    low, high = rate.interval
    value = more.pop("value", rate.value)
    shown = f"{_percent(value)} [{_percent(low)}, {_percent(high)}] {rate.success}/{rate.total}"
    return _row(name, value, shown=shown, has_to=has_to, accepted=accepted, low=low, high=high, **more)


def _whole(report: Report) -> bool:
    """An evaluation that has not seen all its episodes accepts nothing."""
    return bool(report["episodes"] == report["planned_episodes"])


def _pooled(report: Report) -> Rate:
    return Rate(report["success"]["success"], report["success"]["total"])


def _other(report: Report) -> int:
    """Episodes in which the task was done that was not told; a report has their share per task."""
    info, metrics = report["task_info"], report["metrics"]
    return round(sum(metrics[task]["did_the_other"] * info[task]["total"] for task in metrics))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
