# SPDX-License-Identifier: Apache-2.0
"""Named policy runs."""

from __future__ import annotations

import dataclasses

from omnistream.errors import ConfigError
from omnistream.policy.config import VisionConfig
from omnistream.policy.config import preset as policy_preset
from omnistream_training.optim import OptimConfig
from omnistream_training.policy.config import Noise, PolicyData, PolicyLoss, PolicyRunConfig

PAPER = policy_preset("paper_qwen2_5_7b")

TABLETOP_TINY = PolicyRunConfig(
    policy=policy_preset("tabletop_tiny"),
    data=PolicyData(scaling="quantile"),
    loss=PolicyLoss(delta=0.1),
    optim=OptimConfig(lr=1.5e-3, weight_decay=0.01, warmup=50, ema=0.99),
    steps=3000,
    batch=128,
)
"""From nothing on a laptop. Huber's delta is that of movements worth telling apart: with 1 the loss is a square almost
everywhere, and a gripper's 0.01 then counts a hundred times less than movements do."""

TABLETOP = dataclasses.replace(TABLETOP_TINY, data=PolicyData(scaling="range", still="hold"))
"""For demonstrations of `omnistream-sim demos tabletop`: movements in metres that use their whole range. Its tool
always points down, so roll and pitch are held."""

TABLETOP_DEFAULT = dataclasses.replace(
    TABLETOP,
    policy=dataclasses.replace(
        TABLETOP.policy,
        vision=VisionConfig(image_size=160, taps=(0,), enlarge=False),
        goal=("tool_x", "tool_y", "tool_z", "tool_yaw"),
    ),
    data=dataclasses.replace(TABLETOP.data, counterfactual=0.5),
    noise=Noise(unknown_words=0.05, dropped_words=0.1, moved_words=3, no_words=0.05),
    steps=12000,
    eval_every=1000,
    save_every=500,
    log_every=100,
)
"""Of the default policy (`make policy-default`): 1960 demonstrations of all seven kinds and 1120 about blocks, both
cameras. Half of a batch is told something else than was recorded, else blocks are not found by name; goals shorten the
way there (docs/policy.md has what each was worth). The shallow tap and 160 pixels say where the named block is (probes:
docs/tabletop.md, docs/policy.md). The hand's 96 pixels stay 96: enlarged to 160 they would cost three times as many
tokens. No words at times, so that silence means something; words hidden, left out and moved, so that no single one
decides (docs/policy.md has what each such noise led to)."""


def _paper(chunk: int, steps: int, batch: int, warmup: int, data: PolicyData) -> PolicyRunConfig:
    return PolicyRunConfig(
        policy=dataclasses.replace(PAPER, chunk=chunk),
        data=data,
        loss=PolicyLoss(delta=1.0, gripper=0.01),
        noise=Noise(unknown_words=0.0),
        # Constant after the warm-up of a quarter of an epoch: a trapezoid that never falls.
        optim=OptimConfig(
            lr=2e-5, betas=(0.9, 0.999), weight_decay=0.0, schedule="trapezoid", decay=0.0, warmup=warmup, ema=0.0
        ),
        steps=steps,
        batch=batch,
        micro_batch=8,
        precision="bfloat16",
        eval_every=2000,
        save_every=2000,
        language_model="-",
    )


CALVIN_ABC = _paper(10, 30000, 128, 1500, PolicyData(cameras=("static",), state=False, scaling="range", squeeze=0.65))
"""VLM4VLA's hyper-parameters for CALVIN ABC -> D (arXiv 2601.03309): rel_actions clipped to 0.65, chunk 10, batch 128,
5 epochs or 30 000 steps. The data set clips rel_actions to [-1, 1], so the range of the movements, which are read in m
and rad, is those units again. Nobody has run it with this code."""

CALVIN_SMALL = dataclasses.replace(
    TABLETOP_TINY,
    policy=dataclasses.replace(TABLETOP_TINY.policy, vision=VisionConfig(image_size=192)),
    data=PolicyData(scaling="range", still="hold"),
    noise=Noise(state=0.1, no_state=0.2),
    steps=2500,
    batch=64,
)
"""For `omnistream-sim demos calvin`, on a laptop: both cameras and the robot's state. The hand is not tilted there, so
roll and pitch are held. The state is blurred and at times blanked, lest the policy go by it alone."""

BRIDGE = _paper(4, 50000, 512, 1000, PolicyData(state=False, scaling="quantile", squeeze=0.65))
"""VLM4VLA's for Bridge V2 -> SimplerEnv: quantiles, then 0.65; chunk 4, batch 512, 50 000 steps. The warm-up stands for
a quarter of an epoch, whose length depends on the copy of the data. Nobody has run it with this code."""

PRESETS: dict[str, PolicyRunConfig] = {
    "tabletop_tiny": TABLETOP_TINY,
    "tabletop": TABLETOP,
    "tabletop_default": TABLETOP_DEFAULT,
    "calvin_abc": CALVIN_ABC,
    "calvin_small": CALVIN_SMALL,
    "bridge": BRIDGE,
}


def preset(name: str) -> PolicyRunConfig:
    """The named run; ConfigError lists the names."""
    if name not in PRESETS:
        raise ConfigError(f"policy preset {name!r} is unknown; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
