# SPDX-License-Identifier: Apache-2.0
"""Fit a policy run to the time there is: a few steps are measured on a copy, then the run is cut down."""

from __future__ import annotations

import copy
import dataclasses

from omnistream.errors import ConfigError
from omnistream_training.budget import RESERVE, step_seconds
from omnistream_training.policy.building import Setup
from omnistream_training.policy.config import PolicyRunConfig
from omnistream_training.policy.learner import PolicyLearner
from omnistream_training.policy.samples import Batch


def fitted(config: PolicyRunConfig, setup: Setup, device: str, minutes: float) -> PolicyRunConfig:
    """`config` with no more steps than `minutes` are enough for, evaluations included.

    Warm-up and intervals shrink along. A run that fits as it is stays as it is. ConfigError if not a step fits.
    """
    learner = PolicyLearner(config, copy.deepcopy(setup.network), device)
    return shortened(config, step_seconds(learner, _Draws(config, setup), device), minutes)


def shortened(config: PolicyRunConfig, seconds: float, minutes: float) -> PolicyRunConfig:
    """The same, where a step takes `seconds`."""
    steps = int(60 * minutes * (1 - RESERVE) / seconds)
    if steps < 1:
        raise ConfigError(f"{minutes:g} minutes are too short for a step of this run, which takes {seconds:.1f} s")
    if steps >= config.steps:
        return config
    share = steps / config.steps
    return dataclasses.replace(
        config,
        steps=steps,
        optim=dataclasses.replace(config.optim, warmup=max(1, int(config.optim.warmup * share))),
        eval_every=max(1, int(config.eval_every * share)) if config.eval_every else 0,
        save_every=max(1, int(config.save_every * share)),
    )


class _Draws:
    """Batches by step, as `step_seconds` asks for them."""

    def __init__(self, config: PolicyRunConfig, setup: Setup) -> None:
        self._config, self._setup = config, setup

    def batch(self, step: int) -> Batch:
        return self._setup.draw(self._config, step)
