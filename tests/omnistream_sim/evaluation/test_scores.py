# SPDX-License-Identifier: Apache-2.0
"""Scores of made-up rollouts whose answers are known."""

from __future__ import annotations

import math
import random

import pytest

from omnistream.errors import ConfigError
from omnistream_sim.evaluation.records import EpisodeRecord, Latencies, TaskRecord
from omnistream_sim.evaluation.scores import (
    Rate,
    chain_rates,
    mean_interval,
    paired_difference,
    scores,
    timings,
    wilson,
)

CHAIN = ("a", "b", "c", "d", "e")


def episode(index: int, solved: int, tasks: tuple[str, ...] = CHAIN, **timing) -> EpisodeRecord:
    done = tuple(
        TaskRecord(task=task, instruction=task, solved=number < solved, steps=3, metrics={"grasped": number < solved})
        for number, task in enumerate(tasks[: solved + 1])
    )
    return EpisodeRecord(index=index, tasks=tasks, done=done, digest="", timing=timing)


def test_chains_by_hand():
    """Five chains with 0, 1, 3, 5 and 5 in a row."""
    found = scores([episode(i, solved) for i, solved in enumerate((0, 1, 3, 5, 5))])
    assert found["avg_seq_len"] == pytest.approx(14 / 5)
    assert found["chain_sr"] == {"1": 0.8, "2": 0.6, "3": 0.6, "4": 0.4, "5": 0.4}
    assert sum(found["chain_sr"].values()) == pytest.approx(found["avg_seq_len"])
    assert (found["success"]["success"], found["success"]["total"]) == (2, 5)


def test_only_attempted_tasks_count():
    info = scores([episode(i, solved) for i, solved in enumerate((0, 1, 3, 5, 5))])["task_info"]
    assert {task: (row["success"], row["total"]) for task, row in info.items()} == {
        "a": (4, 5), "b": (3, 4), "c": (3, 3), "d": (2, 3), "e": (2, 2),
    }  # fmt: skip


def test_single_tasks():
    found = scores([episode(i, i < 3, tasks=("lift" if i < 4 else "push",)) for i in range(8)])
    assert found["success"]["rate"] == 3 / 8
    assert found["mean_of_tasks"] == pytest.approx((3 / 4 + 0) / 2)
    assert found["metrics"] == {"lift": {"grasped": 0.75}, "push": {"grasped": 0.0}}


def test_the_order_of_the_records_does_not_matter():
    records = [episode(i, i % 6) for i in range(30)]
    shuffled = random.Random(0).sample(records, len(records))
    assert scores(records) == scores(shuffled)


def test_a_record_survives_its_json():
    record = episode(3, 2, seconds={"total": 1.5})
    assert EpisodeRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    ("success", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775328),  # Newcombe 1998 (Statistics in Medicine 17), method 3, and its table I below
        (10, 10, 0.7224672, 1.0),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_values(success, total, low, high):
    assert wilson(success, total) == pytest.approx((low, high), abs=6e-5)


def test_wilson_at_its_ends():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0
    with pytest.raises(ConfigError, match="3 successes in 2 attempts"):
        wilson(3, 2)
    assert math.isnan(Rate(0, 0).value)


def test_chain_rates_of_nothing():
    assert [rate.total for rate in chain_rates([], 5)] == [0] * 5


def test_bootstrap_is_the_same_every_time_and_holds_the_mean():
    values = [0, 1, 1, 2, 5, 3, 4, 0]
    low, high = mean_interval(values)
    assert (low, high) == mean_interval(values)
    assert low < sum(values) / len(values) < high
    assert mean_interval([2, 2, 2]) == (2.0, 2.0)


def test_latency_percentiles_are_right_to_one_percent():
    latencies = Latencies()
    for milliseconds in range(1, 1001):
        latencies.add(float(milliseconds))
    for percent in (50, 90, 99, 100):
        assert latencies.percentile(percent) == pytest.approx(10 * percent, rel=0.011)
    other = Latencies()
    other.merge({str(bin_): count for bin_, count in latencies.counts.items()})
    assert other.counts == latencies.counts
    assert math.isnan(Latencies().percentile(50))


def test_share_of_time_outside():
    seconds = {"total": 10.0, "simulator": 7.0, "policy": 2.5, "watcher": 0.1}
    found = timings([episode(i, 1, seconds=seconds) for i in range(2)])
    assert found["share_outside"] == pytest.approx(0.05)
    assert found["seconds"]["total"] == 20.0


def test_the_paired_difference_knows_how_often_the_two_disagree() -> None:
    alike = [(True, True)] * 60 + [(False, False)] * 40
    difference, (low, high) = paired_difference(alike)
    assert difference == 0 and low == pytest.approx(-high) and high < 0.02, "the same in every episode"
    split = [(True, False)] * 20 + [(False, True)] * 20 + [(True, True)] * 40 + [(False, False)] * 20
    difference, (low, high) = paired_difference(split)
    assert difference == 0 and high > 0.1, "the same rate, and hardly an episode alike"
    # Agresti and Min (2005), by hand: 9 gained, 1 lost of 100.
    difference, (low, high) = paired_difference([(False, True)] * 9 + [(True, False)] + [(True, True)] * 90)
    half = 1.959964 * math.sqrt(11 - 64 / 102) / 102
    assert difference == pytest.approx(0.08)
    assert (low, high) == (pytest.approx(8 / 102 - half), pytest.approx(8 / 102 + half))
    assert paired_difference([])[1] == (-1.0, 1.0)
