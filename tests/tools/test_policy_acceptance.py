# SPDX-License-Identifier: Apache-2.0
"""What is accepted and what is not, on reports that the evaluator's own scores are made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from omnistream_sim.evaluation.records import EpisodeRecord, TaskRecord
from omnistream_sim.evaluation.scores import scores

TASKS: tuple[str, ...] = (
    "lift_red",
    "push_red_left",
    "place_red_in_drawer",
    "stack_red_on_blue",
    "open_drawer",
    "turn_on_lamp",
)
TASKS += ("move_slider_left",)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "tools"))
    import policy_acceptance

    return policy_acceptance


def report(outcomes: Sequence[tuple[str, bool]], **metrics: bool) -> dict[str, Any]:
    """Of single tasks."""
    records = [
        EpisodeRecord(
            index=i,
            tasks=(task,),
            done=(TaskRecord(task=task, instruction="", solved=solved, steps=1, metrics=metrics),),
            digest="",
        )
        for i, (task, solved) in enumerate(outcomes)
    ]
    return scores(records) | {"planned_episodes": len(records)}


def share(task: str, solved: int, total: int) -> list[tuple[str, bool]]:
    return [(task, i < solved) for i in range(total)]


def verdicts(rows: list[dict[str, Any]]) -> dict[str, bool | None]:
    return {row["name"]: row["accepted"] for row in rows}


def test_the_tasks_are_the_tabletops() -> None:
    from omnistream_sim.tabletop.tasks import TASKS as known

    assert len({known[task].kind for task in TASKS}) == 7


def test_every_kind_the_mean_and_their_number_are_judged(judge: Any) -> None:
    good = [outcome for task in TASKS for outcome in share(task, 19, 20)]
    assert set(verdicts(judge.kinds_rows(report(good))).values()) == {True}
    weak = [outcome for task in TASKS[:6] for outcome in share(task, 20, 20)] + share(TASKS[6], 14, 20)
    found = verdicts(judge.kinds_rows(report(weak)))
    assert [name for name, accepted in found.items() if not accepted] == ["success: slider"]
    few = [outcome for task in TASKS[:5] for outcome in share(task, 20, 20)]
    assert verdicts(judge.kinds_rows(report(few)))["kinds of task"] is False
    low = [outcome for task in TASKS for outcome in share(task, 17, 20)]
    found = verdicts(judge.kinds_rows(report(low)))
    assert [name for name, accepted in found.items() if not accepted] == ["mean success of the kinds"]


def test_an_evaluation_that_is_not_complete_accepts_nothing(judge: Any) -> None:
    good = report([outcome for task in TASKS for outcome in share(task, 20, 20)])
    found = verdicts(judge.kinds_rows(good | {"planned_episodes": 141}))
    assert not found["mean success of the kinds"] and not found["success: lift"]


@pytest.mark.parametrize(("solved", "accepted"), [(0, False), (8, True), (30, False)])
def test_told_nothing_it_must_be_as_good_as_picking_at_random_neither_better_nor_worse(
    judge: Any, solved: int, accepted: bool
) -> None:
    (row,) = judge.blank_rows(report(share("lift_red", solved, 100)), 0.08)
    assert row["accepted"] is accepted and row["has_to"] == "interval contains 8.0 %"


def test_told_another_task_it_does_that_and_not_the_first(judge: Any) -> None:
    other = report(share("lift_red", 90, 100), did_the_other=False)
    assert set(verdicts(judge.swapped_rows(other)).values()) == {True}
    stubborn = report(share("lift_red", 10, 100), did_the_other=True)
    does, first = judge.swapped_rows(stubborn)
    assert not does["accepted"] and not first["accepted"] and first["value"] == 1.0


def test_chains(judge: Any) -> None:
    def chain(index: int, solved: int) -> EpisodeRecord:
        done = [TaskRecord(task=task, instruction="", solved=i < solved, steps=1) for i, task in enumerate(TASKS[:5])]
        return EpisodeRecord(index=index, tasks=TASKS[:5], done=tuple(done[: solved + 1]), digest="")

    for lengths, accepted in (((5, 4, 3, 2), True), ((5, 4, 2, 2), False)):
        made = scores([chain(i, solved) for i, solved in enumerate(lengths)]) | {"planned_episodes": 4}
        (row,) = judge.chains_rows(made)
        assert row["accepted"] is accepted and row["beside"]["5 in a row"] == "25.0 %"


def test_a_control_stands_beside_with_the_difference_on_the_same_starts(judge: Any) -> None:
    mine = dict.fromkeys(range(10), True)
    theirs = {number: number < 2 for number in range(5)}
    (row,) = judge.control_rows("pixels", report(share("lift_red", 2, 5)), mine, theirs)
    assert row["accepted"] is None and row["value"] == 0.4
    assert row["beside"]["this policy on the same starts"] == "100.0 %"
    assert row["beside"]["better by"].startswith("60.0 points [")


def test_what_was_left_out_is_not_accepted_and_the_table_says_all(judge: Any, tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "weights").write_bytes(bytes(16 * 2**20))
    rows = judge.size_rows(tmp_path / "policy")
    assert not rows[0]["accepted"]
    rows += judge.blank_rows(report(share("lift_red", 8, 100)), 0.08)
    about = {"policy": {"sha256": "0" * 64, "backbone": "abc"}, "seed": 0, "execute": 4}
    made = judge.acceptance(rows, ["chains"], about)
    assert not made["accepted"] and not judge.acceptance(rows[1:], ["chains"], about)["accepted"]
    assert judge.acceptance(rows[1:], [], about)["accepted"]
    judge.write_markdown(tmp_path / "a.md", made)
    text = (tmp_path / "a.md").read_text()
    assert "| size | 16.0 MiB | <= 15 MiB | NOT ACCEPTED |" in text and "Left out: chains." in text
    assert "| told nothing | 8.0 % [4.1 %, 15.0 %] 8/100 |" in text
    json.dumps(made)
