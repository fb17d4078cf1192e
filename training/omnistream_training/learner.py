# SPDX-License-Identifier: Apache-2.0
"""One optimiser step: model, loss, optimisers and averaged weights. Knows no files and no clock."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omnistream.heads.heads import HeadOutputs
from omnistream_training.building import build_model, calibrate_heads
from omnistream_training.config import TrainConfig
from omnistream_training.data.batch import ClipBatch
from omnistream_training.losses import geometry_loss, make_targets
from omnistream_training.optim import Optimizers, WeightAverage, rate_at


@dataclass
class Progress:
    """Counters that outlive a process."""

    step: int = 0
    """Optimiser steps done; the next batch is number `step`."""
    frames: int = 0
    """Frames trained on."""
    seconds: float = 0.0
    """Spent training, evaluations left out."""


class Learner:
    """The state that training changes. `gradient`, then `update`, is one step."""

    def __init__(self, config: TrainConfig, device: str) -> None:
        self.config, self.device = config, torch.device(device)
        model, self.parent = build_model(config.model, config.seed, config.loss.lens)
        # The layout in which convolutions run fastest, on CPUs twice as fast.
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = Optimizers(self.model, config.optim)
        self.average = WeightAverage(self.model.parameters(), config.optim.ema)
        self.progress = Progress()
        if config.compile:
            for block in self.model.backbone.blocks:
                block.compile()
            if self.model.heads is not None:
                self.model.heads.dpt.compile()

    def calibrate(self, batch: ClipBatch) -> None:
        """Before the first step: outputs of heads that come from nothing start at what is typical of `batch`."""
        new = self.parent is None or self.parent["new_heads"]
        if new and self.progress.step == 0 and self.model.heads is not None:
            calibrate_heads(self.model.heads, make_targets(batch, self.config.model.scale))
            self.average = WeightAverage(self.model.parameters(), self.config.optim.ema)

    def gradient(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Gradients of the batch's loss, clipped. Returns `loss`, the norm before clipping, and the loss terms."""
        loss, terms = geometry_loss(self.forward(batch), make_targets(batch, self.config.model.scale), self.config.loss)
        loss.backward()
        self._frames = batch.frames
        return {"loss": loss.detach(), "norm": self.optimizers.clip(), **terms}

    def update(self) -> None:
        """Move the weights along the gradients of `gradient`, and the averaged weights after them."""
        step = self.progress.step
        self.optimizers.step(rate_at(step, self.config.steps, self.config.optim))
        self.average.update(step)
        self.progress.step += 1
        self.progress.frames += self._frames

    def forward(self, batch: ClipBatch) -> HeadOutputs:
        """The heads that the loss needs, under autocast as configured."""
        lower = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=lower):
            _, heads = self.model(
                batch.network_input(self.model.config),
                policy=self.config.policy,
                times=_shared(batch.times),
                want=self.config.loss.heads,
            )
        return heads


def _shared(times: Tensor) -> Tensor:
    """[B, T] times, or [T] where all clips have the same: their rotary tables are then B times smaller."""
    return times[0] if bool((times == times[:1]).all()) else times
