# SPDX-License-Identifier: Apache-2.0
"""A world with known answers: a wall with a disc before a moving camera, exact depth at every pixel. A live source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from omnistream_training.data.batch import ClipBatch


def rotation(axis: int, angle: float) -> Tensor:
    """[3, 3] about x, y or z (0, 1, 2)."""
    c, s = math.cos(angle), math.sin(angle)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    r = torch.eye(3, dtype=torch.float64)
    r[i, i] = r[j, j] = c
    r[i, j], r[j, i] = -s, s
    return r


def pose(turn: Tensor, at: Sequence[float]) -> Tensor:
    """T_world_camera [4, 4]."""
    out = torch.eye(4, dtype=torch.float64)
    out[:3, :3], out[:3, 3] = turn, torch.tensor(at, dtype=torch.float64)
    return out


def intrinsics(size: tuple[int, int], focal: float = 0.9) -> Tensor:
    """K [3, 3]; `focal` in image widths, principal point in the middle."""
    h, w = size
    return torch.tensor([[focal * w, 0, (w - 1) / 2], [0, focal * w, (h - 1) / 2], [0, 0, 1.0]], dtype=torch.float64)


def plane_depth(poses: Tensor, K: Tensor, size: tuple[int, int], distance: float) -> Tensor:
    """z-depth [T, H, W] of the plane z = `distance` of the world, NaN where the ray does not meet it."""
    v, u = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], -1) @ torch.linalg.inv(K).T
    turned = torch.einsum("tij,hwj->thwi", poses[:, :3, :3], rays)
    depth = (distance - poses[:, 2, 3])[:, None, None] / turned[..., 2]
    return torch.where(turned[..., 2] > 1e-6, depth, torch.nan)


def plane_batch(poses: Tensor, size: tuple[int, int] = (32, 48), distance: float = 2.0) -> ClipBatch:
    """One clip [1, T] of the plane, grey pictures."""
    K = intrinsics(size)
    return ClipBatch(
        images=torch.full((1, len(poses), 3, *size), 0.5),
        depth=plane_depth(poses, K, size, distance)[None].float(),
        T_world_camera=poses[None].float(),
        K=K[None].float(),
        times=torch.arange(len(poses), dtype=torch.float64)[None],
    )


class Planes:
    """A renderer in the sense of `omnistream_training.data.live`: planes at 1 to 4 m, sideways motion."""

    def __init__(self, break_at: str = "", variety: str = "") -> None:
        """break_at: a seed whose clip has a path beyond all numbers. variety: only so many different clips."""
        self._break_at = int(break_at) if break_at else None
        self._variety = int(variety) if variety else None

    def clips(
        self, seeds: Sequence[int], *, frames: int, size: tuple[int, int], rate: float, device: str
    ) -> SimpleNamespace:
        """See `omnistream_training.data.live`."""
        parts = [self._clip(seed, frames, size, rate) for seed in seeds]
        return SimpleNamespace(**{k: torch.stack([part[k] for part in parts]).to(device) for k in parts[0]})

    def _clip(self, seed: int, frames: int, size: tuple[int, int], rate: float) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(seed if self._variety is None else seed % self._variety)
        distance, speed = (float(x) for x in torch.rand(2, generator=draw))
        at = [[speed * t / rate, 0.0, 0.0] for t in range(frames)]
        poses = torch.stack([pose(torch.eye(3, dtype=torch.float64), p) for p in at])
        K = intrinsics(size)
        depth = plane_depth(poses, K, size, 1 + 3 * distance)
        d = 1 + 3 * distance
        v, u = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in size), indexing="ij")
        x, y = u / float(K[0, 0]) * d + torch.tensor(at)[:, :1, None], v / float(K[1, 1]) * d
        disc = (x**2 + y**2 < 0.3**2).float() * 200  # a white disc of 30 cm: the nearer, the larger
        rgb = (disc + 25)[..., None].expand(frames, *size, 3).to(torch.uint8)
        if seed == self._break_at:
            depth = torch.full_like(depth, torch.nan)
            poses[:, 0, 3] = torch.arange(frames) * 3e38 / frames  # finite, and its sum over the picture is not
        return {"rgb": rgb, "depth": depth.float(), "T_world_camera": poses.float(), "K": K.float()}
