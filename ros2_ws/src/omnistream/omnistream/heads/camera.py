# SPDX-License-Identifier: Apache-2.0
"""Camera head: the camera token becomes translation, rotation and field of view (paper section 3.2).

The paper's pose is relative to the first frame. Ours is too, but the network need not do that subtraction: it places
every camera, the first one as well, in a frame of its own choosing, and the first one's inverse is applied outside
(`in_first_camera`, a StreamSession). Where it knows the place, that frame can be the place's, and localising one
picture is learnt long before comparing two is; elsewhere it can be the first camera's. Frame 0 is the identity exactly.
"""

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


def lens_error(predicted: Tensor, known: Tensor) -> Tensor:
    """Log of predicted over known focal length, mean of both axes. Fields of view [..., 2] in rad -> [...].

    Focal length and depth explain a picture together: it looks almost the same from twice as far through a lens twice
    as long. A network that took the lens for longer than it is takes everything for that much farther, so with a known
    lens depth is to be divided by exp of this (compare the canonical camera of Metric3D, arXiv 2307.10984).
    """
    return (torch.tan(known / 2).log() - torch.tan(predicted / 2).log()).mean(-1)


def in_first_camera(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[B, T, 9] raw of whole clips -> translation [B, T, 3], unit quaternion [B, T, 4] with w >= 0, fov [B, T, 2]: the
    pose of each camera in the first one of its clip."""
    translation, quaternion, fov = split_camera(raw)
    back = _conjugate(quaternion[:, :1])
    turned = _multiply(back, quaternion)
    return (
        _rotate(back, translation - translation[:, :1]),
        torch.where(turned[..., 3:] < 0, -turned, turned),
        fov,
    )


def relative_quaternion(raw: Tensor) -> Tensor:
    """[B, T, 9] raw of whole clips -> [B, T, 4]: rotation of each camera in the first one, as long as the two raw
    quaternions make it. A loss on it keeps their length at 1; free to grow, it silences rotation."""
    quaternion = raw[..., 3:7]
    return _multiply(_conjugate(quaternion[:, :1]), quaternion)


def rays_in_first_camera(rays: Tensor, raw: Tensor) -> Tensor:
    """[B, T, h, w, 6] rays in the network's own frame, with the raw cameras of their clips -> in the first camera."""
    translation, quaternion, _ = split_camera(raw[:, :1])
    back = _conjugate(quaternion)[:, :, None, None]
    origin, direction = rays.split(3, dim=-1)
    return torch.cat([_rotate(back, origin - translation[:, :, None, None]), _rotate(back, direction)], -1)


def _conjugate(q: Tensor) -> Tensor:
    return torch.cat([-q[..., :3], q[..., 3:]], -1)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product, x y z w; broadcasts."""
    a, b = torch.broadcast_tensors(a, b)
    (u, s), (v, t) = (a[..., :3], a[..., 3:]), (b[..., :3], b[..., 3:])
    return torch.cat([s * v + t * u + torch.linalg.cross(u, v), s * t - (u * v).sum(-1, keepdim=True)], -1)


def _rotate(q: Tensor, v: Tensor) -> Tensor:
    """Vectors [..., 3] turned by unit quaternions [..., 4]; broadcasts."""
    u, v = torch.broadcast_tensors(q[..., :3], v)
    twice = 2 * torch.linalg.cross(u, v)
    return v + q[..., 3:] * twice + torch.linalg.cross(u, twice)
