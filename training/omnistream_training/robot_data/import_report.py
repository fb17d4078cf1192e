# SPDX-License-Identifier: Apache-2.0
"""The report of an import, for a person and as JSON beside the data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from omnistream.cli.report import environment, write_report
from omnistream_training.evaluation.table import align_columns
from omnistream_training.robot_data.bag_import import BagReport

FILE = "meta/omnistream_import.json"
SHOWN = 6


def text_of(report: BagReport) -> str:
    """One bag: its topics, what became of its ticks, what was lost."""
    cells = [["topic", "messages", "Hz", "jitter ms", "gaps", "longest s", "log-stamp ms", "bad", "age ms"]]
    for name, row in report.topics.items():
        bad = row.get("damaged", 0) + row.get("unsuited", 0)
        age = report.ages.get(name)
        cells.append(
            [
                name,
                str(row["messages"]),
                _number(row.get("rate"), 1),
                _number(row.get("jitter"), 1000),
                _number(row.get("gaps"), 1),
                _number(row.get("longest_gap"), 1),
                _number(row.get("stamp_to_log"), 1000),
                str(bad) if bad else "-",
                "-" if age is None else f"{age['mean'] * 1000:.1f}, max {age['max'] * 1000:.1f}",
            ]
        )
    kept = f"{report.steps / report.ticks:.1%}" if report.ticks else "none"
    speed = report.megabytes / max(report.seconds - report.encoding_seconds, 1e-9)
    lines = [
        f"{report.bag}: {report.episodes} episodes, {report.steps} of {report.ticks} ticks kept ({kept}); "
        f"{report.megabytes:.1f} MB read and aligned at {speed:.0f} MB/s, encoding {report.encoding_seconds:.1f} s",
        *(f"  {line}" for line in align_columns(cells)),
    ]
    lines += [f"  episodes ended: {reason}: {count}" for reason, count in report.ends.most_common()]
    if report.too_short or report.discarded:
        lines.append(f"  left out: {report.too_short} too short, {report.discarded} discarded by the operator")
    lines += [f"  ticks without a step: {reason}: {count}" for reason, count in report.gaps.items()]
    for name, row in report.topics.items():
        if "reason" in row:
            lines.append(f"  {name}: {row['reason']}")
    lines += [f"  LOST: {line}" for line in report.lost[:SHOWN]]
    more = len(report.lost) - SHOWN
    lines += [f"  LOST: and {more} more, in the report"] if more > 0 else []
    return "\n".join(lines)


def save(folder: Path, reports: list[BagReport], mapping: str) -> None:
    """Write the JSON into the data set's folder, with the text of the mapping."""
    data: dict[str, Any] = {"bags": [asdict(report) for report in reports], "mapping": mapping}
    write_report(folder / FILE, data | {"environment": environment()})


def _number(value: Any, factor: float) -> str:
    return "-" if value is None else f"{value * factor:.3g}"
