# SPDX-License-Identifier: Apache-2.0
"""The real simulator: the grid's starts, repeatability, success at the last step."""

from __future__ import annotations

import numpy as np
import pytest

from omnistream_sim.evaluation.episode import run_episode
from omnistream_sim.simpler.benchmark import simpler_benchmark
from omnistream_sim.simpler.environment import NoSimpler
from omnistream_sim.simpler.scripted import PickPlace, random_moves
from omnistream_sim.simpler.tasks import BRIDGE


def still(observation, instruction):
    return [0, 0, 0, 0, 0, 0, 1]


@pytest.fixture(scope="module")
def carrot():
    try:
        benchmark = simpler_benchmark(tasks=("carrot",))
        environment = benchmark.environment()
        environment.reset(benchmark.episodes[0])
    except NoSimpler as error:
        pytest.skip(str(error))
    yield benchmark, environment
    environment.close()


@pytest.mark.slow
def test_things_lie_where_the_grid_says(carrot):
    benchmark, environment = carrot
    for number in (0, 7, 23):
        scene = environment.reset(benchmark.episodes[number])["scene"]
        placement = BRIDGE["carrot"].placements()[number]
        assert scene[:2] == pytest.approx(placement.source, abs=5e-3)  # it rolls a little as it settles
        assert scene[7:9] == pytest.approx(placement.target, abs=2e-3)


@pytest.mark.slow
def test_an_episode_runs_to_its_end_and_repeats(carrot):
    benchmark, environment = carrot
    records = [run_episode(environment, still, benchmark.episodes[n], benchmark.rules) for n in (3, 4, 3)]
    assert [record.done[0].steps for record in records] == [60, 60, 60]
    assert [record.solved for record in records] == [0, 0, 0]
    assert records[0].digest == records[2].digest != records[1].digest
    assert records[0].done[0].instruction == "put carrot on plate"


@pytest.mark.slow
def test_the_tool_goes_where_it_is_sent(carrot):
    """2 cm along x of the robot's base, at the rate of the protocol."""
    benchmark, environment = carrot
    before = environment.reset(benchmark.episodes[0])["state"]
    for _ in range(4):
        after = environment.step(np.array([0.005, 0, 0, 0, 0, 0, 1.0]))["state"]
    assert (after - before)[:3] == pytest.approx([0.02, 0, 0], abs=8e-3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("task", "count"), [("carrot", 20), ("spoon", 20), ("stack", 20), ("eggplant", 2)])
def test_a_scripted_grasp_succeeds_and_random_moves_do_not(task: str, count: int):
    """The first `count` starts, both on the same ones; all 24 are a command of docs/benchmarks.md."""
    try:
        benchmark = simpler_benchmark(tasks=(task,), episodes=count)
        environment = benchmark.environment()
        environment.reset(benchmark.episodes[0])
    except NoSimpler as error:
        pytest.skip(str(error))
    solved = {}
    try:
        for name, policy in (("script", PickPlace()), ("random", random_moves)):
            records = [run_episode(environment, policy, episode, benchmark.rules) for episode in benchmark.episodes]
            solved[name] = sum(record.solved for record in records)
    finally:
        environment.close()
    assert solved["script"] >= 0.3 * count
    assert solved["random"] < 0.3 * solved["script"]
