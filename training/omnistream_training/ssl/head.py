# SPDX-License-Identifier: Apache-2.0
"""Projection head: features to scores of prototypes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Three layers with GELU to a bottleneck on the unit sphere, then prototypes without bias (DINO's head)."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Linear(bottleneck, prototypes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @staticmethod
    def matrix_size(dim: int, hidden: int, bottleneck: int, prototypes: int) -> int:
        """Entries of its matrices, each of which multiplies a sample once."""
        return dim * hidden + hidden * hidden + hidden * bottleneck + bottleneck * prototypes

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> logits [..., prototypes], in float32 under autocast too: temperatures are hundredths."""
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(self.prototypes.weight.dtype)
            return self.prototypes(F.normalize(self.mlp(wide), dim=-1, eps=1e-6))
