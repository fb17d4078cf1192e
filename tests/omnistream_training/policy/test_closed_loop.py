# SPDX-License-Identifier: Apache-2.0
"""Demonstrations on disk to a robot that does what it is told: training loss is no evidence, only this is.

Frozen random features suffice for coloured blocks: the test proves the pipeline, not the backbone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.policy import PolicySession, load_policy
from omnistream.policy.chunks import Plan, action_at, extend, should_ask
from omnistream.weights import random_model, save_model
from omnistream_training.policy.command import PolicyWhere, run_policy
from omnistream_training.policy.presets import TABLETOP_TINY
from tests.omnistream_training.policy.toy import LIMIT, Table, write_demonstrations

EPISODES = 50


def play(session: PolicySession, seed: int, blank: bool = False) -> tuple[bool, bool]:
    """(done, took a wrong block); two actions of each chunk are executed."""
    table, plan, wrong, done = Table(), Plan(), False, False
    picture = table.reset(seed)
    session.reset()
    session.set_instruction("" if blank else table.instruction)
    while not done and table.steps < LIMIT:
        session.observe({"top": picture})
        if should_ask(plan, table.steps, execute=2):
            plan = extend(plan, session.act().actions, start=table.steps, now=table.steps)
        action = action_at(plan, table.steps, grippers=(2,))
        assert action is not None
        picture, done = table.step(action)
        wrong |= table.held >= 0 and table.held != table.block
    return done, wrong


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_does_what_it_is_told_and_nothing_sensible_when_told_nothing(tmp_path: Path) -> None:
    backbone = random_model(
        ModelConfig(backbone=BackboneConfig(dim=96, depth=3, heads=4, patch_size=8, layer_scale_init=1.0)), 0
    )
    base = TABLETOP_TINY
    config = dataclasses.replace(
        base,
        policy=dataclasses.replace(
            base.policy,
            chunk=4,
            vision=dataclasses.replace(base.policy.vision, image_size=64, stream="window:4"),
        ),
        backbone=str(save_model(backbone, tmp_path / "backbone")),
        data=dataclasses.replace(
            base.data, folders=(str(write_demonstrations(tmp_path / "demos", range(400))),), state=False
        ),
        steps=1200,
        eval_every=0,
    )
    assert run_policy(config, tmp_path / "run", PolicyWhere(device="cpu", threads=1, cache=tmp_path / "cache"))
    session = PolicySession(load_policy(tmp_path / "run" / "best"), backbone, engine="torch", device="cpu")
    seeds = range(10**7, 10**7 + EPISODES)
    played = [play(session, seed) for seed in seeds]
    told = sum(done for done, _ in played)
    blank = sum(play(session, seed, blank=True)[0] for seed in seeds)
    assert told >= 0.86 * EPISODES, f"{told} of {EPISODES}"
    assert sum(wrong for _, wrong in played) <= 0.04 * EPISODES
    assert blank <= 0.25 * EPISODES, f"{blank} of {EPISODES} without being told; a blind choice is one in six"
