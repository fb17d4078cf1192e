# SPDX-License-Identifier: Apache-2.0
"""The stream's cache is the memory: a cue that is gone decides the action, and only a stream that saw it can know.

A lamp is red or blue in the first three pictures; nine pictures later, all alike but for noise, the arm goes left or
right. Both policies feel how much time has passed, so that the moment is no secret.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from omnistream.episodes import EpisodeWriter
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.policy import PolicySession, load_policy
from omnistream.weights import random_model, save_model
from omnistream_training.policy.command import PolicyWhere
from omnistream_training.policy.config import PolicyRunConfig
from tests.omnistream_training.policy.conftest import CONTRACT, train

WAIT, LENGTH = 12, 24
CUES = {1: (230, 30, 30), -1: (30, 60, 230)}


def episode(seed: int, cue: int) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """(images, action) per step: still until `WAIT`, then left or right."""
    draw = np.random.default_rng(seed)
    rows = []
    for t in range(LENGTH):
        front = draw.integers(114, 127, (32, 48, 3), dtype=np.uint8)
        if t < 3:
            front[4:20, 16:32] = CUES[cue]
        wrist = draw.integers(0, 40, (32, 32, 3), dtype=np.uint8)
        rows.append(({"front": front, "wrist": wrist}, np.array([0.8 * cue if t >= WAIT else 0.0, 0.0, 1.0])))
    return rows


def closed_loop(run: Path, backbone: OmniStream, forget: bool, episodes: int = 40) -> float:
    """Share of unseen episodes in which the arm goes the right way. forget: the cache is cleared after the cue."""
    session = PolicySession(load_policy(run / "last"), backbone, engine="torch", device="cpu")
    session.set_instruction("follow the lamp")
    right = 0
    for number in range(episodes):
        cue = 1 if number % 2 else -1
        session.reset()
        for t, (images, _) in enumerate(episode(10_000 + number, cue)[: WAIT + 1]):
            if forget and t == 3:
                session.reset()
            session.observe(images)
        right += np.sign(session.act([WAIT / LENGTH]).actions[0, 0]) == cue
    return right / episodes


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cue_that_is_gone_is_followed_by_the_stream_alone(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path
) -> None:
    backbone = random_model(
        ModelConfig(backbone=BackboneConfig(dim=96, depth=3, heads=4, patch_size=8, layer_scale_init=1.0)), 0
    )
    with EpisodeWriter(tmp_path / "data", CONTRACT) as writer:
        for number in range(120):
            writer.begin("follow the lamp")
            for t, (images, action) in enumerate(episode(number, 1 if number % 2 else -1)):
                writer.add([t / LENGTH], action, images)
            writer.end(success=True)
    runs = {}
    for name, memory in (("stream", "sink_window:1,15"), ("single", "window:1")):
        policy = dataclasses.replace(config.policy, vision=dataclasses.replace(config.policy.vision, stream=memory))
        data = dataclasses.replace(config.data, folders=(str(tmp_path / "data"),), cameras=("front",), state=True)
        changed = dataclasses.replace(
            config,
            policy=policy,
            backbone=str(save_model(backbone, tmp_path / name / "backbone")),
            data=data,
            optim=dataclasses.replace(config.optim, lr=3e-3, warmup=50, ema=0.99),
        )
        runs[name] = tmp_path / name / "run"
        assert train(changed, runs[name], where, steps=500, batch=64, eval_every=0, overlays=0, log_every=100)
    right = {
        "streaming": closed_loop(runs["stream"], backbone, forget=False),
        "cleared": closed_loop(runs["stream"], backbone, forget=True),
        "single frames": closed_loop(runs["single"], backbone, forget=False),
    }
    assert right["streaming"] >= 0.9, right
    assert 0.25 <= right["cleared"] <= 0.75 and 0.25 <= right["single frames"] <= 0.75, right  # chance is 0.5
