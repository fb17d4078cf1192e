# SPDX-License-Identifier: Apache-2.0
"""What cards of models and of policies are made of: reports of ours, and Markdown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnistream.errors import InputError


def read_report(path: Path, formats: Sequence[str] = (), what: str = "card") -> dict[str, Any]:
    """A JSON report. InputError unless it can be read and, where `formats` names some, is of one of them."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not isinstance(report, dict) or (formats and report.get("format") not in formats):
        raise InputError(f"{path}: not a report for a {what}; expected format {', '.join(formats)}")
    return report


def described(path: Path) -> str:
    """Name, size and digest of a file."""
    data = path.read_bytes()
    return f"{path.name}, {len(data) / 2**20:.1f} MiB, sha256 {hashlib.sha256(data).hexdigest()[:16]}"


def bullets(lines: Sequence[str]) -> list[str]:
    """A Markdown list."""
    return [f"- {line}" for line in lines]


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; a bar in a cell would end it."""
    lines = [[cell.replace("|", "/").strip() for cell in row] for row in (headings, *rows)]
    return [
        f"| {' | '.join(lines[0])} |",
        "|" + " --- |" * len(headings),
        *(f"| {' | '.join(row)} |" for row in lines[1:]),
    ]
