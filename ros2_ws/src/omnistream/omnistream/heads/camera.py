# SPDX-License-Identifier: Apache-2.0
"""Camera head: the camera token becomes translation, rotation and field of view (paper section 3.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualMLP(nn.Module):
    """x + W2 gelu(W1 norm(x)): no unit of it can fall silent for good, as rectified ones did (docs/training_log.md)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, dim)
        self.fc2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class CameraHead(nn.Module):
    """[n, D] normed camera token -> [n, 9] raw: translation 3, quaternion 4 (x y z w, any length), fov 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(ResidualMLP(dim), ResidualMLP(dim), nn.LayerNorm(dim))
        self.translation = nn.Linear(dim, 3)
        self.quaternion = nn.Linear(dim, 4)
        self.fov = nn.Linear(dim, 2)
        with torch.no_grad():  # an untrained head says "no motion", not a random rotation
            for layer in (self.translation, self.quaternion, self.fov):
                nn.init.trunc_normal_(layer.weight, std=0.02 / math.sqrt(dim))
                nn.init.zeros_(layer.bias)
            self.quaternion.bias[3] = 1

    def forward(self, token: Tensor) -> Tensor:
        x = self.trunk(token)
        return torch.cat([self.translation(x), self.quaternion(x), self.fov(x)], dim=-1)


def split_camera(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[..., 9] raw -> translation [..., 3], unit quaternion x y z w with w >= 0 [..., 4], fov [..., 2].

    The field of view (vertical, horizontal; rad) is pi * sigmoid(raw): always a possible lens, 90 degrees at 0.
    """
    translation, quaternion, fov = raw.split((3, 4, 2), dim=-1)
    unit = F.normalize(quaternion, dim=-1, eps=1e-6)
    return translation, torch.where(unit[..., 3:] < 0, -unit, unit), math.pi * torch.sigmoid(fov)
