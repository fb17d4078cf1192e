# SPDX-License-Identifier: Apache-2.0
"""Named pre-training runs. The paper's numbers where they are known; docs/pretraining.md says which are ours."""

from __future__ import annotations

import dataclasses

from omnistream.errors import ConfigError
from omnistream_training.caption.config import CaptionConfig, DecoderConfig
from omnistream_training.config import DataConfig, ModelChoice, Stage
from omnistream_training.data.augment import AugmentConfig
from omnistream_training.losses.geometry import LossConfig
from omnistream_training.optim import OptimConfig
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.ssl.config import SslConfig

TABLETOP_TINY = PretrainConfig(
    model=ModelChoice(preset="nano"),
    data=DataConfig(live="worlds"),
    augment=AugmentConfig(flip=0.0),  # text says left and right
    loss=LossConfig(depth_common=0.3, camera=4.0, rays=1.5, points=0.5),
    stages=(
        Stage(steps=600, clips=8, frames=2, size=(64, 64), stride=(2, 24)),
        Stage(steps=900, clips=4, frames=4, size=(96, 96), stride=(2, 20)),
    ),
    optim=OptimConfig(lr=1e-3, muon_lr=3e-3, schedule="trapezoid", warmup=100, ema=0.998),
    ssl=SslConfig(
        images=8,
        clips=2,
        frames=4,
        source_size=(96, 96),
        global_size=64,
        local_size=32,
        prototypes=512,
        hidden=256,
        bottleneck=64,
        temperature_steps=200,
        momentum=(0.99, 1.0),
        freeze_prototypes=50,
        gram=0.0,  # a run from nothing has nothing to hold on to
    ),
    caption=CaptionConfig(
        pictures=6, size=(96, 96), live="tabletop", max_tokens=160, describe=0.1, list=0.3, ground=0.4, read=0.2
    ),
    eval_every=500,
    eval_clips=12,
    eval_frames=8,
    save_every=50,
)
"""All tasks on a laptop's CPU, from nothing: geometry on worlds, captions on the tabletop."""

TABLETOP_SMALL = dataclasses.replace(
    TABLETOP_TINY,
    model=ModelChoice(preset="small", image_size=128),
    stages=(
        Stage(steps=5000, clips=64, frames=2, size=(128, 128), stride=(2, 12)),
        Stage(steps=10000, clips=16, frames=8, size=(128, 128), stride=(1, 8)),
    ),
    ssl=dataclasses.replace(
        TABLETOP_TINY.ssl,
        images=64,
        clips=8,
        frames=8,
        source_size=(160, 160),
        global_size=128,
        local_size=64,
        prototypes=4096,
        hidden=768,
        bottleneck=128,
        temperature_steps=1000,
        freeze_prototypes=300,
    ),
    caption=dataclasses.replace(
        TABLETOP_TINY.caption,
        pictures=48,
        size=(128, 128),
        decoder=DecoderConfig(dim=256, depth=4, heads=8, mlp=768),
    ),
    eval_every=1500,
    eval_clips=48,
    eval_frames=16,
    save_every=250,
)
"""The same on one GPU, in hours."""

PAPER_VITL_STAGE1 = PretrainConfig(
    model=ModelChoice(preset="large", start="-", image_size=224, scale="relative"),  # its targets are normalised
    loss=LossConfig(depth_space="linear", rays=1.0, points=1.0),
    stages=(Stage(steps=60_000, clips=1, frames=16, size=(224, 224)),),
    optim=OptimConfig(
        lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup=4000, schedule="cosine", final=0.01, clip=1.0, ema=0.9999
    ),
    caption=CaptionConfig(pictures=8, size=(224, 224), language_model="-"),
    eval_every=5000,
    save_every=500,
)
"""Stage 1 of the paper: ViT-L from DINOv3 (`model.start`), Qwen3-0.6B (`caption.language_model`), 224 x 224, T = 16."""

PAPER_VITL_STAGE2 = dataclasses.replace(
    PAPER_VITL_STAGE1,
    model=ModelChoice(preset="large", start="-", image_size=512, scale="relative"),
    stages=(Stage(steps=120_000, clips=1, frames=16, size=(512, 512)),),
    ssl=SslConfig(source_size=(576, 576), global_size=512, local_size=224),
    caption=CaptionConfig(pictures=8, size=(512, 512), language_model="-"),
)
"""Stage 2: 512 x 512, from the weights of stage 1."""

PRESETS: dict[str, PretrainConfig] = {
    "tabletop_tiny": TABLETOP_TINY,
    "tabletop_small": TABLETOP_SMALL,
    "paper_vitl_stage1": PAPER_VITL_STAGE1,
    "paper_vitl_stage2": PAPER_VITL_STAGE2,
}


def preset(name: str) -> PretrainConfig:
    """The named run; ConfigError lists the names."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
