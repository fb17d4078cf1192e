# SPDX-License-Identifier: Apache-2.0
"""One policy, one episode, twice: in the evaluator, and in a policy node on real rclpy. The same bits as actions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="pip install 'omnistream[ros]'")

from omnistream.contract import Camera, Contract, Statistics
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.policy.checkpoint import LoadedPolicy, save_policy
from omnistream.policy.config import (
    HeadConfig,
    LanguageConfig,
    PolicyConfig,
    PolicyShape,
    PoolingConfig,
    VisionConfig,
)
from omnistream.policy.network import PolicyNetwork
from omnistream.policy.scaling import scaling_from
from omnistream.policy.tokens import WordTokens
from omnistream.policy.vision import feature_size, grid_of
from omnistream.weights import model_hash, random_model, save_model
from omnistream_ros.testing import Graph
from omnistream_sim.calvin.benchmark import CONVENTION, STATE, calvin_benchmark
from omnistream_sim.calvin.starts import ROBOT
from omnistream_sim.evaluation.checkpoint_policy import CheckpointPolicy
from omnistream_sim.evaluation.episode import run_episode
from omnistream_sim.evaluation.protocols import Environment, Episode, Observation, Rules
from omnistream_training.robot_data.calvin_reader import ACTION
from tests.omnistream_sim.calvin.ros_policy import RosPolicy

pytestmark = pytest.mark.ros

MODEL = ModelConfig(backbone=BackboneConfig(dim=32, depth=2, heads=2, layer_scale_init=1.0))
CONFIG = PolicyConfig(
    chunk=4,
    vision=VisionConfig(image_size=48, stream="sink_window:1,3"),
    language=LanguageConfig(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64),
    pooling=PoolingConfig(heads=4, width=32, values=8),
    head=HeadConfig(hidden=32, widths=(32,)),
)
MOST = (0.02, 0.02, 0.02, 0.05, 0.05, 0.05, 1.0)
LEAST = tuple(-value for value in MOST)
CONTRACT = Contract(
    rate=30.0,
    cameras=(Camera("static", 200, 200), Camera("gripper", 84, 84)),
    state=STATE,
    action=ACTION,
    action_statistics=Statistics(100, LEAST, MOST, (0.0,) * 7, (0.01,) * 7, LEAST, MOST),
)


class Showroom:
    """Pictures and numbers of CALVIN's kind that depend on every action before: an error would grow."""

    def reset(self, episode: Episode) -> Observation:
        self._rng = np.random.default_rng(episode.seed)
        self._moved = np.zeros(7)
        return self._observation()

    def begin(self, task: str) -> str:
        return task

    def step(self, action: np.ndarray) -> Observation:
        assert np.abs(action).max() <= 1 and action[6] in (-1, 1)
        self._moved += action
        return self._observation()

    def success(self) -> bool:
        return False

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass

    def _observation(self) -> Observation:
        shade = int(10 * np.abs(self._moved).sum()) % 128
        pictures = (self._rng.integers(0, 128, (side, side, 3), np.uint8) + np.uint8(shade) for side in (200, 84))
        state = np.array(ROBOT)
        state[:7] += 0.02 * self._moved
        return {"rgb_static": next(pictures), "rgb_gripper": next(pictures), "state": state}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(policy, weights): random ones, as training writes them."""
    folder = tmp_path_factory.mktemp("checkpoint")
    backbone = random_model(MODEL, 0)
    dim, patch = feature_size(CONFIG.vision, MODEL)
    grids = tuple(grid_of(camera.height, camera.width, CONFIG.vision, patch) for camera in CONTRACT.cameras)
    shape = PolicyShape(
        cameras=("static", "gripper"), grids=grids, feature_dim=dim, arm=6, grippers=1, state=len(STATE)
    )
    tokens = WordTokens.of(["lift the red block", "grasp and lift the red block", "open the drawer"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = PolicyNetwork(CONFIG, shape, tokens).eval()
    contract = dataclasses.replace(CONTRACT, backbone=model_hash(backbone.backbone))
    policy = LoadedPolicy(network, tokens, contract, scaling_from(CONTRACT, "range"))
    return save_policy(policy, folder / "policy"), save_model(backbone, folder / "weights")


def both_ways(environment: Environment, episode: Episode, rules: Rules, checkpoint: tuple[Path, Path], domain: int):
    """The same episode in the evaluator and through the node; each record, and each one's actions."""
    torch.set_num_threads(1)
    policy, weights = checkpoint
    here = CheckpointPolicy(policy, convention=CONVENTION, weights=str(weights), engine="torch", device="cpu")
    with Graph(domain) as graph:
        there = RosPolicy(graph, policy, CONTRACT, CONVENTION, weights=str(weights), num_threads=1)
        records, actions = [], []
        for one in (here, there):
            told: list[np.ndarray] = []

            class Noted:
                """Writes down what a policy answers."""

                reset = staticmethod(one.reset)

                def __call__(self, observation: Observation, instruction: str, one=one, told=told) -> np.ndarray:
                    told.append(np.array(one(observation, instruction)))
                    return told[-1]

            records.append(run_episode(environment, Noted(), episode, rules, execute=1))
            actions.append(told)
        there.node.stop()
    return records, actions


def test_evaluator_and_node_give_the_same_actions(checkpoint: tuple[Path, Path], ros_domain: int) -> None:
    """Two tasks of one episode, with the reset between them; longer than the stream's memory."""
    episode = Episode(index=0, tasks=("lift the red block", "open the drawer"), seed=5)
    rules = Rules(max_steps=7, stop_at_success=False)

    class Solved(Showroom):
        """Every task counts as solved, so that the second one comes."""

        def success(self) -> bool:
            return True

    (here, there), (ours, theirs) = both_ways(Solved(), episode, rules, checkpoint, ros_domain)
    assert [len(actions) for actions in (ours, theirs)] == [14, 14]
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == (4, 7) and (one == other).all()
    assert here.digest == there.digest
    assert np.std([chunk[0, :6] for chunk in ours], axis=0).min() > 0  # it answers to what it sees


@pytest.mark.slow
def test_in_the_real_calvin(checkpoint: tuple[Path, Path], ros_domain: int, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue("checkout").root
    benchmark = calvin_benchmark(chains=1, tasks=("lift_red_block_table",), root=root)
    environment = benchmark.environment()
    try:
        rules = dataclasses.replace(benchmark.rules, max_steps=10)
        (here, there), (ours, theirs) = both_ways(environment, benchmark.episodes[0], rules, checkpoint, ros_domain)
    finally:
        environment.close()
    assert all((one == other).all() for one, other in zip(ours, theirs, strict=True))
    assert here.digest == there.digest
