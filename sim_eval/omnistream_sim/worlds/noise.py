# SPDX-License-Identifier: Apache-2.0
"""Integer hashes and smooth noise, equal bit for bit on every device that computes float32 alike.

The hash runs on int32 with wrap-around multiplication (constants of the "lowbias32" family, found by exhaustive search
by Chris Wellons, public domain). No trigonometric hash is used: those depend on the device's sine.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .vec import Vec

_X, _Y, _Z = 0x1B56C4E9, 0x7ED55D16 | 1, 0x2545F491  # odd multipliers that spread the three cell coordinates
_M1, _M2 = 0x7FEB352D, -2073254261  # the second is 0x846CA68B as a signed 32-bit number
_TO_UNIT = 1.0 / (1 << 24)


def mix32(h: Tensor) -> Tensor:
    """Scramble int32 so that every input bit reaches every output bit."""
    h = h ^ ((h >> 16) & 0xFFFF)
    h = h * _M1
    h = h ^ ((h >> 15) & 0x1FFFF)
    h = h * _M2
    return h ^ ((h >> 16) & 0xFFFF)


def hash_cell(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Random int32 for integer cells (x, y int32) and a seed (int32)."""
    return mix32((x * _X) ^ (y * _Y) ^ seed)


def unit(h: Tensor, shift: int = 0) -> Tensor:
    """A float32 in [0, 1) from the hash; `shift` 0..8 picks other bits (weakly independent, enough for patterns)."""
    return ((h >> shift) & 0xFFFFFF).to(torch.float32) * _TO_UNIT


def value_noise(p: Vec, seed: Tensor) -> Tensor:
    """Smooth value noise in [0, 1) with cells of size 1 at points p; seed int32, broadcastable."""
    fx, fy, fz = torch.floor(p[0]), torch.floor(p[1]), torch.floor(p[2])
    ux, uy, uz = p[0] - fx, p[1] - fy, p[2] - fz
    wx, wy, wz = ux * ux * (3 - 2 * ux), uy * uy * (3 - 2 * uy), uz * uz * (3 - 2 * uz)
    x0 = (fx.to(torch.int32) * _X) ^ seed
    x1 = ((fx.to(torch.int32) + 1) * _X) ^ seed
    y0 = fy.to(torch.int32) * _Y
    y1 = y0 + _Y
    z0 = fz.to(torch.int32) * _Z
    z1 = z0 + _Z

    def corner(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        h = a ^ b ^ c  # two rounds are enough where eight corners are blended
        h = (h ^ ((h >> 15) & 0x1FFFF)) * _M1
        h = (h ^ ((h >> 13) & 0x7FFFF)) * _M2
        return ((h >> 8) & 0xFFFFFF).to(torch.float32)

    def edge(y: Tensor, z: Tensor) -> Tensor:
        a, b = corner(x0, y, z), corner(x1, y, z)
        return a + (b - a) * wx

    low = edge(y0, z0)
    low = low + (edge(y1, z0) - low) * wy
    high = edge(y0, z1)
    high = high + (edge(y1, z1) - high) * wy
    return (low + (high - low) * wz) * _TO_UNIT


def fbm(p: Vec, seed: Tensor, footprint: Tensor, octaves: int) -> Tensor:
    """Fractal noise about 0.5: `octaves` layers, each of half the size and half the strength.

    footprint: width of one pixel in the units of p; layers finer than about two pixels fade to their mean, so that the
    pattern neither flickers nor aliases.
    """
    total = torch.zeros_like(footprint)
    weight, frequency, norm = 0.5, 1.0, 0.0
    for octave in range(octaves):
        fade = (1.5 - 1.5 * footprint * frequency).clamp(0.0, 1.0)
        q = (p[0] * frequency, p[1] * frequency, p[2] * frequency)
        total = total + weight * fade * (value_noise(q, seed + octave * 7919) - 0.5)
        norm += weight
        weight *= 0.5
        frequency *= 2.03
    return 0.5 + total / norm * 1.0
