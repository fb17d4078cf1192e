# SPDX-License-Identifier: Apache-2.0
"""The model that a run trains: from nothing, from a checkpoint of ours, or foreign weights with new heads on top."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from omnistream.errors import ConfigError
from omnistream.heads.heads import Heads
from omnistream.model.config import PRESETS, BackboneConfig, HeadConfig, ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.weights import open_checkpoint
from omnistream_training.config import ModelChoice


def build_model(choice: ModelChoice, seed: int) -> tuple[OmniStream, dict[str, Any] | None]:
    """The model in training mode, on the CPU, and its parent for the checkpoint's provenance.

    Draws from `seed` only. With `freeze_backbone` nothing of the backbone asks for gradients, except a camera token
    that the foreign weights did not have.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if choice.start is None:
            model, parent = OmniStream(choice.model_config()), None
            initialise(model.backbone, choice.init_std)
        else:
            model, parent = _from_checkpoint(choice)
    if choice.freeze_backbone:
        model.backbone.requires_grad_(False)
        if parent is not None and parent["new_camera_token"]:
            model.backbone.camera_token.requires_grad_(True)
    return model.train(), parent


def initialise(backbone: nn.Module, std: float | None) -> None:
    """Redraw the blocks' matrices: truncated normal of `std`, or 1 / sqrt(fan-in) for None.

    The backbone's own 0.02 suits ViT-L, where it is near 1 / sqrt(1024) = 0.03; at width 192 it starts the blocks
    thirteen times too weak for their inputs to matter.
    """
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Linear) and "blocks." in name:
            nn.init.trunc_normal_(module.weight, std=1 / math.sqrt(module.in_features) if std is None else std)


def heads_for(backbone: BackboneConfig) -> HeadConfig:
    """Heads for a backbone that came without: those of the preset of the nearest width, tapped at even intervals."""
    nearest = min(PRESETS.values(), key=lambda p: (abs(p.backbone.dim - backbone.dim), p.backbone.depth))
    if nearest.heads is None or backbone.depth < 4:
        raise ConfigError(f"backbone depth is {backbone.depth}; heads tap four blocks")
    d = backbone.depth
    taps = (d // 4 - 1, d // 2 - 1, d * 3 // 4 - 1, d - 1) if d != 24 else (4, 11, 17, 23)
    return dataclasses.replace(nearest.heads, taps=taps)


def _from_checkpoint(choice: ModelChoice) -> tuple[OmniStream, dict[str, Any]]:
    assert choice.start is not None
    checkpoint = open_checkpoint(choice.start, allow_pth=True)
    stored = checkpoint.config
    config: ModelConfig = dataclasses.replace(
        stored,
        heads=stored.heads or heads_for(stored.backbone),
        camera_token=True,
        image_size=choice.image_size,
        scale=choice.scale,
    )
    parent = checkpoint.provenance() | {"new_camera_token": not stored.camera_token}
    if stored.heads is not None and stored.camera_token:
        model = OmniStream(config)
        model.load_state_dict(checkpoint.model().state_dict())
        return model, parent
    model = OmniStream(config)
    drawn = model.backbone.camera_token.detach().clone()
    model.backbone.load_state_dict(checkpoint.backbone().state_dict())
    if not stored.camera_token:
        model.backbone.camera_token.data.copy_(drawn)
    assert isinstance(model.heads, Heads)
    return model, parent
