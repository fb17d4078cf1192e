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
from omnistream_training.losses.geometry import Lens
from omnistream_training.losses.targets import Targets


def build_model(choice: ModelChoice, seed: int, lens: Lens = "guessed") -> tuple[OmniStream, dict[str, Any] | None]:
    """The model in training mode, on the CPU, and its parent for the checkpoint's provenance (None: from nothing).

    Draws from `seed` only. With `freeze_backbone` nothing of the backbone asks for gradients, except a camera token
    that the foreign weights did not have. lens: what the loss asks of depth, for the checkpoint.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if choice.start is None:
            model, parent = OmniStream(choice.model_config()), None
            initialise(model.backbone, choice.init_std)
            if model.heads is not None:
                initialise_heads(model.heads)
        else:
            model, parent = _from_checkpoint(choice)
    if choice.freeze_backbone:
        model.backbone.requires_grad_(False)
        if parent is not None and parent["new_camera_token"]:
            model.backbone.camera_token.requires_grad_(True)
    model.config = dataclasses.replace(model.config, lens=lens)
    return model.train(), parent


def initialise(backbone: nn.Module, std: float | None) -> None:
    """Redraw the blocks' matrices: truncated normal of `std`, or 1 / sqrt(fan-in) for None.

    The backbone's own 0.02 suits ViT-L, where it is near 1 / sqrt(1024) = 0.03; at width 192 it starts the blocks
    thirteen times too weak for their inputs to matter.
    """
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Linear) and "blocks." in name:
            nn.init.trunc_normal_(module.weight, std=1 / math.sqrt(module.in_features) if std is None else std)


def initialise_heads(heads: Heads) -> None:
    """Weights that pass their input's variance on, and quiet outputs.

    torch's default shrinks the signal at every convolution: through the eight of a chain a picture changes the log
    depth by 0.005 at first, with variance 1 / fan-in by 0.35, and the latter learns (docs/training_log.md).
    """
    for name, module in heads.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            area = math.prod(module.kernel_size) if isinstance(module, nn.Conv2d) else 1  # stride = kernel there
            nn.init.trunc_normal_(module.weight, std=1 / math.sqrt(module.in_channels * area))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):  # the camera: outputs start near no motion
            gain = 1.0 if "trunk" in name else 0.1
            nn.init.trunc_normal_(module.weight, std=gain / math.sqrt(module.in_features))
    with torch.no_grad():
        for output in (heads.dpt.depth_out[-1], heads.dpt.ray_last):
            assert isinstance(output, nn.Conv2d)
            output.weight *= 0.1


@torch.no_grad()
def calibrate_heads(heads: Heads, targets: Targets) -> None:
    """Let untrained heads say what is typical of `targets`: their median depth, rays straight ahead, their lens.

    An output bias moves by at most the learning rate per step. Until it has crept there, hundreds of steps, the same
    wish of every pixel, "farther!", pushes all weights before it, and rectifiers behind negative weights die of it.
    """
    last = heads.dpt.depth_out[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None and heads.dpt.ray_last.bias is not None
    if bool(targets.depth_valid.any()):
        last.bias[0] = targets.depth[targets.depth_valid].log().median()
    heads.dpt.ray_last.bias[5] = 1.0
    if bool(targets.calibrated.any()):
        heads.camera.fov.bias.copy_(torch.logit(targets.fov[targets.calibrated].mean(0) / math.pi))


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
    parent = checkpoint.provenance() | {"new_camera_token": not stored.camera_token, "new_heads": stored.heads is None}
    if stored.heads is not None and stored.camera_token:
        model = OmniStream(config)
        model.load_state_dict(checkpoint.model().state_dict())
        return model, parent
    model = OmniStream(config)
    assert isinstance(model.heads, Heads)
    if stored.heads is None:
        initialise_heads(model.heads)
    drawn = model.backbone.camera_token.detach().clone()
    model.backbone.load_state_dict(checkpoint.backbone().state_dict())
    if not stored.camera_token:
        model.backbone.camera_token.data.copy_(drawn)
    return model, parent
