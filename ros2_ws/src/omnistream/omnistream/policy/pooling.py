# SPDX-License-Identifier: Apache-2.0
"""Attention pooling that looks where it is told: a condition modulates the patches (FiLM), a few heads then choose
places and return what is there and where that is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnistream.policy.config import PoolingConfig


def patch_centres(grid: tuple[int, int]) -> Tensor:
    """[rows * columns, 2]: x and y of the patches' centres, -1 (left, top) to 1, in the order of patch tokens."""
    rows, columns = grid
    y, x = ((torch.arange(n, dtype=torch.float32) + 0.5) / n * 2 - 1 for n in (rows, columns))
    return torch.stack([x.repeat(rows), y.repeat_interleave(columns)], -1)


class ConditionedPooling(nn.Module):
    """Patches [B, N, D] and Q conditions [B, Q, C] -> [B, Q, heads * (values + 2)]."""

    centres: Tensor

    def __init__(self, dim: int, condition: int, grid: tuple[int, int], config: PoolingConfig) -> None:
        super().__init__()
        width = config.width
        self.inside = nn.Linear(dim + 2, width)
        self.film = nn.Linear(condition, 2 * width)
        self.mix = nn.Linear(width, width)
        self.score = nn.Linear(width, config.heads)
        self.value = nn.Linear(width, config.values)
        self.register_buffer("centres", patch_centres(grid), persistent=False)

    def forward(self, patches: Tensor, conditions: Tensor) -> Tensor:
        centres = self.centres.expand(len(patches), -1, -1)
        scale, shift = self.film(conditions)[:, :, None].chunk(2, -1)
        x = self.inside(torch.cat([patches, centres], -1))[:, None]  # once for all conditions
        x = F.relu(x * (1 + scale) + shift)
        x = F.relu(self.mix(x))
        weights = self.score(x).softmax(2)
        seen = torch.cat([self.value(x), centres[:, None].expand(*x.shape[:3], 2)], -1)
        return torch.einsum("bqnk,bqnd->bqkd", weights, seen).flatten(2)
