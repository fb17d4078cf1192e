# SPDX-License-Identifier: Apache-2.0
"""What both namings of DINOv3 share: which tokens of ours DINOv3 does not have, and where they start.

DINOv3 has one set of register tokens; ours start as two equal sets (first frame, later frames). It has no camera token
and no aspect-ratio embedding: the token starts as a truncated normal of std 0.02 with a fixed seed, the embedding as
zeros, so that the same file always gives the same model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnistream.model.config import BackboneConfig
from omnistream.weights.keymap import KeyMap, Slot

CAMERA_TOKEN_SEED = 0
CAMERA_TOKEN_STD = 0.02


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
