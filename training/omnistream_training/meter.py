# SPDX-License-Identifier: Apache-2.0
"""Speeds, means and bad steps of a run, read from the device once per log line instead of once per step."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from omnistream_training.config import TrainConfig


class Meter:
    """Times and sums between two log lines, without making the host wait for the device at every step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._bad = torch.full((), -1, dtype=torch.int64, device=device)
        self._names: list[str] = []
        self._per_stage: dict[int, tuple[float, int]] = {}
        self._last: Tensor | None = None
        self._reset()

    def _reset(self) -> None:
        self._sum: Tensor | None = None
        self._steps = self._frames = 0
        self._stage = 0
        self._waited = 0.0
        self._start = self._mark = time.perf_counter()
        self._skipped = 0.0

    def waiting(self) -> None:
        """The loop asks for data (or does something else that is not training) from here ..."""
        self._mark = time.perf_counter()

    def working(self) -> None:
        """... to here."""
        self._waited += time.perf_counter() - self._mark

    def skip(self) -> None:
        """What happened since `waiting` is not part of training time."""
        now = time.perf_counter()
        self._skipped += now - self._mark
        self._mark = now

    def add(self, step: int, stage: int, values: dict[str, Tensor], frames: int) -> None:
        self._names = list(values)
        row = torch.stack([v.detach().float() for v in values.values()])
        good = torch.isfinite(row).all()
        self._bad = torch.where((self._bad < 0) & ~good, step, self._bad)
        self._sum = row if self._sum is None else self._sum + row
        self._last = row
        self._steps += 1
        self._frames += frames
        self._stage = stage

    def bad_step(self) -> int | None:
        bad = int(self._bad)
        return None if bad < 0 else bad

    def last_terms(self) -> dict[str, float]:
        return {} if self._last is None else dict(zip(self._names, self._last.tolist(), strict=True))

    def collect(self) -> dict[str, float]:
        """Means since the last call, speeds, and the share of time spent waiting for data."""
        assert self._sum is not None
        means = (self._sum / self._steps).tolist()  # the host waits for the device here
        seconds = max(time.perf_counter() - self._start - self._skipped, 1e-9)
        values = {name: round(value, 5) for name, value in zip(self._names, means, strict=True)}
        values |= {
            "seconds": round(seconds, 2),
            "frames_per_s": round(self._frames / seconds, 2),
            "waiting": round(self._waited / seconds, 4),
        }
        self._per_stage[self._stage] = (seconds / self._steps, self._frames // self._steps)
        self._reset()
        return values

    def seconds_left(self, config: TrainConfig, step: int) -> float:
        """By the measured time per frame; a stage not reached yet is taken to cost as much per frame as this one."""
        index, _ = config.stage_at(step)
        cost, frames = self._per_stage[max(self._per_stage)]
        left, position = 0.0, 0
        for i, stage in enumerate(config.stages):
            remaining = max(0, position + stage.steps - max(step, position))
            per_step = self._per_stage.get(i, (cost * stage.clips * stage.frames / max(frames, 1), 0))[0]
            left += remaining * per_step if i >= index else 0.0
            position += stage.steps
        return left
