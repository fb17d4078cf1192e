# SPDX-License-Identifier: Apache-2.0
"""What every input looks like from inside: a `FrameSource` gives `Frame`s, whatever it reads them from."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError, OptionError

OnError = Literal["raise", "skip"]

DEFAULT_RATE = 30.0
"""Hz, for pictures that come without any time."""

DEFAULT_FRAME_ID = "camera_optical_frame"


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One picture and what its source knows about it."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB, contiguous. May be a read-only view: copy before changing it."""
    stamp: float
    """Seconds. From the header of a message, the time in a video or a stamps file; else index / rate."""
    index: int
    """0, 1, 2, ... as given out by the source."""
    name: str
    """File name, or topic and number: for messages to people."""
    frame_id: str = DEFAULT_FRAME_ID
    K: NDArray[np.float64] | None = None
    """[3, 3] pinhole intrinsics in pixels of `image`, None if unknown."""
    D: tuple[float, ...] = ()
    """Distortion coefficients in the order of `distortion_model`; empty means none or unknown."""
    distortion_model: str = ""
    """plumb_bob, rational_polynomial, equidistant, ... or "" if unknown."""
    depth: NDArray[np.float32] | None = None
    """[h, w] reference depth along the optical axis in metres, NaN where there is none. h, w may differ from H, W."""
    T_world_camera: NDArray[np.float64] | None = None
    """[4, 4] reference pose of the camera (OpenCV optical axes) in the recording's world, metres."""


class FrameSource(ABC):
    """An input that can be iterated, again and again; each iteration starts at its first frame.

        with_depth = [frame for frame in open_source("recording/") if frame.depth is not None]

    Attributes:
        description: one line about what was found, for people.
        rate: nominal frames per second, None if unknown.
        length: number of frames, None if unknown before reading. `len(source)` works where it is known.
        skipped: unreadable frames left out in the current iteration (`on_error="skip"`).
        skip_reasons: the first few of their messages.
    """

    MAX_REASONS = 20

    def __init__(self, *, description: str, rate: float | None, length: int | None) -> None:
        self.description = description
        self.rate = rate
        self.length = length
        self.loop = False
        self.on_error: OnError = "raise"
        self.skipped = 0
        self.skip_reasons: list[str] = []
        self._restamp = False

    def configure(self, *, rate: float | None, loop: bool, on_error: OnError) -> FrameSource:
        """Set what is the same for all sources; see `open_source`. Returns self."""
        if rate is not None:
            if not (np.isfinite(rate) and rate > 0):
                raise OptionError(f"rate is {rate}; expected frames per second above 0")
            self.rate, self._restamp = rate, True
        if on_error not in ("raise", "skip"):
            raise OptionError(f"on_error is {on_error!r}; expected 'raise' or 'skip'")
        self.loop, self.on_error = loop, on_error
        return self

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """All frames once, with the stamps of the recording. Files are opened here and closed when it ends."""

    def __iter__(self) -> Iterator[Frame]:
        self.skipped = 0
        self.skip_reasons = []
        index, offset = 0, 0.0
        period = 1 / (self.rate or DEFAULT_RATE)
        while True:
            first: float | None = None
            last = 0.0
            for frame in self._read():
                first, last = frame.stamp if first is None else first, frame.stamp
                stamp = index * period if self._restamp else frame.stamp + offset
                yield dataclasses.replace(frame, index=index, stamp=stamp)
                index += 1
            if not self.loop or first is None:
                return
            offset += last - first + period  # time goes on across the seam; it never goes back

    def __len__(self) -> int:
        if self.length is None or self.loop:
            raise TypeError(f"{self.description} does not know its number of frames")
        return self.length

    def __bool__(self) -> bool:
        return True  # a source is a thing, not a container: do not ask for its length

    def _unreadable(self, error: InputError) -> None:
        """Raise `error`, or count it and go on, as `on_error` says."""
        if self.on_error == "raise":
            raise error
        self.skipped += 1
        if len(self.skip_reasons) < self.MAX_REASONS:
            self.skip_reasons.append(str(error))
