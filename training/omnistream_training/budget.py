# SPDX-License-Identifier: Apache-2.0
"""Fit a run to the time there is: a step of every stage is measured, then all stages are scaled by one factor."""

from __future__ import annotations

import dataclasses
import time

import torch

from omnistream.errors import ConfigError
from omnistream_training.config import TrainConfig
from omnistream_training.data.feed import Feed
from omnistream_training.learner import Learner

WARM_STEPS, TIMED_STEPS = 3, 5
RESERVE = 0.08
"""Share kept for evaluations, checkpoints and what the measurement did not see."""


def seconds_per_step(config: TrainConfig, device: str) -> list[float]:
    """Of each stage, on a trainer that is thrown away."""
    seconds = []
    for stage in config.stages:
        short = dataclasses.replace(config, stages=(dataclasses.replace(stage, steps=WARM_STEPS + TIMED_STEPS),))
        feed, learner = Feed(short, device), Learner(short, device)
        for step in range(WARM_STEPS + TIMED_STEPS):
            if step == WARM_STEPS:
                synchronise(device)
                start = time.perf_counter()
            learner.gradient(feed.batch(step))
            learner.update()
        synchronise(device)
        seconds.append((time.perf_counter() - start) / TIMED_STEPS)
    return seconds


def synchronise(device: str) -> None:
    """Wait for what was started on a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def fit_to(config: TrainConfig, minutes: float, seconds: list[float]) -> TrainConfig:
    """`config` with its stages' steps scaled so that it takes `minutes` at `seconds` per step of each stage.

    The warm-up and the intervals shrink along when the run gets shorter. Raises ConfigError if not a step fits.
    """
    total = sum(stage.steps * cost for stage, cost in zip(config.stages, seconds, strict=True))
    factor = minutes * 60 * (1 - RESERVE) / total
    stages = tuple(dataclasses.replace(s, steps=int(s.steps * factor)) for s in config.stages if s.steps * factor >= 1)
    if not stages:
        raise ConfigError(
            f"{minutes:g} minutes are too short for a step of this run; it takes {total / 60:.0f} minutes"
        )
    shrink = min(1.0, factor)
    return dataclasses.replace(
        config,
        stages=stages,
        optim=dataclasses.replace(config.optim, warmup=max(1, int(config.optim.warmup * shrink))),
        eval_every=max(1, int(config.eval_every * shrink)) if config.eval_every else 0,
        save_every=max(1, int(config.save_every * shrink)),
    )
