# SPDX-License-Identifier: Apache-2.0
"""The report for a person: one block per number of frames, the protocol above it, the baselines beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

COLUMNS = (
    ("AbsRel", "depth", "abs_rel", "{:.3f}", True),
    ("<1.25", "depth", "delta1", "{:.3f}", True),
    ("RMSE m", "depth", "rmse", "{:.3f}", False),
    ("ATE m", "pose", "ate", "{:.4f}", False),
    ("ATE % path", "pose", "ate_percent", "{:.2f}", True),
    ("RPE m", "pose", "rpe_trans", "{:.4f}", False),
    ("RPE deg", "pose", "rpe_rot", "{:.3f}", False),
    ("FoV err deg", "pose", "fov_error", "{:.2f}", False),
)
"""Heading, part, metric, format, whether its interval is shown."""
SHOWN_FINDINGS = 8
WIDTH = 118


def table(report: Mapping[str, Any]) -> str:
    """Rows of numbers, then the differences whose interval excludes zero or not, then what was found wrong."""
    lines = [*_wrapped("protocol", report["protocol"]["line"]), *_wrapped("source", report["protocol"]["source"])]
    for frames in dict.fromkeys(row["frames"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["frames"] == frames]
        lines += ["", f"frames per sequence: {frames}", *align_columns(block_cells(rows))]
    lines += ["", *_differences(report)] if report["differences"] else []
    return "\n".join([*lines, "", *findings_text(report["findings"])])


def findings_text(findings: Mapping[str, Any]) -> list[str]:
    """What was damaged or left out, counted; the first few by name."""
    lines = [f"{meaning}: {findings['counts'][kind]}" for kind, meaning in findings["meaning"].items()]
    lines += [f"  {found['sequence']}: {found['message']}" for found in findings["list"][:SHOWN_FINDINGS]]
    more = len(findings["list"]) - SHOWN_FINDINGS
    lines += [f"  and {more} more in the report"] if more > 0 else []
    return lines or ["nothing was damaged or left out"]


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=name.ljust(10), subsequent_indent=" " * 10)


def block_cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Headings, then a line per row of a report; only the columns that any of them has."""
    columns = [column for column in COLUMNS if any(column[2] in row.get(column[1], {}) for row in rows)]
    cells = [["method", *(heading for heading, *_ in columns), "n"]]
    for row in rows:
        name = row["method"] if row["streamed"] else f"  {row['method']}"
        counts = dict.fromkeys(str(row[part]["sequences"]) for part in ("depth", "pose") if part in row)
        cells.append([name, *(_cell(row, *column[1:]) for column in columns), "/".join(counts)])
    return cells


def align_columns(cells: list[list[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]


def _cell(row: Mapping[str, Any], part: str, metric: str, form: str, with_interval: bool) -> str:
    found = row.get(part, {}).get(metric)
    if found is None or found["value"] is None:
        return "-"
    value = form.format(found["value"])
    if not with_interval or found["low"] is None or found["low"] != found["low"]:
        return value
    return f"{value} [{form.format(found['low'])}, {form.format(found['high'])}]"


def _differences(report: Mapping[str, Any]) -> list[str]:
    cells = [["difference, paired over sequences, 95 % interval", "frames", "AbsRel", "ATE % path"]]
    for found in report["differences"]:
        values = [_difference(found.get(metric)) for metric in ("abs_rel", "ate_percent")]
        if values != ["-", "-"]:
            cells.append([f"{found['method']} minus {found['minus']}", str(found["frames"]), *values])
    return align_columns(cells) if len(cells) > 1 else []


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    clear = "" if found["excludes_zero"] else " (not clear)"
    return f"{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]{clear}"
