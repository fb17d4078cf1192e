# SPDX-License-Identifier: Apache-2.0
"""One camera of an episode as video: written at a constant rate, read back picture by picture and checked by time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError, InputError
from omnistream.io.extras import need

CODECS: dict[str, dict[str, str]] = {
    "libx264": {"g": "2", "crf": "18", "preset": "veryfast"},
    "libsvtav1": {"g": "2", "crf": "24", "preset": "10", "svtav1-params": "lp=1"},
}
"""Options by codec. A key picture every second one: readers that jump about decode one picture too many at most."""


class VideoEncoder:
    """Writes an mp4; a context manager. Sides must be even (4:2:0 chroma)."""

    def __init__(self, path: Path, rate: float, height: int, width: int, codec: str = "libx264") -> None:
        if codec not in CODECS:
            raise ConfigError(f"video codec is {codec!r}; expected one of {', '.join(CODECS)}")
        if height % 2 or width % 2:
            raise ConfigError(f"video of {width}x{height} pixels; expected even sides, or storage image or jpeg")
        self._av: Any = need("av", "io", "writing video")
        self._container = self._av.open(str(path), "w")
        fps = Fraction(rate).limit_denominator(1000)
        self._stream = self._container.add_stream(codec, rate=fps, options=CODECS[codec])
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.thread_count = 1  # several encoders at once share the machine anyway

    def __enter__(self) -> VideoEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, image: NDArray[np.uint8]) -> None:
        """u8 [H, W, 3]."""
        self._container.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(image, format="rgb24")))

    def close(self) -> None:
        """Finish the file."""
        if self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
            self._container = None


def read_video(path: Path, first: float, rate: float, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures [start, stop) of the episode that begins `first` seconds into the file, at `rate` Hz.

    A picture is taken if its time is within half a period of where it should be. InputError names the file and the
    picture if one is missing or the file is damaged.
    """
    if start == stop:
        return
    av: Any = need("av", "io", "reading video")
    where, period = start, 1 / rate
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            at = first + start * period
            if at > period:
                container.seek(math.floor((at - period) / stream.time_base), stream=stream, backward=True)
            for picture in container.decode(stream):
                if picture.time is None or picture.time < first + (where - 0.5) * period:
                    continue
                if picture.time > first + (where + 0.5) * period:
                    break
                yield picture.to_ndarray(format="rgb24")
                where += 1
                if where == stop:
                    return
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as video at picture {where}: {reason}") from error
    raise InputError(f"{path}: no picture {where} ({first + where * period:.3f} s); the video ends early or has a gap")
