# SPDX-License-Identifier: Apache-2.0
"""A policy that is scored through its nodes: real processes, real topics, and the one evaluator."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: pip install -e '.[ros]'")
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from omnistream.errors import CheckpointError, ConfigError, ContractError
from omnistream.policy import default
from omnistream_ros import demo_tasks
from omnistream_ros.tabletop_robot import open_robot
from omnistream_sim.evaluation.run import RunOptions, evaluate
from omnistream_sim.tabletop.benchmark import FIRST_SEED, tabletop_benchmark
from omnistream_sim.tabletop.ros.environment import Bystander, nodes_benchmark
from omnistream_sim.tabletop.task_env import View
from omnistream_sim.tabletop.tasks import KINDS
from tests.omnistream_sim.tabletop.random_policy import random_policy

pytestmark = pytest.mark.ros

VIEW = View(static=48, gripper=32)
PERIODS = 10


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_policy(tmp_path_factory.mktemp("policy") / "random", VIEW)


def test_a_random_policy_is_scored_through_nodes_and_a_finished_run_is_not_run_again(
    policy: Path, tmp_path: Path
) -> None:
    # Slowly, with patience, and on simulated time: the machine that runs tests may be busy with ten other things.
    robot = open_robot(policy, sim_time=True, factor=0.3, patience=5.0, policy_parameters={"execute": 4})
    single = tabletop_benchmark(episodes=1, tasks=("lift", "stack"), view=VIEW, max_steps=PERIODS)
    benchmark = nodes_benchmark(single, robot)
    given = {"policy": str(policy), "weights": ""}
    report = evaluate(benchmark, Bystander, RunOptions(out=tmp_path / "run", videos=1), policy_options=given)
    assert report["success"]["total"] == 2 and report["success"]["success"] == 0 and not report["not_finished"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()]
    for line, episode in zip(lines, single.episodes, strict=True):
        (done,) = line["done"]
        assert done["task"] == episode.tasks[0] and done["steps"] == PERIODS and done["metrics"]["hz"] > 0
    assert (tmp_path / "run" / "sheet.png").is_file() and "through nodes" in report["run"]["benchmark"]
    again = evaluate(benchmark, Bystander, RunOptions(out=tmp_path / "run", videos=1), policy_options=given)
    assert again["success"] == report["success"]

    with pytest.raises(ConfigError, match="chains"):
        nodes_benchmark(tabletop_benchmark(chains=1), robot)


def test_a_policy_of_another_robot_and_none_at_all_are_refused(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = json.loads((policy / "contract.json").read_text())
    contract["cameras"][0]["name"] = "chest"
    (tmp_path / "contract.json").write_text(json.dumps(contract))
    with pytest.raises(ContractError, match="'chest'; expected static and gripper.*not a policy of the simulated"):
        open_robot(tmp_path)
    monkeypatch.setattr(default, "DEFAULT_POLICY", tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no default policy is shipped"):
        open_robot("default")


def test_the_robots_words_follow_the_contract(policy: Path) -> None:
    robot = open_robot(policy, sim_time=True, task_time=3.0)
    simulator, commands = robot.simulator_words(), robot.policy_words()
    assert "image_size:=[48, 48]" in simulator and "wrist_image_size:=[32, 32]" in simulator
    assert 'cameras:=["static", "wrist"]' in simulator and "task_time:=3.0" in simulator
    assert "/gripper/image_raw:=/wrist/image_raw" in commands and "use_sim_time:=true" in commands
    assert "~/gripper:=/simulator/gripper_command" in commands
    alone = dataclasses.replace(robot.contract, cameras=robot.contract.cameras[:1])
    assert 'cameras:=["static"]' in dataclasses.replace(robot, contract=alone).simulator_words()


def test_the_demos_tasks_are_evaluations_of_known_kinds() -> None:
    assert demo_tasks.FIRST_SEED == FIRST_SEED and set(demo_tasks.KINDS) <= set(KINDS)
    assert len(set(demo_tasks.KINDS)) == len(demo_tasks.KINDS) >= demo_tasks.AT_LEAST >= 3
