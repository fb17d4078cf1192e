# SPDX-License-Identifier: Apache-2.0
"""Named runs. The default weights' recipe is here, every number of it; docs/training_log.md says what was tried."""

from __future__ import annotations

from omnistream.errors import ConfigError
from omnistream_training.config import DataConfig, ModelChoice, Stage, TrainConfig
from omnistream_training.data.augment import AugmentConfig
from omnistream_training.data.pool import PoolConfig
from omnistream_training.losses.geometry import LossConfig
from omnistream_training.optim import OptimConfig

TOY = TrainConfig(
    stages=(Stage(steps=6, clips=2, frames=2, size=(32, 32)), Stage(steps=4, clips=1, frames=4, size=(32, 48))),
    optim=OptimConfig(warmup=2, ema=0.9),
    eval_every=5,
    eval_clips=2,
    eval_frames=4,
    save_every=2,
    log_every=2,
)
"""Seconds on one core: does everything work?"""

TABLETOP_LOSS = LossConfig(lens="known", depth_common=1.0, camera=2.0, motion=2.0, rays=0.5, points=0.2)

DEFAULT_CPU = TrainConfig(
    model=ModelChoice(preset="nano"),
    data=DataConfig(
        pools=(
            PoolConfig(live="tabletop", options={"min_path": "1.0"}, clips=6400, place=True, weight=2.7),
            PoolConfig(live="tabletop", options={"static": "0.15"}, clips=3200, place=True, weight=1.3),
        ),
        live_weight=0.25,  # scenes at random need a GPU's time; here they keep the network from knowing one room only
    ),
    augment=AugmentConfig(flip=0.0),  # the shipped table has a left and a right
    loss=TABLETOP_LOSS,
    stages=(
        Stage(steps=3000, clips=24, frames=2, size=(64, 64), stride=(2, 24)),
        Stage(steps=18000, clips=12, frames=4, size=(128, 128), stride=(2, 20)),
        Stage(steps=700, clips=3, frames=16, size=(128, 128), stride=(1, 6)),
    ),
    optim=OptimConfig(lr=1e-3, muon_lr=3e-3, schedule="trapezoid", warmup=200, decay=0.3, ema=0.998),
    eval_every=500,
    eval_clips=32,
    save_every=100,
)
"""The shipped recipe in the background of a small machine: five hours of two cores, the pools included."""

LONGER_STREAMS = TrainConfig(
    model=ModelChoice(start="-"),
    data=DataConfig(
        pools=(
            PoolConfig(live="tabletop", options={"min_path": "1.0"}, clips=1600, rate=2.5, place=True, weight=2.0),
            *DEFAULT_CPU.data.pools,
        ),
        live_weight=0.3,
    ),
    augment=AugmentConfig(flip=0.0, away=0.5),
    loss=TABLETOP_LOSS,
    stages=(Stage(steps=2500, clips=3, frames=16, size=(128, 128), stride=(1, 12)),),
    optim=OptimConfig(lr=5e-4, muon_lr=1.5e-3, schedule="trapezoid", warmup=100, decay=0.7, ema=0.998),
    eval_every=500,
    eval_clips=32,
    save_every=100,
)
"""`default-cpu` goes on with clips of up to six seconds, and with a first frame that lies up to minutes back: what a
stream that never ends sees. `model.start` names the weights."""

DEFAULT_GPU = TrainConfig(
    stages=(
        Stage(steps=6000, clips=512, frames=2, size=(128, 128), stride=(2, 12)),
        Stage(steps=6000, clips=256, frames=4, size=(128, 128), stride=(1, 12)),
        Stage(steps=3000, clips=64, frames=16, size=(128, 128), stride=(1, 6)),
    ),
    optim=OptimConfig(lr=1e-3, muon_lr=2e-3, schedule="trapezoid", warmup=200, decay=0.25, ema=0.998),
    eval_every=1500,
    eval_clips=48,
    save_every=500,
    log_every=50,
)
"""One large GPU, worlds only; `--fit` scales the stages to the time there is. What is shipped is `DEFAULT_CPU`'s."""

HEADS = TrainConfig(
    model=ModelChoice(freeze_backbone=True, image_size=224, start="-"),
    stages=(Stage(steps=10000, clips=2, frames=8, size=(224, 224)),),
    optim=OptimConfig(lr=5e-4, schedule="cosine"),
)
"""Depth, rays and pose on frozen foreign features; `model.start` names the checkpoint."""

FINE_TUNE = TrainConfig(
    model=ModelChoice(start="-", image_size=224),
    augment=AugmentConfig(),
    loss=LossConfig(lens="known"),
    stages=(Stage(steps=4000, clips=2, frames=8, size=(192, 256), stride=(1, 4)),),
    optim=OptimConfig(lr=1e-4, schedule="cosine", warmup=100),
)
"""Adapt a checkpoint of ours to recordings of your own (`--data.folders`), whose lens is known."""

PRESETS: dict[str, TrainConfig] = {
    "default-cpu": DEFAULT_CPU,
    "longer-streams": LONGER_STREAMS,
    "default-gpu": DEFAULT_GPU,
    "heads": HEADS,
    "fine-tune": FINE_TUNE,
    "toy": TOY,
}


def preset(name: str) -> TrainConfig:
    """The named run; ConfigError lists the names."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
