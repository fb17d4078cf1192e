# SPDX-License-Identifier: Apache-2.0
"""What a batch is drawn from. A source is a pure function of a request: that makes a run resumable to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from omnistream_training.data.batch import ClipBatch

HELD_OUT = 1 << 48
"""Clip numbers from here on are never trained on."""


@dataclass(frozen=True, kw_only=True)
class ClipRequest:
    """Which clips, and in what form."""

    numbers: Sequence[int]
    """One clip each. The same number gives the same clip; training counts up from 0, evaluation from `HELD_OUT`."""
    frames: int
    """T."""
    size: tuple[int, int]
    """(H, W) pixels."""
    stride: int = 1
    """Frames at the nominal rate from one frame of the clip to the next."""
    device: str = "cpu"


class ClipSource(Protocol):
    """Renderer, recordings, or anything else."""

    description: str
    """One line for people."""

    def read(self, request: ClipRequest) -> ClipBatch:
        """The clips, on `request.device`. Deterministic in the request."""
        ...


def frame_times(clips: int, frames: int, stride: int) -> torch.Tensor:
    """[B, T] times of evenly spaced frames, see `ClipBatch.times`."""
    return (torch.arange(frames, dtype=torch.float64) * stride).expand(clips, -1).clone()
