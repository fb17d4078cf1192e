# SPDX-License-Identifier: Apache-2.0
"""Augmentations of whole clips: one draw per clip, the same for all its frames; only sensor noise differs.

Geometry stays exact: a mirrored picture comes with mirrored poses and intrinsics. Own operations in torch, on the
batch's device; torchvision cannot be imported beside every CPU build of torch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from omnistream.errors import ConfigError
from omnistream_training.data.batch import ClipBatch

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""
LONGEST_REST = 20_000.0
"""Frames; eleven minutes at 30 Hz. Drawn log-uniformly from 1."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Probabilities per clip and strengths. All 0 is no augmentation."""

    flip: float = 0.5
    """Probability of a left-right mirror."""
    reverse: float = 0.3
    """Probability of playing the clip backwards."""
    brightness: float = 0.2
    """Gain up to this far from 1."""
    contrast: float = 0.2
    """Contrast up to this far from 1, about the clip's mean."""
    saturation: float = 0.3
    """Saturation up to this far from 1."""
    tint: float = 0.1
    """Gain of each colour channel up to this far from 1 (white balance)."""
    gamma: float = 0.2
    """Exponent exp(+-gamma)."""
    blur: float = 0.2
    """Probability of a Gaussian blur, sigma 0.3 to 1 pixel."""
    noise: float = 0.02
    """Largest standard deviation of sensor noise, images being 0 .. 1."""
    away: float = 0.0
    """Probability that a clip goes on long after its first frame, as if the camera had rested: a stream that keeps its
    first frame (sink_window) sees it from ever further away, and a clip ends after seconds."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            limit = 1.0 if field.name in ("flip", "reverse", "blur", "away") else 0.9
            if not 0 <= value <= limit:
                raise ConfigError(f"augment.{field.name} is {value}; expected 0 to {limit:g}")


def augment(batch: ClipBatch, config: AugmentConfig, seed: int) -> ClipBatch:
    """Augmented batch; deterministic in `seed`. All draws are made on the host, so that no device is waited for."""
    host = torch.Generator().manual_seed(seed)
    clips = len(batch)

    def draw() -> Tensor:
        return torch.rand(clips, generator=host)

    batch = flip(batch, draw() < config.flip)
    batch = reverse(batch, draw() < config.reverse)
    device = batch.images.device
    spans = [(2 * draw() - 1) for _ in range(7)]
    brightness, contrast, saturation, gamma, *tints = (x.to(device)[:, None, None, None, None] for x in spans)
    tint = torch.cat(tints, 2)
    x = batch.images
    x = x * (1 + config.brightness * brightness) * (1 + config.tint * tint)
    mean = x.mean((1, 2, 3, 4), keepdim=True)
    x = mean + (x - mean) * (1 + config.contrast * contrast)
    grey = (x * torch.tensor(LUMA, device=device)[:, None, None]).sum(2, keepdim=True)
    x = (grey + (x - grey) * (1 + config.saturation * saturation)).clamp(0, 1)
    x = x ** torch.exp(config.gamma * gamma)
    x = _blur(x, draw() < config.blur, 0.3 + 0.7 * draw())
    if config.noise:
        level = (config.noise * draw() * draw()).to(device)[:, None, None, None, None]
        on_device = torch.Generator(device).manual_seed(seed)
        x = x + level * torch.randn(x.shape, generator=on_device, device=device)
    batch = dataclasses.replace(batch, images=x.clamp(0, 1))
    return away(batch, torch.where(draw() < config.away, LONGEST_REST ** draw(), 0.0)) if config.away else batch


def flip(batch: ClipBatch, which: Tensor) -> ClipBatch:
    """Mirror clips left to right where `which` [B] (bool, host) holds: a camera at the mirrored place saw that."""
    on = which.to(batch.images.device)
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0])).to(batch.T_world_camera)
    K = batch.K.clone()
    K[:, 0, 2] = batch.images.shape[-1] - 1 - K[:, 0, 2]
    return dataclasses.replace(
        batch,
        images=torch.where(_like(on, batch.images), batch.images.flip(-1), batch.images),
        depth=torch.where(_like(on, batch.depth), batch.depth.flip(-1), batch.depth),
        T_world_camera=torch.where(
            _like(on, batch.T_world_camera), mirror @ batch.T_world_camera @ mirror, batch.T_world_camera
        ),
        K=torch.where(_like(on, K), K, batch.K),
        place=batch.place & ~on,  # the mirror image of a place is another one
    )


def reverse(batch: ClipBatch, which: Tensor) -> ClipBatch:
    """Play clips backwards where `which` [B] (bool, host) holds."""
    on = which.to(batch.images.device)
    times = (batch.times[:, -1:] - batch.times).flip(1)
    return dataclasses.replace(
        batch,
        times=torch.where(which[:, None], times, batch.times),
        **{
            name: torch.where(_like(on, value), value.flip(1), value)
            for name, value in (
                ("images", batch.images),
                ("depth", batch.depth),
                ("T_world_camera", batch.T_world_camera),
            )
        },
    )


def away(batch: ClipBatch, rest: Tensor) -> ClipBatch:
    """Let clips go on `rest` [B] (host) frames later, rounded down, after their first frame."""
    times = batch.times.clone()
    times[:, 1:] += rest.to(times.dtype).floor()[:, None]
    return dataclasses.replace(batch, times=times)


def _like(mask: Tensor, value: Tensor) -> Tensor:
    return mask.reshape(-1, *(1,) * (value.ndim - 1))


def _blur(images: Tensor, which: Tensor, sigma: Tensor) -> Tensor:
    """Separable 5-tap Gaussian of each clip's own sigma [B]."""
    taps = torch.arange(-2, 3, dtype=torch.float32)
    kernel = torch.exp(-(taps**2) / (2 * sigma[:, None] ** 2)) / (sigma[:, None] * math.sqrt(2 * math.pi))
    kernel = kernel / kernel.sum(1, keepdim=True)
    kernel = torch.where(which[:, None], kernel, (taps == 0).float()).to(images.device)
    b, t, c, h, w = images.shape
    # One group per clip: the clip's frames and channels are the batch of its own convolution.
    x = images.reshape(b, t * c, h, w).transpose(0, 1)
    x = F.conv2d(F.pad(x, (2, 2, 0, 0), mode="replicate"), kernel[:, None, None, :], groups=b)
    x = F.conv2d(F.pad(x, (0, 0, 2, 2), mode="replicate"), kernel[:, None, :, None], groups=b)
    return x.transpose(0, 1).reshape(b, t, c, h, w)
