# SPDX-License-Identifier: Apache-2.0
"""The batch of every step, as a pure function of (run seed, step): resuming needs the step number and nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from omnistream_training.ahead import read_ahead
from omnistream_training.config import DataConfig, TrainConfig
from omnistream_training.data.augment import augment
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.live import open_live
from omnistream_training.data.pool import PoolSource
from omnistream_training.data.source import HELD_OUT, ClipRequest, ClipSource

if TYPE_CHECKING:
    from omnistream_training.data.folder import FolderSource

CLIPS_PER_STEP = 1 << 12
STEPS_PER_RUN = 1 << 21


class Feed:
    """Draws batches. `batch(step)` may be called for any step, in any order; iterating reads ahead where that helps."""

    def __init__(self, config: TrainConfig, device: str) -> None:
        self.config = config
        self.device = device
        self.parts = range(1)
        """Of each step, those to read: pre-training cuts steps into micro-batches."""
        self.sources: list[ClipSource] = []
        self.weights: list[float] = []
        data = config.data if config.draws_clips else DataConfig(live=None)
        if data.live is not None:
            self._add(open_live(data.live, data.live_options, data.nominal_rate), data.live_weight)
        if data.folders:
            self._add(self._recordings(data.folders), 1.0)
        for pool in data.pools:
            self._add(PoolSource(pool, data.nominal_rate, data.workers), pool.weight)
        # A renderer computes on the training device: reading it ahead in a thread only fights for the same cores.
        self._ahead = data.workers if data.folders or (data.pools and data.live is None) else 0

    def _add(self, source: ClipSource, weight: float) -> None:
        self.sources.append(source)
        self.weights.append(weight)

    def _recordings(self, folders: Sequence[str]) -> FolderSource:
        from omnistream_training.data.folder import FolderSource  # pillow and codecs: not needed for a renderer

        data = self.config.data
        size = max((stage.size for stage in self.config.stages), key=math.prod)
        return FolderSource(
            folders, size, data.nominal_rate, data.on_error, data.bag_topics, held_out_frames=self.config.eval_frames
        )

    @property
    def description(self) -> str:
        return "; ".join(source.description for source in self.sources)

    def batch(self, step: int, part: int = 0) -> ClipBatch:
        """The augmented batch of `step`, on the device; of its part number `part`, where a step has several."""
        _, stage = self.config.stage_at(step)
        host = torch.Generator().manual_seed(self._seed("step", step, part))
        source = self.sources[int(torch.multinomial(torch.tensor(self.weights), 1, generator=host))]
        stride = draw_stride(stage.stride, host)
        first = (self.config.seed * STEPS_PER_RUN + step) * CLIPS_PER_STEP + part * stage.clips
        request = ClipRequest(
            numbers=range(first, first + stage.clips),
            frames=stage.frames,
            size=stage.size,
            stride=stride,
            device=self.device,
        )
        batch = source.read(request)
        if batch.images.device.type != torch.device(self.device).type:
            batch = batch.to(self.device)
        return augment(batch, self.config.augment, self._seed("augment", step, part))

    def held_out(self, source: int, numbers: Sequence[int], frames: int, stride: int = 1) -> ClipBatch:
        """Clips that no run trains on, without augmentation, at the last stage's size."""
        request = ClipRequest(
            numbers=[HELD_OUT + number for number in numbers],
            frames=frames,
            size=self.config.stages[-1].size,
            stride=stride,
            device=self.device,
        )
        return self.sources[source].read(request).to(self.device)

    def iterate(self, first: int, last: int) -> Iterator[ClipBatch]:
        """Batches of steps first .. last - 1, part by part."""
        jobs = ((step, part) for step in range(first, last) for part in self.parts)
        yield from read_ahead(lambda job: self.batch(*job), jobs, threads=self._ahead)

    def _seed(self, purpose: str, step: int, part: int = 0) -> int:
        words = f"{purpose}/{self.config.seed}/{step}" + (f"/{part}" if part else "")
        digest = hashlib.sha256(words.encode()).digest()
        return int.from_bytes(digest[:7], "little")


def draw_stride(between: tuple[int, int], draw: torch.Generator) -> int:
    """Log-uniform, both ends included."""
    low, high = math.log(between[0]), math.log(between[1] + 1)
    stride = int(math.exp(low + (high - low) * float(torch.rand(1, generator=draw, dtype=torch.float64))))
    return min(max(stride, between[0]), between[1])
