# SPDX-License-Identifier: Apache-2.0
"""From finished episodes to numbers: success rates with Wilson intervals, chains, per task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnistream.errors import ConfigError

from .records import EpisodeRecord, Latencies, total_seconds

Z95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Rate:
    """Successes out of attempts."""

    success: int
    total: int

    @property
    def value(self) -> float:
        """Share; NaN without attempts."""
        return self.success / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval."""
        return wilson(self.success, self.total)

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the official names `success` and `total`."""
        return {"success": self.success, "total": self.total, "rate": self.value, "wilson95": list(self.interval)}


def wilson(success: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a binomial share (Wilson 1927, JASA 22); (0, 1) without attempts.

    ConfigError unless 0 <= success <= total.
    """
    if not 0 <= success <= total:
        raise ConfigError(f"{success} successes in {total} attempts; expected no more successes than attempts")
    if total == 0:
        return 0.0, 1.0
    share = success / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    # At the ends the bound is exactly 0 or 1; rounding would leave 1e-17.
    return (0.0 if success == 0 else centre - half), (1.0 if success == total else centre + half)


def paired_difference(pairs: Sequence[tuple[bool, bool]]) -> tuple[float, tuple[float, float]]:
    """Of two success rates on the same episodes: second less first, and its 95 % interval (Agresti and Min 2005,
    Statistics in Medicine 24: the Wald interval with half an episode added to each of the four cells).

    (NaN, (-1, 1)) without episodes.
    """
    if not pairs:
        return math.nan, (-1.0, 1.0)
    gained = sum(second and not first for first, second in pairs)
    lost = sum(first and not second for first, second in pairs)
    total, change, moved = len(pairs) + 2, gained - lost, gained + lost + 1
    half = Z95 * math.sqrt(moved - change**2 / total) / total
    centre = change / total
    return change / len(pairs), (max(-1.0, centre - half), min(1.0, centre + half))


def chain_rates(solved: Sequence[int], length: int) -> list[Rate]:
    """SR_k for k = 1..length: chains with at least k tasks solved in a row."""
    return [Rate(sum(count >= k for count in solved), len(solved)) for k in range(1, length + 1)]


def mean_interval(values: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean, with a fixed seed."""
    data = np.asarray(values, np.float64)
    if not len(data):
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    means = [float(data[rng.integers(0, len(data), len(data))].mean()) for _ in range(resamples)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def task_rates(records: Sequence[EpisodeRecord]) -> dict[str, Rate]:
    """Per task, attempted ones only: a task after a chain's first failure counts for nothing."""
    counts: dict[str, list[int]] = {}
    for record in records:
        for done in record.done:
            entry = counts.setdefault(done.task, [0, 0])
            entry[0] += done.solved
            entry[1] += 1
    return {task: Rate(*counts[task]) for task in sorted(counts)}


def scores(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """All numbers of a run, as plain data; independent of the order of the records.

    avg_seq_len, chain_sr and task_info are CALVIN's own names for them. `success` is the share of episodes with all
    tasks solved; where every episode has one task, it is the success rate. `mean_of_tasks` weighs tasks alike.
    """
    records = sorted(records, key=lambda record: record.index)
    solved = [record.solved for record in records]
    length = max((len(record.tasks) for record in records), default=0)
    tasks = task_rates(records)
    complete = Rate(sum(r.solved == len(r.tasks) for r in records), len(records))
    return {
        "episodes": len(records),
        "avg_seq_len": float(np.mean(solved)) if solved else math.nan,
        "avg_seq_len_bootstrap95": list(mean_interval(solved)),
        "chain_sr": {str(k): rate.value for k, rate in enumerate(chain_rates(solved, length), 1)},
        "chain_wilson95": {str(k): list(rate.interval) for k, rate in enumerate(chain_rates(solved, length), 1)},
        "success": complete.to_json(),
        "mean_of_tasks": float(np.mean([rate.value for rate in tasks.values()])) if tasks else math.nan,
        "task_info": {task: rate.to_json() for task, rate in tasks.items()},
        "metrics": _mean_metrics(records),
    }


def timings(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Latency percentiles, seconds by stage, the share that is neither simulator nor policy, and films' part of it."""
    histograms = {"policy_ms": Latencies(), "simulator_ms": Latencies()}
    for record in records:
        for name, histogram in histograms.items():
            histogram.merge(record.timing.get(name, {}))
    seconds = total_seconds(records)
    total = seconds.get("total", 0.0)
    other = total - seconds.get("simulator", 0.0) - seconds.get("policy", 0.0)
    return {
        **{name: histogram.summary() for name, histogram in histograms.items()},
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "share_outside": other / total if total else math.nan,
        "share_films": seconds.get("watcher", 0.0) / total if total else math.nan,
    }


def _mean_metrics(records: Sequence[EpisodeRecord]) -> dict[str, dict[str, float]]:
    """Per task, the mean of every number that the environment reported beside success."""
    values: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for done in record.done:
            for name, value in done.metrics.items():
                values.setdefault(done.task, {}).setdefault(name, []).append(float(value))
    return {task: {name: float(np.mean(v)) for name, v in row.items()} for task, row in sorted(values.items())}
