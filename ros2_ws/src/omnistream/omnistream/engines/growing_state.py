# SPDX-License-Identifier: Apache-2.0
"""A stream state for engines that attend to a whole buffer: while it fills, the buffer is exactly as long as its keys.

Hiding empty slots behind a mask costs ONNX Runtime two to three times the attention over valid keys only. So the memory
that will hold all slots is used more tightly during the first frames: keys and values of each head lie one behind
another without gaps, and move apart by one slot per frame. From the first eviction on nothing moves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnistream.model.config import BackboneConfig
from omnistream.stream.state import StateSpec, StreamState


class GrowingState(StreamState):
    """As `StreamState`, snapshots included; but `kv` holds only the slots in use, contiguous in every layer."""

    def __init__(self, config: BackboneConfig, spec: StateSpec, *, start_index: int = 0) -> None:
        super().__init__(config, spec, start_index=start_index)
        self._held = 0

    @property
    def kv(self) -> Tensor:
        """[layers, 2, B, heads, held slots * tokens, head width], contiguous, at the start of a fixed buffer."""
        return self._view(self._held)

    def make_room(self) -> int:
        """Have a slot for the coming frame and return its number. Frames seen stay; doing it twice changes nothing."""
        slots = self.spec.policy.filled(self.frames_seen + 1)
        if self.filled == 0:
            self._held = slots  # nothing to keep
        elif slots > self._held:
            self._spread(slots)
        return self.spec.policy.slot(self.frames_seen)

    def _hold(self, slots: int) -> None:
        self._held = slots

    def _view(self, slots: int) -> Tensor:
        shape = list(self._buffer.shape)
        shape[4] = slots * self.tokens
        return self._buffer.flatten()[: torch.Size(shape).numel()].view(shape)

    def _spread(self, slots: int) -> None:
        """Change to a wider layout. Last layer first: each moves towards the end, over what has moved already."""
        old, new = self._view(self._held), self._view(slots)
        length = old.shape[4]
        for layer in reversed(range(len(old))):
            new[layer, ..., :length, :] = old[layer].clone()
        self._held = slots
