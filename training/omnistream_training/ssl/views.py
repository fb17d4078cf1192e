# SPDX-License-Identifier: Apache-2.0
"""Multi-crop: large and small views of a clip. A view cuts, mirrors and tints every frame of its clip alike.

Motion inside a view is then the camera's and the things' own. Draws are made on the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from omnistream_training.data.augment import LUMA
from omnistream_training.ssl.config import GLOBALS, SslConfig
from omnistream_training.ssl.masks import draw_masks

ASPECT = (3 / 4, 4 / 3)
"""Width over height of what a crop covers, before it is made square."""
FLIP, JITTER, GREY, SOLARISE = 0.5, 0.8, 0.2, 0.2
BLUR = (1.0, 0.1, 0.5)
"""Probabilities: first large crop, second large crop, small crops (DINOv3). Only the second large crop is solarised."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1


@dataclass(frozen=True, kw_only=True)
class Views:
    """What a step of self-supervision sees of B clips of T frames, images in 0 .. 1."""

    large: Tensor
    """[2, B, T, 3, G, G]"""
    small: Tensor
    """[L, B, T, 3, S, S]"""
    masks: Tensor
    """[2, B, h, w] bool: patches of the large views that the student does not see."""
    times: Tensor
    """[B, T] float64, host, see `ClipBatch.times`."""

    @property
    def frames(self) -> int:
        """Pictures the student runs on."""
        return (len(self.large) + len(self.small)) * self.times.numel()

    def state(self) -> dict[str, Tensor]:
        """Plain tensors, for a file."""
        return {name: value.cpu() for name, value in vars(self).items()}


def make_views(images: Tensor, times: Tensor, config: SslConfig, patch: int, draw: torch.Generator) -> Views:
    """Views and masks of images [B, T, 3, H, W]; T = 1 is masked as a single picture, more as a clip, in tubes."""
    clips, frames = images.shape[:2]
    large = [_view(images, config.global_size, config.global_scale, i, draw) for i in range(GLOBALS)]
    small = [_view(images, config.local_size, config.local_scale, 2, draw) for _ in range(config.local_crops)]
    side = config.global_size // patch
    empty = images.new_zeros(0, clips, frames, 3, config.local_size, config.local_size)
    return Views(
        large=torch.stack(large),
        small=torch.stack(small) if small else empty,
        masks=draw_masks(config, clips, frames > 1, (side, side), draw).to(images.device),
        times=times,
    )


def _view(images: Tensor, size: int, scale: tuple[float, float], kind: int, draw: torch.Generator) -> Tensor:
    """A crop of every clip [B, T, 3, size, size]. kind: 0, 1 the large ones, 2 a small one."""
    return torch.stack([_crop(clip, size, scale, kind, draw) for clip in images])


def _crop(clip: Tensor, size: int, scale: tuple[float, float], kind: int, draw: torch.Generator) -> Tensor:
    u = torch.rand(16, generator=draw).tolist()
    top, left, h, w = crop_box((clip.shape[-2], clip.shape[-1]), scale, u[:4])
    x = F.interpolate(clip[..., top : top + h, left : left + w], (size, size), mode="bicubic", antialias=True)
    x = x.clamp(0, 1)
    if u[4] < FLIP:
        x = x.flip(-1)
    if u[5] < JITTER:
        x = jitter(x, *(2 * value - 1 for value in u[6:10]))
    if u[10] < GREY:
        x = _luma(x).expand_as(x)
    if u[11] < BLUR[kind]:
        x = _blur(x, 0.1 + 1.9 * u[12])
    if kind == 1 and u[13] < SOLARISE:
        x = torch.where(x >= 0.5, 1 - x, x)
    return x


def crop_box(picture: tuple[int, int], scale: tuple[float, float], u: list[float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a crop inside `picture`. u: four numbers in 0 .. 1: area, aspect, place."""
    height, width = picture
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u[0])
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    ratio = math.exp(low + (high - low) * u[1])
    w = min(width, max(1, round(math.sqrt(area * ratio))))
    h = min(height, max(1, round(math.sqrt(area / ratio))))
    return int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1)), h, w


def jitter(x: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """Colours of [T, 3, H, W] changed alike in all frames; each argument in -1 .. 1, of the largest change."""
    x = (x * (1 + BRIGHTNESS * brightness)).clamp(0, 1)
    mean = _luma(x).mean()
    x = (mean + (x - mean) * (1 + CONTRAST * contrast)).clamp(0, 1)
    grey = _luma(x)
    x = grey + (x - grey) * (1 + SATURATION * saturation)
    # A turn about the grey axis (Rodrigues): hue changes, grey stays.
    angle = 2 * math.pi * HUE * hue
    c, s = math.cos(angle), math.sin(angle) / math.sqrt(3)
    third = (1 - c) / 3
    turn = x.new_tensor([[c + third, third - s, third + s], [third + s, c + third, third - s],
                         [third - s, third + s, c + third]])  # fmt: skip
    return torch.einsum("ij,tjhw->tihw", turn, x).clamp(0, 1)


def _luma(x: Tensor) -> Tensor:
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(-3, keepdim=True)


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian of 9 taps."""
    taps = torch.arange(-4, 5, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    if min(x.shape[-2:]) < 5:
        return x
    x = F.conv2d(F.pad(x, (4, 4, 0, 0), mode="replicate"), kernel[:, :, None, :], groups=3)
    return F.conv2d(F.pad(x, (0, 0, 4, 4), mode="replicate"), kernel[..., None], groups=3)
