# SPDX-License-Identifier: Apache-2.0
"""Which runs an ablation is made of, and how long they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omnistream_training.budget import RESERVE, TIMED_STEPS, WARM_STEPS, fit_to, step_seconds
from omnistream_training.config import ModelChoice, TrainConfig
from omnistream_training.config_file import load_config, save_config
from omnistream_training.optim import OptimConfig
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.feed import PretrainFeed
from omnistream_training.pretrain.learner import PretrainLearner

SHARED = "config.yaml"
"""In the experiment's folder."""
FULL = "full"


def _without_video(config: PretrainConfig) -> PretrainConfig:
    return dataclasses.replace(config, ssl=dataclasses.replace(config.ssl, clips=0))


def _without_geometry(config: PretrainConfig) -> PretrainConfig:
    return dataclasses.replace(config, weights=dataclasses.replace(config.weights, geometry=0.0))


def _without_captions(config: PretrainConfig) -> PretrainConfig:
    return dataclasses.replace(config, weights=dataclasses.replace(config.weights, caption=0.0))


VARIANTS: dict[str, Callable[[PretrainConfig], PretrainConfig]] = {
    FULL: lambda config: config,
    "no-video": _without_video,
    "no-geometry": _without_geometry,
    "no-captions": _without_captions,
}
"""The paper's four (its ablation table). Without video SSL the pictures stay."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One of an experiment."""

    variant: str
    seed: int
    config: PretrainConfig

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.seed}"


def shared_config(out: Path, base: PretrainConfig, minutes: float, device: str) -> PretrainConfig:
    """OUT/config.yaml, or `base` cut down so that its full recipe takes `minutes` here; a longer budget adds nothing.

    All variants do the same number of steps, as in the paper, so that those without a task take less time.
    """
    path = out / SHARED
    if path.exists():  # on the defaults: a field that is newer than the experiment
        return load_config(path, PretrainConfig())
    base = dataclasses.replace(base, eval_every=0)  # evaluations while training decide nothing here
    seconds = [_seconds_per_step(base, index, device) for index in range(len(base.stages))]
    whole = sum(stage.steps * cost for stage, cost in zip(base.stages, seconds, strict=True)) / 60 / (1 - RESERVE)
    if minutes < whole:
        fitted = fit_to(base, minutes, seconds)
        shrink = sum(stage.steps for stage in fitted.stages) / base.steps
        ssl = dataclasses.replace(
            base.ssl,
            temperature_steps=max(1, int(base.ssl.temperature_steps * shrink)),
            freeze_prototypes=int(base.ssl.freeze_prototypes * shrink),
        )
        assert isinstance(fitted, PretrainConfig)
        base = dataclasses.replace(fitted, ssl=ssl)
    save_config(base, path)
    return base


def runs(base: PretrainConfig, seeds: Sequence[int], variants: Sequence[str]) -> Iterator[Run]:
    """Seed by seed, so that what is there at any moment can be compared."""
    for seed in seeds:
        for variant in variants:
            yield Run(variant=variant, seed=seed, config=VARIANTS[variant](dataclasses.replace(base, seed=seed)))


def readout_config(base: PretrainConfig, backbone: Path, steps: int, seed: int) -> TrainConfig:
    """New heads on the frozen backbone of a finished run, for every variant alike: a variant without geometry has heads
    that never learnt, and one with it would be measured by heads that learnt longer."""
    last = base.stages[-1]
    data = base.data
    if not max(TrainConfig.source_weights(base), default=0.0) > 0:
        data = dataclasses.replace(data, folders=tuple(base.recordings))
    return TrainConfig(
        model=ModelChoice(
            start=str(backbone), freeze_backbone=True, image_size=base.model.image_size, scale=base.model.scale
        ),
        data=data,
        augment=base.augment,
        loss=base.loss,
        optim=OptimConfig(lr=2e-3, warmup=min(20, steps), schedule="trapezoid", ema=0.98),
        stages=(dataclasses.replace(last, steps=steps),),
        seed=seed,
        precision=base.precision,
        eval_every=0,
        eval_clips=2,
        eval_frames=base.eval_frames,  # which recordings are held out whole follows from it
        save_every=max(1, steps // 4),
    )


def _seconds_per_step(base: PretrainConfig, stage: int, device: str) -> float:
    """Data included, on a learner that is thrown away."""
    steps = WARM_STEPS + TIMED_STEPS
    short = dataclasses.replace(base, stages=(dataclasses.replace(base.stages[stage], steps=steps),))
    learner = PretrainLearner(short, device)
    return step_seconds(learner, PretrainFeed(short, device, learner.model.config.backbone.patch_size), device)
