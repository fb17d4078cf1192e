# SPDX-License-Identifier: Apache-2.0
"""3-D rotary position embedding: tables of cos and sin, computed on the host in float64.

Float64 because time is absolute and unbounded: at frame 1e6 float32 angles are off by 1e-3, float16 is lost at 1e4.

A head of width d has periods p_j = base^(4j/d), j < d/4, and rotates channel i together with channel i + d/2. Of the
first d/2 channels a quarter, those with i % 4 == 3, carries time with the d/8 shortest periods; the others carry y or x
as DINOv3 does. Coordinates: y = 2(r+0.5)/h - 1, x likewise, t = n/16; angle = 2 pi * coordinate / period.
Prefix tokens (CLS, camera, registers) are not rotated.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from omnistream.model.config import FRAMES_PER_TIME_UNIT, BackboneConfig


class Rope(NamedTuple):
    """`cos`, `sin`: [B or 1, 1, T * tokens, head_dim] float32 tables for a run of frames; prefix rows are (1, 0)."""

    cos: Tensor
    sin: Tensor


def rope_tables(config: BackboneConfig, grid: tuple[int, int], prefix: int, times: Tensor) -> Rope:
    """Tables of frames at `times` ([T] or [B, T] float64), each of `prefix` tokens and `grid` = (h, w) patches."""
    cos, sin = (table.clone() for table in _spatial_tables(config, grid, prefix))  # [tokens, head_dim] float64
    times = torch.atleast_2d(times.to("cpu", torch.float64))
    batch, frames = times.shape
    cos = cos.expand(batch, frames, -1, -1).clone()
    sin = sin.expand(batch, frames, -1, -1).clone()
    if config.temporal_rope:
        channels, periods = _time_channels(config)
        angle = 2 * math.pi * (times / FRAMES_PER_TIME_UNIT)[..., None] / periods  # [B, T, head_dim/4]
        cos[:, :, prefix:, channels] = angle.cos()[:, :, None]
        sin[:, :, prefix:, channels] = angle.sin()[:, :, None]
    shape = (batch, 1, frames * cos.shape[2], config.head_dim)
    return Rope(cos.reshape(shape).float(), sin.reshape(shape).float())


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Rotate x [B, heads, tokens, head_dim], in the tables' dtype; pairs are (i, i + head_dim/2). Comes back in x's."""
    first, second = x.chunk(2, dim=-1)
    return (x * rope.cos + torch.cat((-second, first), dim=-1) * rope.sin).to(x.dtype)


def _periods(config: BackboneConfig) -> Tensor:
    quarter = config.head_dim // 4
    return config.rope_base ** (torch.arange(quarter, dtype=torch.float64) / quarter)


def _time_channels(config: BackboneConfig) -> tuple[Tensor, Tensor]:
    channels = torch.arange(3, config.head_dim, 4)
    half = config.head_dim // 8
    return channels, _periods(config)[torch.arange(len(channels)) % half]


@functools.lru_cache(maxsize=16)
def _spatial_tables(config: BackboneConfig, grid: tuple[int, int], prefix: int) -> tuple[Tensor, Tensor]:
    h, w = grid
    y = 2 * (torch.arange(h, dtype=torch.float64) + 0.5) / h - 1
    x = 2 * (torch.arange(w, dtype=torch.float64) + 0.5) / w - 1
    periods = _periods(config)
    angle_y = (2 * math.pi * y[:, None] / periods)[:, None].expand(h, w, -1).reshape(h * w, -1)
    angle_x = (2 * math.pi * x[:, None] / periods)[None].expand(h, w, -1).reshape(h * w, -1)
    order = (
        (angle_y, angle_x, angle_y, angle_x) if config.rope_layout == "rotary" else (angle_y, angle_y, angle_x, angle_x)
    )
    angles = torch.cat([torch.zeros(prefix, config.head_dim, dtype=torch.float64), torch.cat(order, dim=-1)])
    return angles.cos(), angles.sin()
