# SPDX-License-Identifier: Apache-2.0
"""What both namings of DINOv3 share: sizes from shapes, and the tokens of ours that DINOv3 does not have.

DINOv3 has one set of register tokens; ours start as two equal sets (first frame, later frames). It has no camera token
and no aspect-ratio embedding: the token starts as a truncated normal of std 0.02 with a fixed seed, the embedding as
zeros, so that the same file always gives the same model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.weights.foreign_config import backbone_config, backbone_only
from omnistream.weights.keymap import KeyMap, Slot
from omnistream.weights.shapes import HEAD_WIDTH, count_layers, heads_for, mlp_ratio_for, shape_of
from omnistream.weights.tensor_source import TensorSource

CAMERA_TOKEN_SEED = 0
CAMERA_TOKEN_STD = 0.02


def config_from_shapes(
    source: TensorSource,
    *,
    cls: str,
    patches: str,
    registers: str,
    layers: str,
    gate: str,
    gated_up: str,
    up: str,
    head_width: int = HEAD_WIDTH,
) -> ModelConfig:
    """Configuration of a file without config.json, given the file's names.

    cls, patches, registers: of these tensors. layers: what the numbers of the blocks follow, as in `blocks.`.
    gate: the linear of a block that only a gated feed-forward has; gated_up, up: the one from which its width is read.
    """
    _, _, dim = shape_of(source, cls, 3)
    _, _, patch, _ = shape_of(source, patches, 4)
    gated = any(f".{gate}." in name for name in source.tensors)
    width, _ = shape_of(source, f"{layers}0.{gated_up if gated else up}.weight", 2)
    tokens = source.tensors.get(registers)
    ffn: Literal["mlp", "swiglu"] = "swiglu" if gated else "mlp"
    path = Path(source.where)
    backbone = backbone_config(
        path,
        dim=dim,
        depth=count_layers(source, layers),
        heads=heads_for(dim, head_width, source.where),
        patch_size=patch,
        registers=tokens.shape[1] if tokens and len(tokens.shape) == 3 else 0,
        mlp_ratio=mlp_ratio_for(dim, width, ffn, source.where),
        ffn=ffn,
    )
    return backbone_only(path, backbone, image_size=224)


def map_tokens(result: KeyMap, config: BackboneConfig, cls: str, mask: str, registers: str) -> None:
    """Rules of all tokens, given the file's names of its three."""
    dim, count = config.dim, config.registers
    result.copy("cls_token", (1, 1, dim), cls)
    result.copy("mask_token", (1, dim), mask, (1, 1, dim))
    result.slots[registers] = Slot(((1, count, dim),), required=count > 0)
    both = (1, 2, count, dim)
    result.make("register_token", both, (registers,), lambda t: _both_variants(t, count, dim))
    result.make("camera_token", (1, 2, 1, dim), (), lambda: _camera_token(dim))
    result.make("ar_embedder.weight", (dim, 1), (), lambda: torch.zeros(dim, 1))
    result.make("ar_embedder.bias", (dim,), (), lambda: torch.zeros(dim))


def _both_variants(registers: Tensor | None, count: int, dim: int) -> Tensor:
    tokens = torch.zeros(1, 0, dim) if registers is None else registers
    return tokens[:, None].expand(1, 2, count, dim)


def _camera_token(dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(CAMERA_TOKEN_SEED)
    token = torch.empty(1, 2, 1, dim)
    return torch.nn.init.trunc_normal_(token, std=CAMERA_TOKEN_STD, generator=generator)
