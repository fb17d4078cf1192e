# SPDX-License-Identifier: Apache-2.0
"""A backbone with a memory: the streaming face of `Backbone`, without heads, images or engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from omnistream.errors import ConfigError
from omnistream.model.backbone import Backbone, BackboneOutput
from omnistream.stream.policy import CachePolicy
from omnistream.stream.state import StateSpec, StreamState, check_snapshot
from omnistream.stream.times import as_times


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
        if not isinstance(x, Tensor):
            raise ConfigError(f"x is a {type(x).__name__}; expected a float tensor [B, 3, H, W] or [B, t, 3, H, W]")
        chunk = x[:, None] if x.ndim == 4 else x
        self._backbone.check_images(chunk, 5, "x")
        batch, frames = chunk.shape[:2]
        given = None if times is None else as_times(times, frames, batch)
        spec = self._spec(batch, *chunk.shape[-2:])
        # What cannot be taken is refused whole: no half of a chunk enters the memory.
        spec.policy.check(self.frames_seen + frames)
        if self._state is None or (self._state.frames_seen == 0 and self._state.spec != spec):
            self._state = self._new_state(spec)
        state = self._state
        for t in range(frames):
            state.spec.check_frame(chunk[:, t])
        at = state.next_times(frames) if given is None else given
        outputs = [
            self._backbone.step(state, chunk[:, t], at[..., t : t + 1], self._aspect_ratio) for t in range(frames)
        ]
        return _concatenate(outputs)

    def reset(self, start_index: int | None = None) -> None:
        """Forget all frames; the next one is the first again, and may have another size.

        Time restarts at `start_index`, by default as before.
        """
        if start_index is not None:
            self._start_index = start_index
        if self._state is not None:
            self._state.reset(self._start_index)

    def state_dict(self) -> dict[str, Any]:
        """A snapshot to continue from. Empty before the first frame."""
        return {} if self._state is None else self._state.state_dict()

    def load_state_dict(self, data: dict[str, Any]) -> None:
        """Continue from a snapshot of a stream of the same weights with the same policy.

        ConfigError for one that does not fit; this stream is then as before. An empty one resets.
        """
        if data == {}:
            self.reset()
            return
        config = self._backbone.config
        sides = [data.get(name) if isinstance(data, dict) else None for name in ("batch", "height", "width")]
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise ConfigError(f"stream state has batch, height and width {sides}; expected positive integers")
        spec = self._spec(*sides)  # type: ignore[arg-type]
        spec.check(config)
        tokens = config.tokens_per_frame(spec.height, spec.width, spec.camera_token)
        check_snapshot(data, spec, (config.depth, config.heads, config.head_dim), tokens)  # before memory is taken
        state = self._new_state(spec)
        state.load_state_dict(data)
        self._state = state

    def _spec(self, batch: int, height: int, width: int) -> StateSpec:
        return StateSpec(
            policy=self._policy,
            batch=batch,
            height=height,
            width=width,
            camera_token=self._camera_token,
            dtype=self._backbone.patch_embed.proj.weight.dtype,
        )

    def _new_state(self, spec: StateSpec) -> StreamState:
        device = self._backbone.patch_embed.proj.weight.device
        return StreamState(self._backbone.config, spec, start_index=self._start_index, device=device)


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
