# SPDX-License-Identifier: Apache-2.0
"""A stream state on memory that a TensorRT plan is bound to: as many slots as the plan has, few of them may be used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omnistream.engines.cuda_device import Device
from omnistream.engines.graphs import Role
from omnistream.engines.tensorrt_plan import BoundPlan
from omnistream.model.config import BackboneConfig
from omnistream.stream.state import StateSpec, StreamState


class TensorRTState(StreamState):
    """As `StreamState`, snapshots included. A key mask hides the slots that are not in use.

    Hidden slots must hold finite numbers: a masked key has weight 0, and 0 times NaN is NaN. So they are cleared
    whenever frames are forgotten.
    """

    def __init__(
        self, config: BackboneConfig, spec: StateSpec, slots: int, device: Device, *, start_index: int = 0
    ) -> None:
        """slots: of the plan, at least as many as the policy has."""
        # The memory comes from `device`; without "meta" a second cache would be allocated for a moment.
        super().__init__(config, spec, start_index=start_index, device="meta", slots=slots)
        self._buffer = device.zeros(tuple(self._buffer.shape), spec.dtype)
        self.bound: dict[Role, BoundPlan] = {}
        self._shown: int | None = None

    def reset(self, start_index: int | None = None) -> None:
        super().reset(start_index)
        self._buffer.zero_()

    def load_state_dict(self, data: dict[str, Any]) -> None:
        super().load_state_dict(data)
        self._buffer[..., self.filled * self.tokens :, :] = 0

    def show(self, mask: Tensor) -> None:
        """Set `mask` [B, 1, tokens, keys] to the keys that the coming frame sees, its own included."""
        keys = self.spec.policy.filled(self.frames_seen + 1) * self.tokens
        if keys != self._shown:
            mask.copy_((torch.arange(mask.shape[-1], device=mask.device) < keys).expand_as(mask))
            self._shown = keys
