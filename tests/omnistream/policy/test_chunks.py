# SPDX-License-Identifier: Apache-2.0
"""The plan of actions: known answers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from omnistream.errors import ConfigError
from omnistream.policy.chunks import Blend, Plan, action_at, extend, should_ask


def chunk(*rows: tuple[float, float]) -> np.ndarray:
    return np.array(rows)


def two() -> Plan:
    """[0, 1, 2, 3] from tick 0, then [10, 20, 30, 40] from tick 2, there at tick 3; column 1 is a gripper."""
    plan = extend(Plan(), chunk((0, 1), (1, 1), (2, 1), (3, 1)), start=0, now=0)
    return extend(plan, chunk((10, -1), (20, -1), (30, -1), (40, 1)), start=2, now=3)


def test_the_newest_chunk_replaces_and_what_has_passed_is_skipped() -> None:
    assert action_at(two(), 3, grippers=(1,)).tolist() == [20, -1]
    assert action_at(two(), 5, grippers=(1,)).tolist() == [40, 1]
    assert action_at(two(), 1).tolist() == [1, 1]


def test_a_plan_that_ran_dry_says_nothing() -> None:
    assert action_at(two(), 6) is None
    assert action_at(Plan(), 0) is None
    assert two().end == 6 and Plan().end is None


def test_ensembling_weights_the_oldest_most_and_never_averages_a_gripper() -> None:
    blend = Blend(kind="ensemble", decay=0.5)
    w = [1.0, math.exp(-0.5)]
    assert action_at(two(), 3, grippers=(1,), blend=blend) == pytest.approx([(3 * w[0] + 20 * w[1]) / sum(w), -1])
    assert action_at(two(), 3, blend=Blend(kind="ensemble", decay=0)) == pytest.approx([11.5, 0])


def test_a_fade_moves_over_and_is_over_after_its_steps() -> None:
    plan = extend(Plan(), np.zeros((10, 2)), start=0, now=0)
    plan = extend(plan, np.full((10, 2), 8.0), start=2, now=3)
    blend = Blend(kind="fade", steps=3)
    assert [action_at(plan, t, grippers=(1,), blend=blend).tolist() for t in (3, 4, 5, 6)] == [
        [2, 8],
        [4, 8],
        [6, 8],
        [8, 8],
    ]


def test_chunks_that_ended_are_dropped_and_an_overtaken_answer_changes_nothing() -> None:
    plan = extend(two(), chunk((5, 5)), start=4, now=4)
    assert [c.start for c in plan.chunks] == [2, 4]
    assert extend(plan, chunk((9, 9), (9, 9)), start=3, now=4) is plan


def test_a_new_prediction_is_due_when_the_executed_part_is_over() -> None:
    assert should_ask(Plan(), 0, execute=2)
    plan = extend(Plan(), np.zeros((4, 2)), start=10, now=10)
    assert [should_ask(plan, t, execute=2) for t in (10, 11, 12)] == [False, False, True]
    assert should_ask(plan, 14, execute=99)


@pytest.mark.parametrize(
    ("actions", "start", "message"),
    [
        (np.zeros(3), 0, "expected"),
        (np.zeros((0, 2)), 0, "none of them 0"),
        (np.array([[0, np.nan]]), 0, "NaN"),
        (np.zeros((2, 2)), 5, "after now"),
        (np.zeros((2, 3)), 0, "3 dimensions, the plan 2"),
    ],
)
def test_a_chunk_that_cannot_be_executed_is_refused(actions: np.ndarray, start: int, message: str) -> None:
    plan = extend(Plan(), np.zeros((4, 2)), start=0, now=0)
    with pytest.raises(ConfigError, match=message):
        extend(plan, actions, start=start, now=1)


def test_a_plan_cannot_be_changed_from_outside() -> None:
    given = np.zeros((2, 2))
    plan = extend(Plan(), given, start=0, now=0)
    given[0] = 7
    action = action_at(plan, 0)
    action[0] = 9
    assert action_at(plan, 0).tolist() == [0, 0]


@pytest.mark.parametrize("options", [{"kind": "average"}, {"steps": 0}, {"decay": -1.0}])
def test_bad_blends_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        Blend(**options)
