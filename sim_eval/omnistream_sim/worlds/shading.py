# SPDX-License-Identifier: Apache-2.0
"""Light on a surface: area lights with shadows, ambient light with occlusion, highlights, camera response.

Everything here is arithmetic per ray, in the camera frame of its picture; who asks which rays are blocked is the
business of the renderers. Random numbers come from a hash of pixel and frame, so pictures are reproducible and
neighbouring pixels differ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .noise import mix32, unit
from .vec import Vec, add, dot, mix, normalise, scale, sub

MAX_LIGHTS = 2
AMBIENT_REACH = 0.45
"""Metres within which an object darkens its surroundings."""
LEAVE = 2e-3
"""Metres by which a shadow ray leaves its surface."""

FRAME_COLUMNS = (
    *(f"{name}{i}" for name in ("up", "ambient_up", "ambient_down", "zenith", "exposure") for i in range(3)),
    *(f"{name}{light}{i}" for light in range(MAX_LIGHTS) for name in ("light", "tint") for i in range(3)),
    *(f"radius{light}" for light in range(MAX_LIGHTS)),
    "pixel",  # width of a pixel at one metre
    *(f"r{i}{j}" for i in range(3) for j in range(4)),  # camera -> unit space of the room
    *(f"room{i}" for i in range(3)),  # its half sizes
)
"""Numbers of a frame that shading needs; lights in the camera frame, up is the world's z axis there."""
Columns = dict[str, Tensor]


def vector(c: Columns, name: str) -> Vec:
    """Three columns as a vector."""
    return c[f"{name}0"], c[f"{name}1"], c[f"{name}2"]


def sphere_point(h: Tensor, index: Tensor | int, count: Tensor | int) -> Vec:
    """Point `index` of `count` well spread points on the unit sphere, turned by the hash h (int32)."""
    z = 1 - 2 * (index + unit(h)) / count
    phi = 2.39996323 * index + 2 * math.pi * unit(mix32(h))
    r = (1 - z * z).clamp_min(0).sqrt()
    return r * torch.cos(phi), r * torch.sin(phi), z


def leave(p: Vec, n: Vec) -> Vec:
    """Where a shadow ray starts."""
    return add(p, scale(n, LEAVE))


def light_end(frame: Columns, light: int, h: Tensor, index: Tensor | int, count: Tensor | int) -> Vec:
    """Where shadow ray `index` of `count` ends: on the lamp, or at its centre for a single ray."""
    point = sphere_point(mix32(h + light), index, count)
    soft = (count > 1).to(torch.float32) if isinstance(count, Tensor) else float(count > 1)
    return add(vector(frame, f"light{light}"), scale(point, frame[f"radius{light}"] * soft))


def ambient_end(p: Vec, n: Vec, h: Tensor, index: Tensor | int, count: Tensor | int) -> Vec:
    """Where ambient ray `index` of `count` ends; a sphere set on the surface weights directions by their cosine."""
    direction = normalise(add(scale(n, 1.02), sphere_point(mix32(h + 101), index, count)))
    return add(p, scale(direction, AMBIENT_REACH))


def corners(frame: Columns, p: Vec, n: Vec) -> Tensor:
    """Ambient visibility near the faces of the room: 1 in the open, about 0.4 in a corner."""
    visible = torch.ones_like(p[0])
    for axis in range(3):
        row = (frame[f"r{axis}0"], frame[f"r{axis}1"], frame[f"r{axis}2"])
        gap = frame[f"room{axis}"] * (1 - (dot(row, p) + frame[f"r{axis}3"]).abs()).clamp_min(0.0)
        facing = (dot(row, n) * frame[f"room{axis}"]).abs()  # the face itself does not darken
        visible = visible * (1 - 0.4 * (1 - facing) * torch.exp(-gap / 0.35))
    return visible


def picture(
    frame: Columns,
    x: Tensor,
    y: Tensor,
    t: Tensor,
    n: Vec,
    colour: Vec,
    gloss: Tensor,
    emission: Tensor,
    lit: tuple[Tensor, ...],
    blocked: Tensor,
    hit: Tensor,
) -> Vec:
    """Display colours in [0, 1] of the rays (x, y, 1) that see a surface at depth t, or the sky where not `hit`.

    n: normal facing the camera; colour: albedo; lit: visible fraction of each light; blocked: fraction of ambient
    rays that met an object.
    """
    p = (t * x, t * y, t)
    up = vector(frame, "up")
    sky = (0.5 + 0.5 * dot(n, up)).clamp(0.0, 1.0)
    ambient = mix(vector(frame, "ambient_down"), vector(frame, "ambient_up"), sky)
    total = scale(ambient, corners(frame, p, n) * (1 - 0.75 * blocked))
    view = normalise((-p[0], -p[1], -p[2]))
    shine = torch.zeros_like(t)
    for light in range(MAX_LIGHTS):
        to_light = sub(vector(frame, f"light{light}"), p)
        d2 = dot(to_light, to_light).clamp_min(1e-4)
        direction = scale(to_light, torch.rsqrt(d2))
        power = lit[light] / d2
        lambert = dot(n, direction).clamp_min(0.0)
        glint = dot(n, normalise(add(direction, view))).clamp(0.0, 1.0)
        glint = glint * glint * glint
        glint = glint * glint
        glint = glint * glint
        glint = glint * glint  # to the 24th
        tint = vector(frame, f"tint{light}")
        total = add(total, scale(tint, power * lambert))
        shine = shine + torch.where(lambert > 0, power * glint * tint[1], 0.0)
    shine = shine * gloss
    rise = dot(normalise((x, y, torch.ones_like(x))), up).clamp(0.0, 1.0).sqrt()
    backdrop = mix(vector(frame, "ambient_up"), vector(frame, "zenith"), rise)
    gain = vector(frame, "exposure")

    def develop(i: int) -> Tensor:
        """Exposure, a filmic shoulder (a common rational fit), gamma 2."""
        c = gain[i] * torch.where(hit, colour[i] * (total[i] + emission) + shine, backdrop[i])
        return ((c * (2.51 * c + 0.03)) / (c * (2.43 * c + 0.59) + 0.14)).clamp(0.0, 1.0).sqrt()

    return develop(0), develop(1), develop(2)
