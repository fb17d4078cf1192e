# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind for the next person: timings, and on what machine and code they were measured."""

from __future__ import annotations

import json
import subprocess
from array import array
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from omnistream.cli import info
from omnistream.io.files import write_bytes


class Latencies:
    """Milliseconds per stage, eight bytes each: a day of video at 30 Hz stays at 20 MB a stage."""

    def __init__(self) -> None:
        self._stages: dict[str, array[float]] = {}

    def add(self, stages: dict[str, float]) -> None:
        """Add one frame's stages, in ms."""
        for name, milliseconds in stages.items():
            self._stages.setdefault(name, array("d")).append(milliseconds)

    def summary(self) -> dict[str, dict[str, float]]:
        """Per stage, in the order first seen: p50, p99, max and mean, ms."""
        table = {}
        for name, values in self._stages.items():
            v = np.frombuffer(values, np.float64)
            p50, p99 = np.percentile(v, (50, 99))
            numbers = {"p50": p50, "p99": p99, "max": v.max(), "mean": v.mean()}
            table[name] = {key: round(float(value), 3) for key, value in numbers.items()}
        return table


def environment() -> dict[str, Any]:
    """Machine, versions, time in UTC, and the commit of the code if it runs from a checkout."""
    sections = {"software": info.software(), "machine": info.machine(), "torch": info.torch_section()}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"time": now, "commit": commit()} | {name: section.values for name, section in sections.items()}


def commit() -> str | None:
    """Commit of the checkout that this package runs from, with "+changes" where files differ; None without one."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(Path(__file__).resolve()))  # or it is another project's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON, atomically; what JSON does not know is written as text, NaN as null."""
    text = json.dumps(_clean(report), indent=2, ensure_ascii=False, default=str, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def one_sentence(error: BaseException) -> str:
    """What an exception says, on one line: torch's messages go on with advice and stack traces."""
    return next((line for line in map(str.strip, str(error).splitlines()) if line), type(error).__name__)


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if isinstance(value, np.ndarray):
        return _clean(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value
