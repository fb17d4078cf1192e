# SPDX-License-Identifier: Apache-2.0
"""The MLP that turns the query's state into a chunk of actions: two branches, movement and gripper (VLM4VLA)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from omnistream.policy.config import HeadConfig


class ActionHead(nn.Module):
    """[B, dim] -> arm [B, chunk, arm] in (-1, 1) and gripper logits [B, chunk, grippers] (positive: open)."""

    def __init__(self, dim: int, chunk: int, arm: int, grippers: int, config: HeadConfig) -> None:
        super().__init__()
        self.chunk, self.dims = chunk, (arm, grippers)
        half = max(dim // 2, 1)
        self.trunk = nn.Sequential(nn.Linear(dim, half), nn.ReLU(), nn.Linear(half, config.hidden))
        widths = (config.hidden, *config.widths)
        self.arm = _branch(widths, chunk * arm)
        self.gripper = _branch(widths, chunk * grippers) if grippers else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        arm, grippers = self.dims
        moves = torch.tanh(self.arm(x)).view(-1, self.chunk, arm)
        if self.gripper is None:
            return moves, moves.new_zeros(len(moves), self.chunk, 0)
        return moves, self.gripper(x).view(-1, self.chunk, grippers)


def _branch(widths: Sequence[int], out: int) -> nn.Sequential:
    """Linear-ReLU from each width to the next, the last one included, and a linear layer to `out`."""
    layers: list[nn.Module] = [nn.ReLU()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out))
