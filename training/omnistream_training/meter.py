# SPDX-License-Identifier: Apache-2.0
"""Speeds, means and bad steps of a run, read from the device once per log line instead of once per step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from omnistream_training.config import TrainConfig


class Meter:
    """Sums and times between two log lines."""

    def __init__(self, device: torch.device) -> None:
        self._bad = torch.full((), -1, dtype=torch.int64, device=device)
        self._names: list[str] = []
        self._last: Tensor | None = None
        self._cost: dict[int, float] = {}  # stage -> seconds per step
        self._per_frame = 0.0
        self._reset()

    def _reset(self) -> None:
        self._sum: Tensor | None = None
        self._steps = self._frames = self._stage = 0
        self._waited = self._paused = 0.0
        self._start = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in which training has no data to work on. On a GPU: what the host spends on asking for it."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Time that is not training: evaluations, checkpoints."""
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def add(self, step: int, stage: int, values: dict[str, Tensor], frames: int) -> None:
        """Scalars of a step, left on the device."""
        self._names = list(values)
        row = torch.stack([value.detach().float() for value in values.values()])
        bad = (self._bad < 0) & ~torch.isfinite(row).all()
        self._bad = torch.where(bad, torch.full_like(self._bad, step), self._bad)
        self._sum = row if self._sum is None else self._sum + row
        self._last = row
        self._steps += 1
        self._frames += frames
        self._stage = stage

    def bad_step(self) -> int | None:
        """First step with a value that is not finite; the host waits for the device."""
        bad = int(self._bad)
        return None if bad < 0 else bad

    def last_terms(self) -> dict[str, float]:
        """Values of the newest step."""
        return {} if self._last is None else dict(zip(self._names, self._last.tolist(), strict=True))

    @property
    def pending(self) -> bool:
        """Whether there were steps since the last `collect`."""
        return self._steps > 0

    def collect(self) -> dict[str, float]:
        """Means since the last call, speed, and the share of time spent waiting for data; starts anew."""
        assert self._sum is not None
        means = (self._sum / self._steps).tolist()  # the host waits for the device here
        seconds = max(time.perf_counter() - self._start - self._paused, 1e-9)
        values = {name: round(value, 5) for name, value in zip(self._names, means, strict=True)}
        values |= {
            "seconds": round(seconds, 2),
            "frames_per_s": round(self._frames / seconds, 2),
            "waiting": round(self._waited / seconds, 4),
        }
        self._cost[self._stage] = seconds / self._steps
        self._per_frame = seconds / self._frames
        self._reset()
        return values

    def seconds_left(self, config: TrainConfig, step: int) -> float:
        """Until the end of the run; a stage not reached yet is taken to cost as much per frame as the newest steps."""
        left, begins = 0.0, 0
        for index, stage in enumerate(config.stages):
            remaining = max(0, begins + stage.steps - max(step, begins))
            left += remaining * self._cost.get(index, self._per_frame * stage.clips * stage.frames)
            begins += stage.steps
        return left
