# SPDX-License-Identifier: Apache-2.0
"""The height field: a sum of sine waves, met by a bounded march and closed by bisection.

The surface stays inside a slab of known height, so a ray is only followed through that slab; there the march takes
steps that grow with distance, and the first sign change is refined. Height and slope are analytic, so depth and
normals are those of the smooth surface. All functions take the terrain columns of a frame (`TERRAIN_COLUMNS`) in a
dict `c`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .vec import Vec

WAVES = 5
STEPS = 40
REFINE = 12
TERRAIN_COLUMNS = (
    *(f"w{i}{j}" for i in range(3) for j in range(4)),  # camera -> world
    "base",  # mean height
    "top",  # highest possible height
    *(f"{name}{k}" for k in range(WAVES) for name in ("amplitude", "kx", "ky", "phase")),
)
Columns = dict[str, Tensor]


@dataclass(frozen=True)
class March:
    """State of the march of every ray, all [F, P]."""

    begin: Tensor  # where the ray enters the slab
    leave: Tensor  # where it leaves it
    near: Tensor  # the last step
    low: Tensor  # above the surface
    high: Tensor  # below the surface; infinite while no crossing is found


def height(c: Columns, x: Tensor, y: Tensor) -> Tensor:
    """World height at (x, y)."""
    z = c["base"] + torch.zeros_like(x)
    for k in range(WAVES):
        z = z + c[f"amplitude{k}"] * torch.sin(c[f"kx{k}"] * x + c[f"ky{k}"] * y + c[f"phase{k}"])
    return z


def slope(c: Columns, x: Tensor, y: Tensor) -> Vec:
    """Upward normal (not of unit length) in world coordinates."""
    sx, sy = torch.zeros_like(x), torch.zeros_like(x)
    for k in range(WAVES):
        s = c[f"amplitude{k}"] * torch.cos(c[f"kx{k}"] * x + c[f"ky{k}"] * y + c[f"phase{k}"])
        sx, sy = sx + c[f"kx{k}"] * s, sy + c[f"ky{k}"] * s
    return -sx, -sy, torch.ones_like(x)


def _below(c: Columns, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Is the point t of the camera ray (x, y, 1) below the surface?"""
    px, py, pz = (t * (c[f"w{i}0"] * x + c[f"w{i}1"] * y + c[f"w{i}2"]) + c[f"w{i}3"] for i in range(3))
    return pz < height(c, px, py)


def start(c: Columns, x: Tensor, y: Tensor, t_max: Tensor) -> March:
    """Where the camera rays (x, y, 1) enter and leave the slab; t_max: nothing beyond is of interest."""
    inverse = torch.reciprocal(c["w20"] * x + c["w21"] * y + c["w22"]).clamp(-1e6, 1e6)
    a, b = (c["top"] - c["w23"]) * inverse, (2 * c["base"] - c["top"] - c["w23"]) * inverse
    begin = torch.minimum(a, b).clamp_min(0.0)
    end = torch.minimum(torch.maximum(a, b), t_max.clamp_max(1e3))
    return March(begin, end, begin, begin, torch.full_like(begin, torch.inf))


def step(c: Columns, x: Tensor, y: Tensor, m: March, fraction: Tensor | float) -> March:
    """One step: to `fraction` (0..1] of the way through the slab; fractions grow."""
    t = m.begin + (m.leave - m.begin) * (0.35 * fraction + 0.65 * fraction * fraction)
    first = _below(c, x, y, t) & (m.high == torch.inf) & (m.leave > m.begin)
    return March(m.begin, m.leave, t, torch.where(first, m.near, m.low), torch.where(first, t, m.high))


def refine(c: Columns, x: Tensor, y: Tensor, m: March) -> March:
    """One bisection."""
    middle = 0.5 * (m.low + m.high)
    below = _below(c, x, y, middle)
    return March(m.begin, m.leave, m.near, torch.where(below, m.low, middle), torch.where(below, middle, m.high))


def finish(m: March) -> Tensor:
    """Depth of the crossing, `inf` where there is none."""
    return torch.where(m.high < torch.inf, 0.5 * (m.low + m.high), torch.inf)


def hit(c: Columns, x: Tensor, y: Tensor, t_max: Tensor) -> Tensor:
    """First t at which the camera rays (x, y, 1) go below the surface, `inf` if not before t_max."""
    m = start(c, x, y, t_max)
    for i in range(1, STEPS + 1):
        m = step(c, x, y, m, i / STEPS)
    for _ in range(REFINE):
        m = refine(c, x, y, m)
    return finish(m)
