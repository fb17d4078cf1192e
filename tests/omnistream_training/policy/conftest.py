# SPDX-License-Identifier: Apache-2.0
"""A data set in which words decide: two instructions, one picture, opposite actions; and a run of seconds on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper
from omnistream.episodes import EpisodeWriter
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.policy.config import HeadConfig, LanguageConfig, PolicyConfig, PoolingConfig, VisionConfig
from omnistream.weights import random_model, save_model
from omnistream_training.optim import OptimConfig
from omnistream_training.policy.command import PolicyWhere, run_policy
from omnistream_training.policy.config import Noise, PolicyData, PolicyLoss, PolicyRunConfig

LEFT, RIGHT = "push the block left", "push the block right"
CONTRACT = Contract(
    rate=10.0,
    cameras=(Camera("front", 32, 48), Camera("wrist", 32, 32)),
    state=(Dimension("x", "m"),),
    action=Action(
        (Dimension("dx", "m"), Dimension("dy", "m"), Dimension("gripper", "1")),
        mode="delta",
        frame="base",
        grippers=(Gripper(2, 1.0, 0.0),),
    ),
)


def write_pushes(folder: Path, episodes: int = 12, seed: int = 0, storage: str = "image", still: bool = False) -> Path:
    """Left: dx -0.8, open; right: dx 0.8, closed. A square of any colour drifts as it is pushed.

    still: the state is noise about one place.
    """
    draw = np.random.default_rng(seed)
    with EpisodeWriter(folder, CONTRACT, storage=storage) as writer:  # type: ignore[arg-type]
        for number in range(episodes):
            sign = 1 if number % 2 else -1
            writer.begin(RIGHT if sign > 0 else LEFT)
            colour, x = draw.integers(60, 256, 3), 20.0
            for _ in range(int(draw.integers(5, 9))):
                picture = np.full((32, 48, 3), 30, np.uint8)
                picture[12:20, round(x) : round(x) + 8] = colour
                wrist = np.full((32, 32, 3), colour // 2, np.uint8)
                action = [0.8 * sign, 0.1 * sign, float(sign < 0)]
                state = 0.3 + draw.uniform(-1e-6, 1e-6) if still else x / 48
                writer.add([state], action, {"front": picture, "wrist": wrist})
                x += 1.5 * sign
            writer.end(success=True)
    return folder


@pytest.fixture(scope="session")
def pushes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pushes(tmp_path_factory.mktemp("data") / "pushes")


@pytest.fixture(scope="session")
def backbone() -> OmniStream:
    return random_model(ModelConfig(backbone=BackboneConfig(dim=32, depth=2, heads=2, layer_scale_init=1.0)), 0)


@pytest.fixture(scope="session")
def backbone_path(backbone: OmniStream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(backbone, tmp_path_factory.mktemp("weights") / "backbone")


@pytest.fixture
def config(pushes: Path, backbone_path: Path) -> PolicyRunConfig:
    """Forty steps; words must be heard, as neither picture nor state nor time tells left from right at the start."""
    return PolicyRunConfig(
        policy=PolicyConfig(
            chunk=3,
            vision=VisionConfig(image_size=40, stream="window:3"),
            language=LanguageConfig(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64),
            pooling=PoolingConfig(heads=2, width=16, values=8),
            head=HeadConfig(hidden=32, widths=(32,)),
        ),
        backbone=str(backbone_path),
        data=PolicyData(folders=(str(pushes),), validation=0.2, state=False),
        loss=PolicyLoss(delta=0.1),
        noise=Noise(unknown_words=0.0),
        optim=OptimConfig(lr=5e-3, warmup=5, ema=0.9),
        steps=40,
        batch=16,
        eval_every=20,
        save_every=7,
        log_every=10,
        overlays=2,
    )


@pytest.fixture
def where(tmp_path: Path) -> PolicyWhere:
    return PolicyWhere(device="cpu", threads=1, cache=tmp_path / "cache")


def train(config: PolicyRunConfig, run: Path, where: PolicyWhere, **changes: object) -> bool:
    return run_policy(dataclasses.replace(config, **changes), run, where)  # type: ignore[arg-type]
