# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of our parameters for a configuration, and configurations from the shapes of foreign ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from omnistream.errors import CheckpointError, ConfigError
from omnistream.model.backbone import Backbone
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.weights.tensor_source import Shape, TensorSource

MAX_DEPTH = 512
"""Far beyond any ViT. A config.json is data from elsewhere: absurd sizes must end in an error, not in a long wait."""

HEAD_WIDTH = 64
"""Width of an attention head where a file states none: all DINOv3 models up to H+ (dinov3/hub/backbones.py)."""


@cache
def backbone_shapes(config: BackboneConfig) -> dict[str, Shape]:
    """Shape of every parameter of `Backbone(config)`; no memory is allocated for them."""
    return _shapes(config, lambda: Backbone(config))


@cache
def model_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Shape of every parameter of `OmniStream(config)`; no memory is allocated for them."""
    return _shapes(config.backbone, lambda: OmniStream(config))


def _shapes(config: BackboneConfig, build: Callable[[], nn.Module]) -> dict[str, Shape]:
    if config.depth > MAX_DEPTH:
        raise CheckpointError(f"a backbone of depth {config.depth} is beyond what is read ({MAX_DEPTH})")
    try:
        with torch.device("meta"):
            return {name: tuple(t.shape) for name, t in build().state_dict().items()}
    except (RuntimeError, OverflowError, TypeError) as error:
        raise CheckpointError(f"a model of these sizes cannot be built ({config}): {error}") from error


def describe(config: BackboneConfig) -> str:
    """`ViT dim 192, depth 12, heads 3, patch 16, 4 registers, mlp 768`."""
    return (
        f"ViT dim {config.dim}, depth {config.depth}, heads {config.heads}, patch {config.patch_size}, "
        f"{config.registers} registers, {config.ffn} {config.mlp_width}"
    )


def mlp_ratio_for(dim: int, width: int, ffn: str, where: str) -> float:
    """The `mlp_ratio` with which `BackboneConfig.mlp_width` is `width`. Raises `CheckpointError` if there is none."""
    # The half guards against float rounding just below an integer; `mlp_width` rounds down.
    base = width if ffn == "mlp" else width * 3 / 2
    try:
        for ratio in (base / dim, (base + 0.5) / dim):
            if BackboneConfig(dim=dim, depth=1, heads=1, mlp_ratio=ratio, ffn=ffn).mlp_width == width:  # type: ignore[arg-type]
                return ratio
    except (ConfigError, OverflowError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    raise CheckpointError(f"{where}: a gated feed-forward width of {width} is not a multiple of 8")


def count_layers(source: TensorSource, prefix: str) -> int:
    """One more than the highest i in names `<prefix>i.<rest>`; gaps show up as missing tensors later."""
    numbers = [name.removeprefix(prefix).split(".")[0] for name in source.tensors if name.startswith(prefix)]
    return 1 + max((int(n) for n in numbers if n.isdecimal()), default=-1)


def shape_of(source: TensorSource, name: str, dims: int) -> Shape:
    """Shape of a tensor from which sizes are inferred; refused when it is absent or not of `dims` dimensions."""
    if name not in source.tensors:
        raise CheckpointError(f"{source.where} has no {name}; its sizes cannot be inferred")
    shape = source.tensors[name].shape
    if len(shape) != dims:
        raise CheckpointError(f"{source.where}: {name} has shape {shape}; expected {dims} dimensions")
    return shape


def heads_for(dim: int, head_width: int, where: str) -> int:
    """`dim / head_width`, refused when it is not a whole number."""
    if dim % head_width:
        raise CheckpointError(f"{where}: width {dim} is not a multiple of the head width {head_width}")
    return dim // head_width
