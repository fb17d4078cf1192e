# SPDX-License-Identifier: Apache-2.0
"""Batch attention of a whole clip under a frame visibility: the training path, and the yardstick of streaming."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omnistream.model.layers import Attend

QUERY_FRAMES = 4
"""Query frames attended to at once. Few frames skip most masked keys and keep the mask small; one has no mask at all,
but many small kernels. Four was fastest on CPU for T = 16."""


def clip_attention(visible: Tensor, tokens: int) -> Attend:
    """Attention over T frames of `tokens` tokens each, where frame i sees frame j iff `visible[i, j]` ([T, T] bool).

    Inside a frame all tokens see each other. Every frame must see at least itself.
    """
    frames = len(visible)
    plan = [_chunk(visible, start, min(start + QUERY_FRAMES, frames)) for start in range(0, frames, QUERY_FRAMES)]
    masks: dict[int, Tensor] = {}  # token masks by first query frame, expanded once for all layers

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        outputs = []
        for start, stop, keys, seen in plan:
            if seen is not None and start not in masks:
                masks[start] = seen.to(q.device).repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
            k_seen, v_seen = _take(k, keys, tokens), _take(v, keys, tokens)
            chunk = q[:, :, start * tokens : stop * tokens]
            outputs.append(_attention(chunk, k_seen, v_seen, masks.get(start)))
        return torch.cat(outputs, dim=2)

    return attend


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention, written out where a CPU trains: the backward pass of the fused kernel is three times slower there."""
    if q.device.type != "cpu" or not q.requires_grad:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


def _chunk(visible: Tensor, start: int, stop: int) -> tuple[int, int, list[int], Tensor | None]:
    """Query frames [start, stop), the key frames any of them sees, and who sees which (None: all see all)."""
    rows = visible[start:stop]
    keys = rows.any(0).nonzero().flatten().tolist()
    seen = rows[:, keys]
    return start, stop, keys, None if bool(seen.all()) else seen


def _take(x: Tensor, frames: list[int], tokens: int) -> Tensor:
    first, last = frames[0], frames[-1]
    if last - first + 1 == len(frames):
        return x[:, :, first * tokens : (last + 1) * tokens]
    return torch.cat([x[:, :, f * tokens : (f + 1) * tokens] for f in frames], dim=2)
