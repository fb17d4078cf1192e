# SPDX-License-Identifier: Apache-2.0
"""Attention of one frame over the cached keys: the largest cost of a step, so it is chosen per machine."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

WORKSPACE_BYTES = 8 << 20
"""Largest table of logits held at once: as many heads as fit, or part of the queries of one. Smaller tables make small
products, larger ones leave the processor's cache between the passes; 8 MB was best from 1 to 64 cached frames."""


class CacheAttention:
    """softmax(q k^T / sqrt(d)) v over keys that are all valid: no mask. Holds a workspace, so one per stream."""

    def __init__(self) -> None:
        self._workspace = torch.empty(0, dtype=torch.bfloat16)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, fresh: slice) -> Tensor:
        """q [B, H, N, d], k and v [B, H, S, d]; `fresh`: where in S the queries' own frame is. -> [B, H, N, d]."""
        if q.dtype is torch.bfloat16 and q.device.type == "cpu":
            return self._bfloat16_on_cpu(q, k, v, fresh)
        return F.scaled_dot_product_attention(q, k, v)

    def _bfloat16_on_cpu(self, q: Tensor, k: Tensor, v: Tensor, fresh: slice) -> Tensor:
        """Two matrix products and a softmax, 2.5 times as fast as torch's fused kernel and as exact.

        The fused kernel (torch 2.13) does not reach the CPU's bfloat16 units; plain matrix products do. But they round
        the logits to bfloat16, and a logit of 50 is then off by 0.1, a weight by 10 %. Softmax does not mind a constant
        per query, so each query's largest logit within its own frame, a good guess of its largest of all, is
        subtracted before the rounding: in the product's float32 accumulator, as its summand. What matters is then near
        0, where bfloat16 is fine.
        """
        batch, heads, queries, width = q.shape
        scale = width**-0.5
        # Token-major, as the projection after it reads it: its transpose and flatten are then free.
        out = torch.empty(batch, queries, heads, width, dtype=q.dtype)
        for b in range(batch):
            keys, result = k[b].transpose(1, 2), out[b].transpose(0, 1)
            own = keys[:, :, fresh]
            for some, rows, logits in self._parts(heads, queries, k.shape[2]):
                query = q[b, some, rows]
                guess = (query @ own[some]).amax(-1, keepdim=True).mul_(-scale)
                torch.baddbmm(guess.expand_as(logits), query, keys[some], alpha=scale, out=logits)
                torch.softmax(logits, dim=-1, out=logits)
                result[some, rows] = logits @ v[b, some]
        return out.transpose(1, 2)

    def _parts(self, heads: int, queries: int, keys: int) -> Iterator[tuple[slice, slice, Tensor]]:
        """Slices of heads and of queries whose table of logits fits into the workspace, and that table."""
        most = WORKSPACE_BYTES // 2
        rows = max(1, min(queries, most // keys))
        group = max(1, min(heads, most // (rows * keys))) if rows == queries else 1
        if self._workspace.numel() < group * rows * keys:
            self._workspace = torch.empty(group * rows * keys, dtype=torch.bfloat16)
        for head in range(0, heads, group):
            for row in range(0, queries, rows):
                shape = (min(group, heads - head), min(rows, queries - row), keys)
                table = self._workspace[: torch.Size(shape).numel()].view(shape)
                yield slice(head, head + group), slice(row, row + rows), table
