# SPDX-License-Identifier: Apache-2.0
"""One episode: what is reset and when, chunks, when a task ends, what the record depends on."""

from __future__ import annotations

import numpy as np
import pytest
from line_world import Drunkard, LineWorld, Scribe, walker

from omnistream_sim.evaluation.episode import run_episode
from omnistream_sim.evaluation.protocols import Episode, EvaluationError, Rules


def run(policy, *tasks, steps=5, world=None, execute=0, seed=0, **rules):
    world = world or LineWorld()
    episode = Episode(index=0, tasks=tasks, seed=seed)
    return run_episode(world, policy, episode, Rules(max_steps=steps, **rules), execute=execute)


def test_a_chain_goes_on_from_where_the_last_task_ended_and_ends_with_the_first_failure():
    world = LineWorld()
    record = run(walker, "right 2", "right 3", "right 9", "right 1", world=world)
    assert [(done.task, done.solved, done.steps) for done in record.done] == [
        ("right 2", True, 2),
        ("right 3", True, 3),
        ("right 9", False, 5),
    ]
    assert record.solved == 2
    assert world.calls == ["reset 0", "begin right 2", "begin right 3", "begin right 9"]  # one reset, at the start
    assert record.done[0].instruction == "go right 2"
    assert record.done[2].metrics == {"moved": 5.0}


def test_success_in_the_last_allowed_step_counts():
    assert run(walker, "right 5", steps=5).solved == 1
    assert run(walker, "right 5", steps=4).solved == 0


def test_with_success_at_the_last_step_a_task_passed_on_the_way_is_not_solved():
    assert run(walker, "touch 3").done[0].steps == 3
    late = run(walker, "touch 3", stop_at_success=False)
    assert (late.solved, late.done[0].steps) == (0, 5)
    assert run(walker, "touch 5", stop_at_success=False).solved == 1


def test_an_episode_can_have_its_own_length():
    episode = Episode(index=0, tasks=("right 7",), seed=0, max_steps=8)
    assert run_episode(LineWorld(), walker, episode, Rules(max_steps=2)).solved == 1


@pytest.mark.parametrize(
    ("execute", "calls"),
    [
        (0, ["reset", "act 0", "observe", "observe", "act 3", "observe"]),
        (1, ["reset", "act 0", "act 1", "act 2", "act 3", "act 4"]),
        (2, ["reset", "act 0", "observe", "act 2", "observe", "act 4"]),
    ],
)
def test_chunks(execute, calls):
    """The policy sees every frame once, and is asked when the rows to be executed are used up."""
    scribe = Scribe(rows=3)
    run(scribe, "right 5", execute=execute)
    assert scribe.calls == calls


def test_a_chunk_does_not_reach_into_the_next_task():
    scribe = Scribe(rows=10)
    run(scribe, "right 2", "right 1")
    assert scribe.calls == ["reset", "act 0", "observe", "reset", "act 2"]


def test_the_record_depends_on_the_episode_and_not_on_what_ran_before():
    world, policy = LineWorld(), Drunkard()
    first = [run(policy, "right 2", world=world, seed=seed).digest for seed in (1, 2, 1)]
    assert first[0] == first[2] != first[1]
    assert run(Drunkard(), "right 2", seed=2).digest == first[1]


@pytest.mark.parametrize("bad", [np.zeros(6), np.full(7, np.nan), np.zeros((0, 7)), np.zeros((1, 2, 7))])
def test_a_wrong_action_is_named(bad):
    with pytest.raises(EvaluationError, match="expected finite \\[K, 7\\]"):
        run(lambda observation, instruction: bad, "right 1")


def test_seconds_add_up():
    seconds = run(walker, "right 5").timing["seconds"]
    assert sum(seconds[stage] for stage in ("simulator", "policy", "watcher")) <= seconds["total"] + 1e-3
