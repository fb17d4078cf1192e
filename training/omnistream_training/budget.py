# SPDX-License-Identifier: Apache-2.0
"""Fit a run to the time there is: a step of every stage is measured, then all stages are scaled by one factor."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import torch

from omnistream.errors import ConfigError
from omnistream_training.config import Stage, TrainConfig
from omnistream_training.data.feed import Feed
from omnistream_training.learner import Learner

WARM_STEPS, TIMED_STEPS = 3, 5
RESERVE = 0.08
"""Share kept for evaluations, checkpoints and what the measurement did not see."""


def seconds_per_step(config: TrainConfig, device: str) -> list[float]:
    """Of each stage."""
    return [_measure(config, stage, device) for stage in config.stages]


def compiling_pays(config: TrainConfig, device: str) -> bool:
    """Whether a step of the longest stage is faster with torch.compile, by trying. Not if it fails, and says why."""
    stage = max(config.stages, key=lambda s: s.steps * s.clips * s.frames)
    eager = _measure(dataclasses.replace(config, compile=False), stage, device)
    try:
        compiled = _measure(dataclasses.replace(config, compile=True), stage, device)
    except Exception as error:  # compilers fail in their own ways, and none of them is a reason not to train
        print(f"torch.compile does not work here: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return False
    print(f"a step takes {eager * 1e3:.0f} ms, compiled {compiled * 1e3:.0f} ms", file=sys.stderr)
    return compiled < eager


def _measure(config: TrainConfig, stage: Stage, device: str) -> float:
    """Seconds per step, data included, on a learner that is thrown away."""
    short = dataclasses.replace(config, stages=(dataclasses.replace(stage, steps=WARM_STEPS + TIMED_STEPS),))
    return step_seconds(Learner(short, device), Feed(short, device), device)


def step_seconds(learner: Any, feed: Any, device: str) -> float:
    """Mean seconds of a learner's steps on the batches of its feed, which must have WARM_STEPS + TIMED_STEPS."""
    start = time.perf_counter()
    for step in range(WARM_STEPS + TIMED_STEPS):
        if step == WARM_STEPS:
            synchronise(device)
            start = time.perf_counter()
        learner.gradient(feed.batch(step))
        learner.update()
    synchronise(device)
    return (time.perf_counter() - start) / TIMED_STEPS


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
