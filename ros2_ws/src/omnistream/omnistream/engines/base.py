# SPDX-License-Identifier: Apache-2.0
"""What an engine is: it runs steps. It holds weights and graphs, but no stream; that is the state's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from omnistream.heads.heads import HeadOutputs
from omnistream.model.config import ModelConfig
from omnistream.stream.policy import CachePolicy
from omnistream.stream.state import StateSpec, StreamState

TAPS = "taps"
"""What `want` calls the blocks that the heads tap."""


@dataclass(frozen=True)
class EngineSpec:
    """What an engine is running: shown by `omnistream-info` and in every status."""

    name: str
    device: str
    dtype: torch.dtype
    """Of the cache, and of products in the backbone."""
    model: ModelConfig
    model_hash: str
    """Of the weights that it runs (`omnistream.weights.model_hash`)."""
    linears: str = ""
    """Number format of the backbone's linear layers, where it is not `dtype`: int8."""

    def __str__(self) -> str:
        return f"{self.name} {self.device} {self.linears or str(self.dtype).removeprefix('torch.')}"

    def state_spec(self, policy: CachePolicy, batch: int, height: int, width: int) -> StateSpec:
        """The state that this engine needs for frames of that size."""
        return StateSpec(
            policy=policy,
            batch=batch,
            height=height,
            width=width,
            camera_token=self.model.camera_token,
            dtype=self.dtype,
        )


@dataclass(frozen=True)
class StepOutputs:
    """Of one frame (no T): normed tokens, and the heads that were wanted. On the engine's device, float32."""

    patches: Tensor
    """[B, h*w, D]."""
    cls: Tensor
    """[B, D]."""
    camera: Tensor | None
    """[B, D], None without a camera token."""
    heads: HeadOutputs
    """Without the T dimension: log_depth [B, H, W] and so on."""
    backbone_ms: float
    heads_ms: float
    taps: tuple[Tensor, ...] = ()
    """Per block that the heads tap, shallow to deep: its patches [B, h*w, D] before the final norm. Only if wanted."""


class Engine(Protocol):
    """Runs steps of one model. Many streams may share an engine, each with its own state; steps are not concurrent."""

    @property
    def spec(self) -> EngineSpec: ...

    def new_state(self, policy: CachePolicy, batch: int, height: int, width: int, start_index: int = 0) -> StreamState:
        """Allocate all the memory a stream will ever use."""
        ...

    def cache_nbytes(self, policy: CachePolicy, batch: int, height: int, width: int) -> int:
        """Bytes of the cache that `new_state` would allocate. Raises what that would for frames that it cannot take."""
        ...

    def step(self, state: StreamState, frames: Tensor, times: Tensor | None, want: Collection[str]) -> StepOutputs:
        """frames [B, 3, H, W] normalised; times [1] or [B, 1] in frames (None: the next index).

        want: heads to run, and TAPS.

        If it raises, the state is as before.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds. Steps after that are errors."""
        ...
