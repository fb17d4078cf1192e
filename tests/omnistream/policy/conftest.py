# SPDX-License-Identifier: Apache-2.0
"""A small robot: two cameras, three numbers of state, six movements and a gripper; a small backbone and policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper, Statistics
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.policy.checkpoint import LoadedPolicy
from omnistream.policy.config import (
    HeadConfig,
    LanguageConfig,
    PolicyConfig,
    PolicyShape,
    PoolingConfig,
    VisionConfig,
    goal_dimensions,
)
from omnistream.policy.network import PolicyNetwork
from omnistream.policy.scaling import scaling_from
from omnistream.policy.tokens import WordTokens
from omnistream.policy.vision import feature_size, grid_of
from omnistream.weights import model_hash, random_model

NAMES = ("x", "y", "z", "roll", "pitch", "yaw")
MODEL = ModelConfig(backbone=BackboneConfig(dim=32, depth=2, heads=2, layer_scale_init=1.0))
CONFIG = PolicyConfig(
    chunk=4,
    vision=VisionConfig(image_size=64, stream="sink_window:1,3"),
    language=LanguageConfig(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64),
    pooling=PoolingConfig(heads=4, width=32, values=8),
    head=HeadConfig(hidden=32, widths=(32,)),
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def statistics(dimensions: int, low: float = -1.0, high: float = 1.0) -> Statistics:
    def row(value: float) -> tuple[float, ...]:
        return (value,) * dimensions

    return Statistics(100, row(low), row(high), row((low + high) / 2), row(0.3), row(0.9 * low), row(0.9 * high))


@pytest.fixture
def contract() -> Contract:
    return Contract(
        rate=10.0,
        cameras=(Camera("static", 64, 64), Camera("wrist", 48, 64)),
        state=tuple(Dimension(name, "m") for name in ("px", "py", "pz")),
        action=Action(
            tuple(Dimension(name, "m") for name in NAMES[:3])
            + tuple(Dimension(name, "rad") for name in NAMES[3:])
            + (Dimension("gripper", "1"),),
            mode="delta",
            frame="base",
            grippers=(Gripper(6, 1.0, -1.0),),
        ),
        state_statistics=statistics(3),
        action_statistics=statistics(7),
    )


@pytest.fixture(scope="session")
def backbone() -> OmniStream:
    return random_model(MODEL, 0)


def make_policy(contract: Contract, config: PolicyConfig, backbone: OmniStream | None, seed: int = 0) -> LoadedPolicy:
    """Random weights; words of two instructions."""
    tokens = WordTokens.of(["lift the red cube", "open the drawer"])
    dim, patch = feature_size(config.vision, None if backbone is None else backbone.config)
    shape = PolicyShape(
        cameras=tuple(camera.name for camera in contract.cameras),
        grids=tuple(grid_of(camera.height, camera.width, config.vision, patch) for camera in contract.cameras),
        feature_dim=dim,
        arm=len(contract.action.arm),
        grippers=len(contract.action.grippers),
        state=len(contract.state),
        goal=goal_dimensions(config.goal, contract.state_names),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PolicyNetwork(config, shape, tokens).eval()
    hashed = dataclasses.replace(contract, backbone=None if backbone is None else model_hash(backbone.backbone))
    return LoadedPolicy(network, tokens, hashed, scaling_from(contract, "none"), {"preset": "test"})


@pytest.fixture
def policy(contract: Contract, backbone: OmniStream) -> LoadedPolicy:
    return make_policy(contract, CONFIG, backbone)


def images(contract: Contract, count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(seed)
    return [
        {c.name: draw.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in contract.cameras}
        for _ in range(count)
    ]
