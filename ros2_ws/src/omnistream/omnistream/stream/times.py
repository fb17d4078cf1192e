# SPDX-License-Identifier: Apache-2.0
"""Logical times of frames: float64, in frames, on the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omnistream.errors import ConfigError


def as_times(times: Tensor | Sequence[float] | float | None, frames: int, batch: int) -> Tensor:
    """[frames] or [batch, frames] float64 on the host; None counts from 0. ConfigError for bad shapes or values."""
    if times is None:
        return torch.arange(frames, dtype=torch.float64)
    at = torch.as_tensor(times, dtype=torch.float64).cpu()
    if at.ndim == 0:
        at = at[None]
    if at.shape not in ((frames,), (batch, frames)) or not bool(at.isfinite().all()):
        raise ConfigError(f"times are {at.tolist()}; expected {frames} finite numbers, or {batch} rows of them")
    return at
