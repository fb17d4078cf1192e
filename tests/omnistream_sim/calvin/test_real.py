# SPDX-License-Identifier: Apache-2.0
"""The real simulator: a scripted policy through our evaluator, with both oracles at every step."""

from __future__ import annotations

import numpy as np
import pytest

from omnistream_sim.calvin.benchmark import calvin_benchmark
from omnistream_sim.calvin.scripted import LiftBlock, random_moves
from omnistream_sim.evaluation.episode import run_episode
from omnistream_sim.evaluation.pool import PoolOptions
from omnistream_sim.evaluation.run import RunOptions, evaluate

TASK = "lift_red_block_table"


@pytest.fixture(scope="module")
def world(checkout):
    """Loaded once: Bullet's global connection allows one in a process."""
    benchmark = calvin_benchmark(chains=20, tasks=(TASK,), renderer="none", root=checkout.root)
    environment = benchmark.environment()
    yield benchmark, environment
    environment.close()


def test_a_scripted_lift_solves_20_starts_and_the_oracles_agree_at_every_step(world):
    benchmark, environment = world
    records = [run_episode(environment, LiftBlock(), episode, benchmark.rules) for episode in benchmark.episodes]
    assert len(records) == 20
    assert sum(record.solved for record in records) >= 18  # measured: 20
    assert all(done.metrics["oracles_differ"] == 0 for record in records for done in record.done)
    assert {record.done[0].instruction for record in records} == {"grasp and lift the red block"}


@pytest.mark.slow
@pytest.mark.parametrize("colour", ["blue", "pink"])
def test_the_other_blocks(world, checkout, colour):
    _, environment = world
    benchmark = calvin_benchmark(chains=20, tasks=(f"lift_{colour}_block_table",), renderer="none", root=checkout.root)
    records = [run_episode(environment, LiftBlock(), episode, benchmark.rules) for episode in benchmark.episodes]
    assert sum(record.solved for record in records) >= 18
    assert all(done.metrics["oracles_differ"] == 0 for record in records for done in record.done)


def test_random_actions_solve_nothing(world):
    benchmark, environment = world
    records = [run_episode(environment, random_moves, episode, benchmark.rules) for episode in benchmark.episodes[:3]]
    assert [record.solved for record in records] == [0, 0, 0]
    assert [record.done[0].steps for record in records] == [360, 360, 360]


def test_an_episode_does_not_depend_on_those_before(world):
    benchmark, environment = world
    first, second = benchmark.episodes[:2]
    digests = [run_episode(environment, LiftBlock(), e, benchmark.rules).digest for e in (first, second, first)]
    assert digests[0] == digests[2]


def test_reset_puts_everything_where_the_protocol_says(world):
    from omnistream_sim.calvin.starts import start_state

    benchmark, environment = world
    environment.reset(benchmark.episodes[0])
    environment.step(np.array([0, 0, 0, 0, 0, 0, -1.0]))
    for episode in benchmark.episodes[:5]:
        observation = environment.reset(episode)
        robot, scene = start_state(episode.state)
        assert observation["state"] == pytest.approx(robot, abs=2e-3)
        assert observation["scene"][[0, 1, 4, 5]] == pytest.approx(scene[[0, 1, 4, 5]], abs=1e-3)
        assert observation["scene"][6:9] == pytest.approx(scene[6:9], abs=2e-3)  # one physics step later


@pytest.mark.slow
def test_two_workers_with_cameras_give_what_one_gives(checkout, tmp_path):
    pytest.importorskip("av")
    benchmark = calvin_benchmark(chains=4, tasks=(TASK,), root=checkout.root)
    reports = [
        evaluate(
            benchmark,
            "omnistream_sim.calvin.scripted:LiftBlock",
            RunOptions(out=tmp_path / str(workers), videos=1, pool=PoolOptions(workers=workers)),
        )
        for workers in (1, 2)
    ]
    assert reports[0]["digests"] == reports[1]["digests"]
    assert reports[0]["success"]["success"] == 4
    assert reports[0]["timings"]["share_outside"] < 0.05
    assert (tmp_path / "2" / "sheet.png").exists()
