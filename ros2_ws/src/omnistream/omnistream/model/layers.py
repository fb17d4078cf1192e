# SPDX-License-Identifier: Apache-2.0
"""The transformer block. It knows nothing of clips, caches or masks: whoever runs it passes `attend`.

Shapes: B batch, N tokens (of one frame or of many), D width, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnistream.model.config import BackboneConfig
from omnistream.model.rope import Rope, rotate

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q, k, v), each [B, H, N, d] and rotated, -> [B, H, N, d]. Decides which keys the queries see."""


class LayerScale(nn.Module):
    """Per-channel gain on a residual branch."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Mlp(nn.Module):
    """Linear, GELU (exact), Linear."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, width)
        self.fc2 = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    """w3(silu(w1 x) * w2 x), as in DINOv3's larger models."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, width)
        self.w2 = nn.Linear(dim, width)
        self.w3 = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class Attention(nn.Module):
    """Multi-head attention with rotary positions; the choice of keys is the caller's."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rope: Rope, layer: int, attend: Attend) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [B, N, 3, H, d]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = attend(layer, rotate(q, rope), rotate(k, rope), v)
        return self.proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm block: x + ls1(attention(norm1(x))), then x + ls2(mlp(norm2(x))).

    The linear layers may be in a narrower dtype than everything else (`narrow_products`): x then stays in the wide one.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attn = Attention(config.dim, config.heads)
        self.ls1 = LayerScale(config.dim, config.layer_scale_init)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.mlp = (Mlp if config.ffn == "mlp" else SwiGLU)(config.dim, config.mlp_width)
        self.ls2 = LayerScale(config.dim, config.layer_scale_init)

    def forward(self, x: Tensor, rope: Rope, layer: int, attend: Attend) -> Tensor:
        narrow = self.attn.qkv.weight.dtype
        x = x + self.ls1(self.attn(self.norm1(x).to(narrow), rope, layer, attend))
        return x + self.ls2(self.mlp(self.norm2(x).to(narrow)))


def narrow_products(module: nn.Module, dtype: torch.dtype) -> None:
    """Put all linear layers and convolutions in `dtype`, and with them keys and values; the rest goes to float32.

    The residual stream, the norms and the learned tokens then stay exact. Most of an all-bfloat16 ViT's error, four
    fifths in a trained one, comes from rounding the stream after each block; in float32 that costs no more time.
    """
    module.float()
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.to(dtype)
