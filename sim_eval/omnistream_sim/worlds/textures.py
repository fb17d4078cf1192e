# SPDX-License-Identifier: Apache-2.0
"""Procedural textures: colour of a surface at a point.

All patterns share one surface coordinate (u, v) in metres, one cell hash and one noise evaluation, so that a ray pays
for the most expensive pattern once instead of for every pattern. Edges are as soft as a pixel is wide (`footprint`):
that antialiases the inside of a texture with a single ray per pixel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .materials import PATTERNS
from .noise import fbm, hash_cell, mix32, unit
from .vec import Vec, choose, mix, scale

_ID = {name: float(i) for i, name in enumerate(PATTERNS)}
Columns = dict[str, Tensor]


def surface_coordinates(p: Vec, n: Vec, radius: Tensor) -> tuple[Tensor, Tensor]:
    """(u, v) in metres: box mapping on the dominant axis of n, or wrapped around z where radius > 0.

    p: point in the frame of the object (metres), n: its normal there (any length).
    """
    ax, ay, az = n[0].abs(), n[1].abs(), n[2].abs()
    flat = (az >= ax) & (az >= ay)
    on_x = ~flat & (ax >= ay)
    wrapped = (radius > 0) & ~flat
    u = torch.where(flat, p[0], torch.where(on_x, p[1], p[0]))
    v = torch.where(flat, p[1], p[2])
    return torch.where(wrapped, torch.atan2(p[1], p[0]) * radius, u), v


def pulse(x: Tensor, duty: Tensor | float, width: Tensor) -> Tensor:
    """Periodic box of period 1 centred on 0.5, `duty` wide, its edges softened over `width`."""
    centred = (x - torch.floor(x) - 0.5).abs()
    return ((0.5 * duty - centred) / width.clamp_min(1e-4) + 0.5).clamp(0.0, 1.0)


def _faded(value: Tensor, width: Tensor, mean: float) -> Tensor:
    """Towards the mean of the pattern where one period is narrower than about two pixels."""
    return mean + (value - mean) * (1.6 - 1.6 * width).clamp(0.0, 1.0)


def bit_of(h: Tensor, which: Tensor | int) -> Tensor:
    """One bit of a hash as 0.0 or 1.0 (as a number: compilers vectorise that, not a bit that becomes a truth value)."""
    return ((h >> which) & 1).to(torch.float32)


def hue(h: Tensor) -> Vec:
    """A strong random colour from a hash: three phases of one wave."""
    angle = unit(h) * (2 * math.pi)
    value = 0.25 + 0.6 * unit(mix32(h))
    r, g, b = ((0.5 + 0.5 * torch.cos(angle + shift)) for shift in (0.0, 2.1, 4.2))
    return r * r * value, g * g * value, b * b * value


def print_layer(s: Tensor, t: Tensor, h: Tensor, ds: Tensor, dt: Tensor) -> Vec:
    """A printed sheet on [0, 1]^2 (t upwards): a picture of shapes above, lines of text-like marks below.

    h: int32 hash of the sheet; ds, dt: width of a pixel in s and t.
    """
    paper = scale(hue(h), 0.5)
    paper = (paper[0] + 0.35, paper[1] + 0.35, paper[2] + 0.32)
    ink, accent = hue(mix32(h + 11)), hue(mix32(h + 23))
    split = 0.35 + 0.3 * unit(h, 3)
    # the picture: a disc or a ring, and a slanted bar or blocks
    cx, cy, r = 0.3 + 0.4 * unit(h, 5), 0.5 * (1 + split), 0.12 + 0.12 * unit(h, 7)
    distance = ((s - cx) ** 2 + ((t - cy) * 1.3) ** 2).sqrt()
    ring = bit_of(h, 4) > 0.5
    radial = torch.where(ring, (distance - r).abs() - 0.35 * r, distance - r)
    disc = (0.5 - radial / ds.clamp_min(1e-4)).clamp(0, 1)
    bars = _faded(pulse((s + (unit(h, 6) - 0.5) * t) * (3 + ((h >> 9) & 3)), 0.4, 4 * ds), 4 * ds, 0.4)
    picture = mix(mix(paper, ink, 0.75 * bars), accent, disc)
    # the text: glyphs are 3x4 random bits on a grid, words end at random cells
    lines = 4 + ((h >> 12) & 3)
    y = (split - t) / split.clamp_min(0.05) * lines
    line = torch.floor(y)
    headline = line < 1
    x = s * torch.where(headline, 9.0, 18.0)
    cell = torch.floor(x)
    gx, gy = (x - cell) * 4, (y - line) * 6
    g = hash_cell(cell.to(torch.int32) + 64 * line.to(torch.int32), line.to(torch.int32), h)
    bit = torch.floor(gx) + 3 * torch.floor(gy - 1)
    marked = (
        (gx < 3) & (gy > 1) & (gy < 5) & (bit_of(g, bit.clamp(0, 11).to(torch.int32)) > 0.5) & (((g >> 13) & 7) > 1)
    )
    blurred = (1.5 - 30 * ds).clamp(0, 1)  # unreadable from afar: a grey band
    mark = torch.where(marked & (s > 0.06) & (s < 0.94), blurred, 0.0) + 0.3 * (1 - blurred) * ((gy > 1) & (gy < 5))
    text = mix(paper, scale(ink, 0.25), mark)
    sheet = choose(t > split, picture, text)
    edge = torch.minimum(torch.minimum(s, 1 - s), torch.minimum(t, 1 - t))
    return mix(scale(accent, 0.3), sheet, ((edge - 0.03) / ds.clamp_min(1e-3) + 0.5).clamp(0, 1))


def albedo(m: Columns, p: Vec, n: Vec, footprint: Tensor, octaves: int) -> Vec:
    """Linear colour at the point p (metres, object frame) with normal n; footprint: width of one pixel there, metres.

    m: the material columns of `MATERIAL_COLUMNS`, each of the shape of a component of p.
    """
    u, v = surface_coordinates(p, n, m["round"])
    seed = m["seed"].to(torch.int32) * 40503
    fn = m["fn"]
    q = (p[0] * fn, p[1] * fn / m["stretch"], p[2] * fn)
    noise = fbm(q, seed, footprint * fn, octaves)
    x, y = u * m["fu"], v * m["fv"]
    wx, wy = footprint * m["fu"], footprint * m["fv"]
    pattern, amount = m["pattern"], m["amount"]

    def of(*names: str) -> Tensor:
        chosen = pattern == _ID[names[0]]
        for name in names[1:]:
            chosen = chosen | (pattern == _ID[name])
        return chosen

    # cells, shifted per row for tiles (brick bond), with a random number each
    row = torch.floor(y)
    shifted = torch.where(of("tiles"), x + 0.5 * (row - 2 * torch.floor(0.5 * row)), x)
    column = torch.floor(shifted)
    h = hash_cell(column.to(torch.int32), row.to(torch.int32), seed)
    inx, iny = shifted - column, y - row

    px, py = pulse(x, 0.5, wx), pulse(y, 0.5, wy)
    checker = _faded(px + py - 2 * px * py, torch.maximum(wx, wy), 0.5)
    stripes = _faded(pulse(x + y + 0.2 * amount * (noise - 0.5), 0.5, wx + wy), wx + wy, 0.5)
    clouds = ((noise - 0.5) * (2.0 + 2.0 * amount) + 0.5).clamp(0, 1)
    rings = x + 3.0 * amount * (noise - 0.5) + 5.0 * unit(h, 2)
    wood = _faded(0.5 + 0.5 * torch.cos(2 * math.pi * rings), wx, 0.5) * 0.6 + 0.4 * noise
    veins = torch.sin((x + y) * 2.0 + 12.0 * amount * (noise - 0.5)).abs()
    marble = 1 - (1 - veins) ** 3
    jitter = 0.25 + 0.5 * unit(h, 1)
    dot = of("dots")
    ox = torch.where(dot, 0.5, jitter)
    oy = torch.where(dot, 0.5, 0.25 + 0.5 * unit(h, 4))
    radius = torch.where(dot, 0.32, 0.10 + 0.15 * unit(h, 7))
    distance = ((inx - ox) ** 2 + (iny - oy) ** 2).sqrt()
    spots = _faded(((radius - distance) / wx.clamp_min(1e-3) + 0.5).clamp(0, 1), wx, 0.12)
    grout = 1 - pulse(shifted, 0.96, wx) * pulse(y, 0.92, wy)
    tiles = torch.maximum(_faded(grout, torch.maximum(wx, wy), 0.1), 0.5 * amount * (unit(h) + 0.4 * noise - 0.3))

    weight = amount * (noise - 0.5) * 0.6  # plain: a faint mottling
    weight = torch.where(of("checker"), checker, weight)
    weight = torch.where(of("stripes"), stripes, weight)
    weight = torch.where(of("clouds"), clouds, weight)
    weight = torch.where(of("wood"), wood, weight)
    weight = torch.where(of("marble"), marble, weight)
    weight = torch.where(of("speckle", "dots"), spots, weight)
    weight = torch.where(of("tiles"), tiles, weight)
    base = mix((m["r0"], m["g0"], m["b0"]), (m["r1"], m["g1"], m["b1"]), weight)
    base = scale(base, 1 + 0.25 * amount * (noise - 0.5))

    # posters: one row of cells at a height, some of them filled; "print" fills every cell of the surface
    printed = of("print")
    pw, ph = torch.where(printed, 1 / m["fu"], m["poster_w"]), torch.where(printed, 1 / m["fv"], m["poster_h"])
    half = torch.where(printed, 0.5, 0.0)  # a printed sheet is centred on its face
    s, t = u / pw + half, (v - torch.where(printed, 0.0, m["poster_v"])) / ph + half
    if_column, if_row = torch.floor(s), torch.floor(t)
    face = torch.where(n[0].abs() > n[1].abs(), n[0].sign(), 2 * n[1].sign()).to(torch.int32)
    sheet = hash_cell(if_column.to(torch.int32), if_row.to(torch.int32) + 8 * face, seed + 77)
    s, t = s - if_column, t - if_row
    margin = torch.where(printed, 0.0, 0.08 + 0.1 * unit(sheet, 2))
    present = printed | ((unit(sheet) < m["poster_p"]) & (if_row == 0))
    s, t = (s - margin) / (1 - 2 * margin), (t - 0.5 * margin) / (1 - margin)
    present = present & (s > 0) & (s < 1) & (t > 0) & (t < 1)
    ds, dt = footprint / pw, footprint / ph
    return choose(present, print_layer(s, t, mix32(sheet), ds, dt), base)
