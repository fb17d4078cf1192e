# SPDX-License-Identifier: Apache-2.0
"""What is kept of an episode: plain data that one line of JSON holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

BIN = math.log(1.02)
"""Latencies are counted in bins 2 % wide, so that a percentile is right to 1 % and an episode stays one short line."""


@dataclass
class Latencies:
    """A histogram of milliseconds."""

    counts: dict[int, int] = field(default_factory=dict)

    def add(self, milliseconds: float) -> None:
        """Count one."""
        bin_ = round(math.log(max(milliseconds, 1e-3)) / BIN)
        self.counts[bin_] = self.counts.get(bin_, 0) + 1

    def merge(self, counts: Mapping[str, int] | Mapping[int, int]) -> None:
        """Add another histogram's counts, as JSON (text keys) or as they are."""
        for bin_, count in counts.items():
            self.counts[int(bin_)] = self.counts.get(int(bin_), 0) + count

    def percentile(self, percent: float) -> float:
        """Milliseconds that `percent` of the entries do not exceed; NaN for an empty histogram."""
        total = sum(self.counts.values())
        if not total:
            return math.nan
        seen = 0
        for bin_ in sorted(self.counts):
            seen += self.counts[bin_]
            if seen >= total * percent / 100:
                break
        return math.exp(bin_ * BIN)

    def summary(self) -> dict[str, float | int]:
        """Count, p50, p90, p99 and max, ms."""
        points = {f"p{percent}": round(self.percentile(percent), 3) for percent in (50, 90, 99)}
        return {"count": sum(self.counts.values()), **points, "max": round(self.percentile(100), 3)}


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """One attempted task."""

    task: str
    instruction: str
    solved: bool
    steps: int
    """Control periods it ran."""
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One finished episode. All but `timing` is the same however often and wherever it is run."""

    index: int
    tasks: tuple[str, ...]
    """All that were to be done; those after the first failure were not attempted."""
    done: tuple[TaskRecord, ...]
    digest: str
    """Of all actions and states, in order: two runs with the same digest were the same, bit for bit."""
    timing: dict[str, Any] = field(default_factory=dict)
    """Seconds: simulator, policy, watcher (pictures), checks, total. Histograms of ms: policy_ms, simulator_ms."""

    @property
    def solved(self) -> int:
        """How many tasks in a row."""
        return sum(record.solved for record in self.done)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EpisodeRecord:
        """The inverse. TypeError or KeyError for something else."""
        done = tuple(TaskRecord(**record) for record in data["done"])
        return cls(**{**data, "tasks": tuple(data["tasks"]), "done": done})


def total_seconds(records: Iterable[EpisodeRecord]) -> dict[str, float]:
    """Sum of the seconds of all episodes, by stage."""
    sums: dict[str, float] = {}
    for record in records:
        for stage, seconds in record.timing.get("seconds", {}).items():
            sums[stage] = sums.get(stage, 0.0) + seconds
    return sums
