# SPDX-License-Identifier: Apache-2.0
"""Random numbers that belong to a clip: a counter is hashed with the seed of each clip.

There is no generator with a state. A clip is therefore the same whatever batch it is drawn in and on whatever device,
and any worker can draw any clip.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .noise import mix32

_GOLDEN = -1640531527  # 0x9E3779B9 as a signed 32-bit number
_BLOCK = 2048
MAX_SEED = (1 << 63) - 1


class Draw:
    """Draws for B clips; all results have the batch as their first axis and lie on `device`."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        """seeds: one per clip, 0 .. 2^63 - 1. ValueError for others."""
        bad = [s for s in seeds if not 0 <= s <= MAX_SEED]
        if bad:
            raise ValueError(f"seed is {bad[0]}; expected 0 .. 2^63 - 1")
        words = torch.tensor([[_signed(s & 0xFFFFFFFF), s >> 32] for s in seeds], dtype=torch.int32).to(device)
        self._low, self._high = words[:, :1], words[:, 1:]
        self._pool = torch.empty(len(seeds), 0, device=device)
        self._used = 0
        self._blocks = 0
        self.batch = len(seeds)
        self.device = torch.device(device)

    def uniform(self, *shape: int, low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        """[B, *shape] float32 in [low, high)."""
        count = math.prod(shape)
        while self._pool.shape[1] - self._used < count:
            self._refill()
        u = self._pool[:, self._used : self._used + count].reshape(self.batch, *shape)
        self._used += count
        return low + (high - low) * u

    def replay(self) -> Draw:
        """A copy that draws, independently, what this one is going to draw."""
        return copy.copy(self)

    def _refill(self) -> None:
        """Another block of numbers behind those that are left."""
        first = self._blocks * _BLOCK
        index = torch.arange(first, first + _BLOCK, dtype=torch.int32, device=self.device)
        h = mix32(mix32((index * _GOLDEN) ^ self._low) ^ self._high ^ index)
        fresh = ((h >> 8) & 0xFFFFFF).to(torch.float32) * (1.0 / (1 << 24))
        self._pool = torch.cat([self._pool[:, self._used :], fresh], 1)
        self._used = 0
        self._blocks += 1

    def log_uniform(self, *shape: int, low: float | Tensor, high: float | Tensor) -> Tensor:
        """[B, *shape] float32, uniform in the logarithm."""
        low, high = (x.log() if isinstance(x, Tensor) else math.log(x) for x in (low, high))
        return torch.exp(self.uniform(*shape, low=low, high=high))

    def flag(self, *shape: int, share: float | Tensor) -> Tensor:
        """[B, *shape] bool, True with that probability."""
        return self.uniform(*shape) < share

    def index(self, count: int, *shape: int) -> Tensor:
        """[B, *shape] int64 in 0 .. count - 1."""
        return (self.uniform(*shape) * count).to(torch.int64).clamp_max(count - 1)

    def choice(self, weights: Sequence[float] | Tensor, *shape: int) -> Tensor:
        """[B, *shape] int64, index i with probability proportional to weights[..., i]; they broadcast to the shape."""
        edges = torch.as_tensor(weights, dtype=torch.float32, device=self.device).cumsum(-1)
        return (self.uniform(*shape)[..., None] * edges[..., -1:] >= edges[..., :-1]).sum(-1)

    def sign(self, *shape: int) -> Tensor:
        """[B, *shape] float32, -1 or 1."""
        return torch.where(self.flag(*shape, share=0.5), 1.0, -1.0)

    def direction(self, *shape: int) -> Tensor:
        """[B, *shape, 3] unit vectors, even over the sphere."""
        z = self.uniform(*shape, low=-1.0, high=1.0)
        angle = self.uniform(*shape, high=2 * math.pi)
        r = (1 - z * z).clamp_min(0).sqrt()
        return torch.stack([r * torch.cos(angle), r * torch.sin(angle), z], -1)

    def permutation(self, count: int) -> Tensor:
        """[B, count] int64, a random order of 0 .. count - 1."""
        return self.uniform(count).argsort(1)


def host_uniform(seed: int, salt: int) -> float:
    """A number in [0, 1) known to the host, for decisions that shape the work (splitmix64's finaliser)."""
    mask = (1 << 64) - 1
    z = (seed + 0x9E3779B97F4A7C15 * (salt + 1)) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word
