# SPDX-License-Identifier: Apache-2.0
"""Procedural textures, by name: the same name gives the same picture. They are near white, and tinted where used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 128
BANK = 256
"""Random textures: "random-0" to "random-255"."""


def texture(name: str) -> NDArray[np.uint8]:
    """[SIZE, SIZE, 3] of "wood", "tiles", "plaster" or "random-N".

    Raises:
        ValueError: another name.
    """
    if name in _SHIPPED:
        shade = _SHIPPED[name](np.random.default_rng(len(name)))
        return _picture(shade[..., None].repeat(3, -1))
    kind, _, number = name.partition("-")
    if kind != "random" or not number.isdigit():
        raise ValueError(f"texture {name!r} is unknown; expected {', '.join(_SHIPPED)} or random-N")
    return _random(np.random.default_rng([7, int(number)]))


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    return x, y


def noise(rng: np.random.Generator, octaves: tuple[int, ...] = (4, 8, 16, 32, 64), falloff: float = 0.8) -> NDArray:
    """[SIZE, SIZE] in 0 .. 1, smooth random spots of several sizes."""
    total = np.zeros((SIZE, SIZE))
    for cells in octaves:
        values = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
        total += np.asarray(values.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) / 255 / cells**falloff
    return (total - total.min()) / np.ptp(total)


def _wood(rng: np.random.Generator) -> NDArray[np.float64]:
    x, y = _grid()
    bend = noise(rng, (3, 6))
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (9 * y + 2.2 * bend))
    grain = noise(rng, (16, 64))
    planks = (np.abs((y * 5) % 1 - 0.5) > 0.485) | (np.abs(x - 0.3 - 0.4 * (np.floor(y * 5) % 2)) < 0.004)
    return 0.82 + 0.13 * rings + 0.05 * grain - 0.25 * planks


def _tiles(rng: np.random.Generator) -> NDArray[np.float64]:
    x, y = _grid()
    edge = (np.abs((x * 8) % 1 - 0.5) > 0.47) | (np.abs((y * 8) % 1 - 0.5) > 0.47)
    each = rng.random((8, 8)).repeat(SIZE // 8, 0).repeat(SIZE // 8, 1)
    return 0.82 + 0.12 * each + 0.06 * noise(rng) - 0.3 * edge


def _plaster(rng: np.random.Generator) -> NDArray[np.float64]:
    x, y = _grid()
    # a picture rail and a skirting: something to see on a wall
    stripe = (np.abs(y - 0.12) < 0.01) * 0.25 + (np.abs((x * 6) % 1 - 0.5) > 0.492) * 0.08
    return 0.86 + 0.14 * noise(rng, (3, 6, 12, 24)) - stripe


_SHIPPED = {"wood": _wood, "tiles": _tiles, "plaster": _plaster}


def _random(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Checks, stripes, waves, spots or marble, between two colours."""
    x, y = _grid()
    first, second = rng.uniform(0.35, 1.0, 3), rng.uniform(0.1, 1.0, 3)
    kind, fx, fy = rng.integers(6), rng.integers(2, 14), rng.integers(2, 14)
    if kind == 0:
        mix = (np.floor(x * fx) + np.floor(y * fy)) % 2
    elif kind == 1:
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * (x * fx + y * rng.integers(0, 6) + 0.6 * noise(rng, (3, 6))))
    elif kind == 2:
        mix = ((((x * fx) % 1 - 0.5) ** 2 + ((y * fx) % 1 - 0.5) ** 2) < rng.uniform(0.03, 0.18)).astype(float)
    elif kind == 3:
        mix = rng.random((fy, fx))[(y * fy).astype(int), (x * fx).astype(int)]
    else:
        mix = noise(rng, falloff=rng.uniform(0.3, 1.1))
    colour = first * (1 - mix[..., None]) + second * mix[..., None]
    return _picture(colour + rng.normal(0, 0.015, (SIZE, SIZE, 1)))


def _picture(values: NDArray) -> NDArray[np.uint8]:
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)
