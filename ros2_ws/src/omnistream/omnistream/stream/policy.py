# SPDX-License-Identifier: Apache-2.0
"""What a frame may see, as one pure function. The batch mask and the slots of the cache both come from it.

full:N              every earlier frame; `StreamFull` at frame N + 1
window:W            itself and the W - 1 frames before it
sink_window:S,W     the first S frames of the stream and the last W (itself included)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from omnistream.errors import ConfigError, StreamFull


@dataclass(frozen=True)
class CachePolicy:
    """`sinks` first frames stay visible for ever, `window` last frames slide; `window` None: no limit (batch only).

    `evicts` False is `full:N`: nothing is ever overwritten.
    """

    sinks: int
    window: int | None
    evicts: bool = True

    def __str__(self) -> str:
        if not self.evicts:
            return "full" if self.window is None else f"full:{self.window}"
        return f"sink_window:{self.sinks},{self.window}" if self.sinks else f"window:{self.window}"

    @property
    def slots(self) -> int:
        """Frames the cache holds. `ConfigError` if unbounded: a stream's memory is known before it starts."""
        if self.window is None:
            raise ConfigError("policy 'full' has no bound; a stream needs one, such as 'full:64' or 'window:16'")
        return self.sinks + self.window

    def sees(self, query: int, key: int) -> bool:
        """Whether frame `query` sees frame `key`, both counted from 0, the first frame since the reset."""
        if key > query:
            return False
        if not self.evicts or self.window is None:
            return True
        return key < self.sinks or query - key < self.window

    def slot(self, frame: int) -> int:
        """Where frame `frame` is written. The slots then hold exactly the frames that `frame` sees."""
        if not self.evicts:
            self.check(frame + 1)
            return frame
        if frame < self.sinks:
            return frame
        assert self.window is not None  # an evicting policy has a window (see parse_policy)
        return self.sinks + (frame - self.sinks) % self.window

    def filled(self, frames_seen: int) -> int:
        """Slots in use after `frames_seen` frames; they are slots 0 .. filled - 1."""
        return min(frames_seen, self.slots)

    def check(self, frames: int) -> None:
        """Raise `StreamFull` if a stream of `frames` frames does not fit (`full:N` only)."""
        if not self.evicts and self.window is not None and frames > self.window:
            raise StreamFull(
                f"the stream has {frames} frames, but policy {self} holds {self.window}; reset it, or let it slide"
            )

    def visibility(self, frames: int) -> Tensor:
        """[frames, frames] bool: row i is what frame i of a clip sees."""
        self.check(frames)
        query, key = torch.arange(frames)[:, None], torch.arange(frames)[None]
        seen = key <= query
        if self.evicts and self.window is not None:
            seen &= (key < self.sinks) | (query - key < self.window)
        return seen


def parse_policy(text: str | CachePolicy) -> CachePolicy:
    """Read `full`, `full:N`, `window:W` or `sink_window:S,W`; anything else is a `ConfigError`."""
    if isinstance(text, CachePolicy):
        return text
    if text == "full":
        return CachePolicy(0, None, evicts=False)
    if not isinstance(text, str):
        raise ConfigError(f"cache policy is {text!r}; expected full:N, window:W or sink_window:S,W")
    match = re.fullmatch(r"(full|window):(\d+)|sink_window:(\d+),(\d+)", text.replace(" ", ""))
    if match is None:
        raise ConfigError(f"cache policy {text!r} is not understood; expected full:N, window:W or sink_window:S,W")
    kind, count, sinks, window = match.groups()
    policy = (
        CachePolicy(int(sinks), int(window)) if kind is None else CachePolicy(0, int(count), evicts=kind == "window")
    )
    if policy.window is None or policy.window < 1:
        raise ConfigError(f"cache policy {text!r} has a window of {policy.window} frames; expected at least 1")
    return policy
