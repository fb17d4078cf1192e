# SPDX-License-Identifier: Apache-2.0
"""Dual DPT: four taps of the backbone become an image-like pyramid once, and two fusion chains read it, one for depth
and one for rays (the design of Depth Anything 3, Ranftl et al. 2021 before it; paper section 3.2).

Frames are independent here; n counts them (B * T). Strides below are for patch 16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnistream.model.config import HeadConfig

POSITION_GAIN = 0.1
"""Weight of the position embedding against the features (Depth Anything 3)."""
LEAK = 0.1
"""Slope of the output stages' activation below zero. Of sixteen plain rectifiers ten were silent after 5,000 steps from
nothing (docs/training_log.md); where a residual carries the signal past them, they do no harm."""


class Pyramid(nn.Module):
    """Four lists of patch tokens [n, h*w, D] -> four maps [n, features, ., .] at strides 4, 8, 16 and 32."""

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__()
        first, second, _, fourth = config.projections
        self.norm = nn.LayerNorm(dim)
        self.project = nn.ModuleList(nn.Conv2d(dim, channels, 1) for channels in config.projections)
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
            ]
        )
        self.unify = nn.ModuleList(
            nn.Conv2d(channels, config.features, 3, padding=1, bias=False) for channels in config.projections
        )

    def forward(self, taps: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        levels = []
        for tokens, project, resize, unify in zip(taps, self.project, self.resize, self.unify, strict=True):
            x = project(self.norm(tokens).transpose(1, 2).unflatten(2, grid))
            levels.append(unify(resize(x + POSITION_GAIN * position_map(x))))
        return levels


class Residual(nn.Module):
    """Pre-activated residual unit of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fuse(nn.Module):
    """Add a finer level to what came from the coarser ones, refine, and upsample to the next level's size."""

    def __init__(self, channels: int, coarsest: bool) -> None:
        super().__init__()
        self.lateral = None if coarsest else Residual(channels)
        self.refine = Residual(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, level: Tensor, coarser: Tensor | None, size: tuple[int, int]) -> Tensor:
        x = level if self.lateral is None else self.lateral(level) + coarser
        # The 1x1 convolution commutes with the interpolation and is cheaper before it.
        return F.interpolate(self.out(self.refine(x)), size=size, mode="bilinear", align_corners=False)


class FusionChain(nn.Module):
    """Coarse to fine over the pyramid: [n, features, ., .] at stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(Fuse(channels, coarsest=i == 0) for i in range(4))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        x = None
        for step, index in zip(self.steps, (3, 2, 1, 0), strict=True):
            height, width = levels[index].shape[-2:]
            size = tuple(levels[index - 1].shape[-2:]) if index else (2 * height, 2 * width)
            x = step(levels[index], x, size)
        return x  # type: ignore[return-value]  # four steps always run


class DualDPT(nn.Module):
    """`depth`: [n, 2, H, W] = (log depth, raw confidence) at full resolution. `rays`: [n, 7, H/2, W/2] = (origin 3,
    direction 3, raw confidence)."""

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__()
        half, out = config.features // 2, min(32, config.features // 2)
        self.pyramid = Pyramid(dim, config)
        self.depth_chain = FusionChain(config.features)
        self.depth_in = nn.Conv2d(config.features, half, 3, padding=1)
        self.depth_out = nn.Sequential(nn.Conv2d(half, out, 3, padding=1), nn.LeakyReLU(LEAK), nn.Conv2d(out, 2, 1))
        self.ray_chain = FusionChain(config.features)
        self.ray_out = nn.Sequential(
            nn.Conv2d(config.features, half, 3, padding=1),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(half, half, 3, padding=1),
            nn.LeakyReLU(LEAK),
        )
        self.ray_last = nn.Conv2d(half, 7, 1)

    def forward(
        self, taps: Sequence[Tensor], grid: tuple[int, int], size: tuple[int, int], depth: bool, rays: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """taps: four [n, h*w, D]; size: (H, W) of the frames. A branch that is not wanted is not run (None)."""
        levels = self.pyramid(taps, grid)
        return (
            self._depth(levels, size) if depth else None,
            self._rays(levels) if rays else None,
        )

    def _depth(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        x = F.interpolate(self.depth_in(self.depth_chain(levels)), size=size, mode="bilinear", align_corners=False)
        return self.depth_out(x + POSITION_GAIN * position_map(x))

    def _rays(self, levels: Sequence[Tensor]) -> Tensor:
        x = self.ray_out(self.ray_chain(levels))
        return self.ray_last(x + POSITION_GAIN * position_map(x))


def position_map(like: Tensor) -> Tensor:
    """[1, C, h, w]: sines and cosines of the position in the image, on a diagonal of length 1.

    Keeps the aspect ratio: u, v span the image so that (u, v) at the corner has norm 1. A quarter of the channels each
    carries sin u, cos u, sin v, cos v at geometric frequencies; channels left over by a C not divisible by 4 are zero.
    """
    channels, height, width = like.shape[-3:]
    diagonal = math.hypot(height, width)
    count = channels // 4
    options = {"device": like.device, "dtype": torch.float32}
    v = (2 * torch.arange(height, **options) + 1 - height) / diagonal  # type: ignore[call-overload]
    u = (2 * torch.arange(width, **options) + 1 - width) / diagonal  # type: ignore[call-overload]
    frequencies = 100.0 ** (torch.arange(count, **options) / max(count, 1))  # type: ignore[call-overload]
    at_u, at_v = ((side[:, None] * frequencies).T for side in (u, v))
    across = torch.cat([at_u.sin(), at_u.cos()])[:, None].expand(-1, height, -1)
    down = torch.cat([at_v.sin(), at_v.cos()])[:, :, None].expand(-1, -1, width)
    return F.pad(torch.cat([across, down]), (0, 0, 0, 0, 0, channels - 4 * count))[None].to(like.dtype)
