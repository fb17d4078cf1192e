# SPDX-License-Identifier: Apache-2.0
"""Smooth paths of a free camera over the table: hand-held, orbit, wrist (close above), or not moving at all.

A path is a point looked at and spherical coordinates about it, each a sum of a few slow sines, so it is smooth, has
parallax and keeps the table in view for as long as the clip lasts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .camera import look_at

Path = Callable[[NDArray], NDArray]
"""Times [T] in seconds to T_world_camera [T, 4, 4]."""

KINDS = ("hand-held", "orbit", "wrist")
_SHARES = (0.5, 0.3, 0.2)


@dataclass(frozen=True)
class Region:
    """Where a camera may be: inside the room, above the table."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    look_low: tuple[float, float, float]
    look_high: tuple[float, float, float]


def draw_path(rng: np.random.Generator, region: Region, speed: float) -> Path:
    """A path of a random kind; `speed` is a factor on 0.15 .. 0.8 m/s."""
    kind = rng.choice(KINDS, p=_SHARES)
    look = rng.uniform(region.look_low, region.look_high)
    pace = speed * math.exp(rng.uniform(math.log(0.15), math.log(0.8)))
    azimuth = rng.uniform(-math.pi, math.pi)
    if kind == "wrist":
        distance, elevation = rng.uniform(0.16, 0.45), rng.uniform(1.0, 1.45)
        swing = np.array([0.5, 0.12, 0.05, 0.12, 0.14, 0.03, 0.15])
        roll = rng.uniform(-math.pi, math.pi)
    else:
        distance, elevation = rng.uniform(0.5, 1.15), rng.uniform(0.3, 1.15)
        swing = np.array([0.9, 0.25, 0.22, 0.12, 0.15, 0.05, 0.12]) * rng.uniform(0.5, 1.2)
        roll = 0.0
    turn = 0.0
    if kind == "orbit":
        turn = pace / (distance * math.cos(elevation)) * rng.choice([-1.0, 1.0])
        swing[0] = 0.05
    # of the path's length per second when all sines move at one radian per second
    reach = math.hypot(swing[0] * distance * math.cos(elevation), *(swing[1] * distance, *swing[2:6]))
    sway = _sines(rng, swing, min(pace / reach, 5.0))
    shake = _sines(rng, np.full(3, 0.003), 9.0)

    def poses(times: NDArray) -> NDArray:
        w = sway(times)
        a, e = azimuth + turn * times + w[:, 0], np.clip(elevation + w[:, 1], 0.18, 1.5)
        d = np.maximum(distance + w[:, 2], 0.12)
        target = look + w[:, 3:6]
        out = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], -1)
        eye = _inside(target + d[:, None] * out, region) + shake(times)
        return look_at(eye, target, roll + w[:, 6])

    return poses


def still(path: Path) -> Path:
    """The path's first pose, for ever."""
    return lambda times: np.broadcast_to(path(np.zeros(1)), (len(times), 4, 4)).copy()


def path_length(poses: NDArray) -> float:
    """Metres travelled along poses [T, 4, 4]."""
    return float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=-1).sum())


def long_enough(path: Path, times: NDArray, min_path: float) -> tuple[NDArray, float]:
    """Poses at `times`, run through faster (by the factor that is returned) until they are `min_path` metres long."""
    factor, poses = 1.0, path(times)
    for _ in range(4):  # a faster run is longer in proportion, but for the corners that its frames cut
        length = path_length(poses)
        if length >= min_path:
            break
        factor *= 1.05 * min_path / max(length, 1e-3)
        poses = path(times * factor)
    return poses, factor


def _sines(rng: np.random.Generator, size: NDArray, pace: float) -> Path:
    """Times [T] to [T, len(size)]: offsets within +- size, that move at about `pace` radians per second."""
    ratios = np.array([1.0, 1.7, 2.9])[:, None]
    weights = np.array([1.0, 0.4, 0.15])[:, None] / 1.55
    omega = pace * ratios * rng.uniform(0.75, 1.3, (3, len(size)))
    phase = rng.uniform(0, 2 * math.pi, (3, len(size)))
    return lambda times: (weights * np.sin(times[:, None, None] * omega + phase)).sum(1) * size


def _inside(points: NDArray, region: Region) -> NDArray:
    """Soft clamp into the region: smooth, and almost the identity in the middle."""
    low, high = np.array(region.low), np.array(region.high)
    middle, half = (low + high) / 2, (high - low) / 2
    offset = (points - middle) / half
    edge = 0.8
    over = np.abs(offset) > edge
    soft = np.sign(offset) * (edge + (1 - edge) * np.tanh((np.abs(offset) - edge) / (1 - edge)))
    return middle + half * np.where(over, soft, offset)
