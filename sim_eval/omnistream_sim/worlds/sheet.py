# SPDX-License-Identifier: Apache-2.0
"""A picture of random clips: what they look like and what is known about them."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .clips import Worlds, clip_seed
from .config import WorldConfig
from .noise import mix32

_COLUMNS = 2


def contact_sheet(
    config: WorldConfig, *, clips: int = 12, seed: int = 0, size: int = 128, frames: int = 8, rate: float = 10.0
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Clips in rows: first, middle and last picture, then depth, normals, ids and optical flow of the first.

    Returns the sheet [H, W, 3] and the texts of the clips.
    """
    clip = Worlds(config).clips(
        [clip_seed(seed, n) for n in range(clips)],
        frames=frames,
        size=(size, size),
        rate=rate,
        want=("rgb", "depth", "normals", "ids", "flow", "text"),
    )
    assert clip.rgb is not None and clip.depth is not None and clip.normals is not None
    assert clip.ids is not None and clip.flow is not None
    rows = []
    for i in range(clips):
        parts = [clip.rgb[i, t].float() / 255 for t in (0, frames // 2, frames - 1)]
        parts += [depth_colours(clip.depth[i, 0]), 0.5 - 0.5 * clip.normals[i, 0], id_colours(clip.ids[i, 0])]
        parts.append(flow_colours(clip.flow[i, 0]))
        rows.append(torch.cat(parts, 1))
    lines = [
        torch.cat(rows[i : i + math.ceil(clips / _COLUMNS)], 0) for i in range(0, clips, math.ceil(clips / _COLUMNS))
    ]
    tallest = max(line.shape[0] for line in lines)
    lines = [torch.nn.functional.pad(line, (0, 0, 0, 0, 0, tallest - line.shape[0])) for line in lines]
    sheet = torch.cat([torch.nn.functional.pad(line, (0, 0, 0, 4)) for line in lines], 1)
    return (sheet.clamp(0, 1) * 255).to(torch.uint8).numpy(), clip.text


def depth_colours(depth: Tensor) -> Tensor:
    """[H, W, 3] in 0 .. 1: near is light, on a logarithmic scale; nothing is dark blue."""
    known = torch.isfinite(depth)
    log = depth.log()
    values = log[known]
    low, high = (values.min(), values.max()) if values.numel() else (log.new_tensor(0.0), log.new_tensor(1.0))
    grey = 1 - (log - low) / (high - low).clamp_min(1e-3)
    return torch.where(known[..., None], grey[..., None].expand(*depth.shape, 3), torch.tensor([0.0, 0.0, 0.25]))


def id_colours(ids: Tensor) -> Tensor:
    """[H, W, 3] in 0 .. 1: a strong colour per id, black for nothing."""
    h = mix32(ids.to(torch.int32) * 7919 + 17)
    colour = torch.stack([((h >> shift) & 255).float() / 255 for shift in (0, 8, 16)], -1)
    return torch.where(ids[..., None] > 0, 0.2 + 0.8 * colour, 0.0)


def flow_colours(flow: Tensor) -> Tensor:
    """[H, W, 3] in 0 .. 1: direction is hue, length (against the longest of most pixels) is strength."""
    length = flow.norm(dim=-1).nan_to_num(0.0)
    longest = torch.quantile(length.flatten(), 0.98).clamp_min(1e-3)
    angle = torch.atan2(flow[..., 1], flow[..., 0]).nan_to_num(0.0)
    strength = (length / longest).clamp(0, 1)[..., None]
    hue = torch.stack([0.5 + 0.5 * torch.cos(angle + shift) for shift in (0.0, -2.094, 2.094)], -1)
    return 1 - strength * (1 - hue)
