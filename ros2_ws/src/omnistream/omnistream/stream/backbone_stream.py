# SPDX-License-Identifier: Apache-2.0
"""A backbone with a memory: the streaming face of `Backbone`, without heads, images or engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from omnistream.model.backbone import Backbone, BackboneOutput, as_times
from omnistream.stream.policy import CachePolicy
from omnistream.stream.state import StateSpec, StreamState


class BackboneStream:
    """A backbone with a memory: feed frames as they come, in calls of any size.

    The cache is allocated at the first frame (its size follows from the frame's) and never grows.
    """

    def __init__(
        self, backbone: Backbone, policy: CachePolicy, camera_token: bool, aspect_ratio: Any, start_index: int
    ):
        policy.slots  # noqa: B018  refuses an unbounded policy now, not at the first frame
        self._backbone = backbone
        self._policy = policy
        self._camera_token = camera_token
        self._aspect_ratio = aspect_ratio
        self._start_index = start_index
        self._state: StreamState | None = None

    @property
    def frames_seen(self) -> int:
        return 0 if self._state is None else self._state.frames_seen

    @property
    def nbytes(self) -> int:
        """Bytes of the cache; 0 before the first frame."""
        return 0 if self._state is None else self._state.nbytes

    def step(self, x: Tensor, times: Tensor | Sequence[float] | float | None = None) -> BackboneOutput:
        """Feed frames x [B, 3, H, W] or [B, t, 3, H, W]; outputs are [B, t, ...], with t = 1 for a single frame.

        times: [t] or [B, t] in frames; default: one more than the frame before. Not differentiable.
        """
        chunk = x[:, None] if x.ndim == 4 else x
        self._backbone.check_images(chunk, 5, "x")
        batch, frames = chunk.shape[:2]
        state = self._state or self._allocate(batch, *chunk.shape[-2:])
        state.spec.policy.check(state.frames_seen + frames)  # refuse the whole chunk, not its second half
        at = state.next_times(frames) if times is None else as_times(times, frames, batch)
        outputs = [
            self._backbone.step(state, chunk[:, t], at[..., t : t + 1], self._aspect_ratio) for t in range(frames)
        ]
        return _concatenate(outputs)

    def reset(self, start_index: int | None = None) -> None:
        """Forget all frames; the next one is the first again (time restarts at `start_index`, default as before)."""
        if start_index is not None:
            self._start_index = start_index
        if self._state is not None:
            self._state.reset(self._start_index)

    def state_dict(self) -> dict[str, Any]:
        """A snapshot to continue from. Empty before the first frame."""
        return {} if self._state is None else self._state.state_dict()

    def load_state_dict(self, data: dict[str, Any]) -> None:
        """Continue from a snapshot of a stream with the same policy."""
        if not data:
            self._state = None
            return
        state = self._allocate(data["batch"], data["height"], data["width"])
        state.load_state_dict(data)

    def _allocate(self, batch: int, height: int, width: int) -> StreamState:
        weight = self._backbone.patch_embed.proj.weight
        spec = StateSpec(
            policy=self._policy,
            batch=batch,
            height=height,
            width=width,
            camera_token=self._camera_token,
            dtype=weight.dtype,
        )
        self._state = StreamState(self._backbone.config, spec, start_index=self._start_index, device=weight.device)
        return self._state


def _concatenate(outputs: list[BackboneOutput]) -> BackboneOutput:
    if len(outputs) == 1:
        return outputs[0]
    cameras = [out.camera for out in outputs if out.camera is not None]
    return BackboneOutput(
        patches=torch.cat([out.patches for out in outputs], 1),
        cls=torch.cat([out.cls for out in outputs], 1),
        camera=torch.cat(cameras, 1) if cameras else None,
        hidden=[torch.cat(layer, 1) for layer in zip(*(out.hidden for out in outputs), strict=True)],
        grid=outputs[0].grid,
    )
