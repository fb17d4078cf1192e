# SPDX-License-Identifier: Apache-2.0
"""Stream state: all that persists between frames. One layout for every engine, so that a state can change engines.

Keys are stored rotated, so a frame's slot never moves and is never touched again until it is overwritten; the order of
slots is free because softmax does not care.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnistream.errors import ConfigError
from omnistream.model.config import BackboneConfig
from omnistream.stream.attention import CacheAttention
from omnistream.stream.policy import CachePolicy, parse_policy
from omnistream.stream.times import as_times

STATE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StateSpec:
    """Everything that fixes a state's memory. H, W in pixels, multiples of the patch size."""

    policy: CachePolicy
    batch: int
    height: int
    width: int
    camera_token: bool
    dtype: torch.dtype = torch.float32

    def check(self, config: BackboneConfig) -> None:
        patch = config.patch_size
        if self.height % patch or self.width % patch or min(self.height, self.width) < patch:
            raise ConfigError(
                f"frames are {self.height} x {self.width} pixels; both sides must be multiples of {patch}"
            )

    def check_frame(self, frame: Tensor) -> None:
        """Raise ConfigError unless `frame` is [B, 3, H, W] of this stream's size, and finite."""
        expected = (self.batch, 3, self.height, self.width)
        if tuple(frame.shape) != expected:
            raise ConfigError(f"frame is {tuple(frame.shape)}; this stream takes {expected}")
        if not bool(frame.isfinite().all()):
            raise ConfigError("frame has NaN or infinite pixels; expected finite ones")

    def shape(self, config: BackboneConfig, slots: int | None = None) -> tuple[int, ...]:
        """[layers, 2 (key, value), B, heads, slots * tokens, head width]; slots: None for as many as the policy has."""
        tokens = config.tokens_per_frame(self.height, self.width, self.camera_token)
        return (config.depth, 2, self.batch, config.heads, (slots or self.policy.slots) * tokens, config.head_dim)

    def nbytes(self, config: BackboneConfig, slots: int | None = None) -> int:
        """Bytes of the cache; known before the first frame and constant for ever."""
        return math.prod(self.shape(config, slots)) * self.dtype.itemsize


class StreamState:
    """The slots, how many frames were seen, and where time stands. Create it through an engine or `Backbone.stream`."""

    def __init__(
        self,
        config: BackboneConfig,
        spec: StateSpec,
        *,
        start_index: int = 0,
        device: torch.device | str = "cpu",
        slots: int | None = None,
    ):
        """slots: allocate that many, for an engine that is fixed to more than the policy needs."""
        spec.check(config)
        self.spec = spec
        self.tokens = config.tokens_per_frame(spec.height, spec.width, spec.camera_token)
        self._buffer = torch.zeros(spec.shape(config, slots), dtype=spec.dtype, device=device)
        self.start_index = start_index
        self.frames_seen = 0
        self._attention = CacheAttention()
        self._times: list[Tensor] = []  # of the frames before and at frames_seen - 1; see `begin`
        self._coming = torch.zeros(1, dtype=torch.float64)

    @property
    def kv(self) -> Tensor:
        """The slots: [layers, 2 (key, value), B, heads, slots * tokens, head width]; frames seen come first."""
        return self._buffer

    @property
    def nbytes(self) -> int:
        """Bytes of the cache, whatever it holds."""
        return self._buffer.nbytes

    @property
    def filled(self) -> int:
        """Slots in use."""
        return self.spec.policy.filled(self.frames_seen)

    def reset(self, start_index: int | None = None) -> None:
        """Forget everything; the next frame is the first of a new stream. No memory is moved or freed."""
        self.frames_seen = 0
        self._times.clear()
        if start_index is not None:
            self.start_index = start_index

    def next_times(self, frames: int) -> Tensor:
        """[frames] or [B, frames] float64: one more than the frame before, and so on; `start_index` at first."""
        first = self._times[-1] + 1 if self._times else self.start_index
        return torch.arange(frames, dtype=torch.float64) + first

    def begin(self, times: Tensor | Sequence[float] | float | None = None) -> Tensor:
        """Times of the coming frame, [1] or [B, 1]: those given, else one more than the frame before.

        They are the last frame's once `advance` is called.
        """
        self._coming = self.next_times(1) if times is None else as_times(times, 1, self.spec.batch)
        return self._coming

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write the coming frame's k, v ([B, H, tokens, d]) into its slot and attend to all valid slots, unmasked.

        Valid slots are always the first `filled` ones, so a slice is all it takes.
        """
        start = self.spec.policy.slot(self.frames_seen) * self.tokens
        stop = self.spec.policy.filled(self.frames_seen + 1) * self.tokens
        keys, values = self.kv[layer]
        fresh = slice(start, start + self.tokens)
        keys[:, :, fresh] = k
        values[:, :, fresh] = v
        return self._attention(q, keys[:, :, :stop], values[:, :, :stop], fresh)

    def advance(self) -> None:
        """The coming frame has been written in every layer: it is now a frame seen."""
        self.frames_seen += 1
        self._times = [*self._times[-1:], self._coming]

    def take_back(self) -> None:
        """What followed the last frame failed, so it was not seen. Its slot holds nothing that any frame will see."""
        self.frames_seen -= 1
        self._times.pop()

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state as tensors, numbers and strings: enough to go on elsewhere, with any engine."""
        spec = self.spec
        return {
            "version": STATE_VERSION,
            "policy": str(spec.policy),
            "batch": spec.batch,
            "height": spec.height,
            "width": spec.width,
            "camera_token": spec.camera_token,
            "start_index": self.start_index,
            "frames_seen": self.frames_seen,
            "last_times": self._times[-1].flatten().tolist() if self._times else [],
            "kv": self.kv[..., : self.filled * self.tokens, :].detach().cpu().clone(),
        }

    def load_state_dict(self, data: dict[str, Any]) -> None:
        """Continue from a snapshot. It must have this state's policy, size and batch (`ConfigError` otherwise).

        Nothing changes unless all of it fits. That it was made with the same weights is the caller's to know.
        """
        layers, _, _, heads, _, width = self._buffer.shape
        check_snapshot(data, self.spec, (layers, heads, width), self.tokens)
        self._hold(self.spec.policy.filled(data["frames_seen"]))
        kv, last = data["kv"], data["last_times"]
        self.kv[..., : kv.shape[4], :] = kv.to(self.kv)
        self.start_index, self.frames_seen = data["start_index"], data["frames_seen"]
        self._times = [torch.tensor(last, dtype=torch.float64).reshape(-1, 1)] if last else []

    def _hold(self, slots: int) -> None:
        """Called before `slots` slots are loaded; what was held is lost."""


SNAPSHOT = {
    "version": int,
    "policy": str,
    "batch": int,
    "height": int,
    "width": int,
    "camera_token": bool,
    "start_index": int,
    "frames_seen": int,
    "last_times": list,
    "kv": Tensor,
}


def check_snapshot(data: Any, spec: StateSpec, model: tuple[int, int, int], tokens: int) -> None:
    """Raise ConfigError unless `data` is a snapshot of a stream like `spec`; nothing is allocated for it.

    model: (layers, heads, head width). tokens: of a frame.
    """
    if not isinstance(data, dict) or set(data) != set(SNAPSHOT):
        fields = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ConfigError(f"stream state has {fields}; expected the fields {sorted(SNAPSHOT)}")
    for name, kind in SNAPSHOT.items():
        if not isinstance(data[name], kind) or (kind is int and isinstance(data[name], bool)):
            raise ConfigError(f"stream state's {name} is a {type(data[name]).__name__}; expected {kind}")
    if data["version"] != STATE_VERSION:
        raise ConfigError(f"stream state has version {data['version']}; expected {STATE_VERSION}")
    found = (str(parse_policy(data["policy"])), data["batch"], data["height"], data["width"], data["camera_token"])
    expected = (str(spec.policy), spec.batch, spec.height, spec.width, spec.camera_token)
    if found != expected:
        raise ConfigError(f"stream state is (policy, batch, height, width, camera) {found}; expected {expected}")
    seen = data["frames_seen"]
    last = data["last_times"]
    if seen < 0 or len(last) not in ((1, spec.batch) if seen else (0,)):
        raise ConfigError(f"stream state has seen {seen} frames, the last at {last}; they contradict")
    as_times(last, len(last), 1)  # finite numbers
    layers, heads, width = model
    shape = (layers, 2, spec.batch, heads, spec.policy.filled(seen) * tokens, width)
    kv = data["kv"]
    if tuple(kv.shape) != shape:
        raise ConfigError(f"stream state holds keys of shape {tuple(kv.shape)}; expected {shape}")
    if not kv.is_floating_point() or not bool(kv.isfinite().all()):
        raise ConfigError("stream state holds keys that are not finite floating-point numbers")
