# SPDX-License-Identifier: Apache-2.0
"""Video files of any codec that FFmpeg knows (through PyAV), the mp4 files of LeRobot data sets among them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.extras import need
from omnistream.io.frames import DEFAULT_RATE, Frame, FrameSource

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".gif", ".wmv"})


class VideoSource(FrameSource):
    """The first video stream of a file. Stamps are the file's presentation times in seconds.

    Raises InputError naming the file if it holds no readable video; a packet that cannot be decoded is raised or
    skipped as `on_error` says, and so is an end that comes too early.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._av: Any = need("av", "io", "reading video")
        with self._open() as (_, stream):
            rate = float(stream.average_rate) if stream.average_rate else None
            codec = stream.codec_context.codec.canonical_name  # av1, not the decoder libdav1d
            size = f"{stream.codec_context.width}x{stream.codec_context.height}"
            self._declared = int(stream.frames)
        length = self._declared or None
        count = f"{length} frames, " if length else ""
        timing = f"{rate:g} Hz" if rate else "no declared rate"
        description = f"video {path.name}: {count}{size}, {codec}, {timing}"
        super().__init__(description=description, rate=rate, length=length)

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        try:
            container = self._av.open(str(self._path))
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{self._path}: cannot be read as video: {_reason(error)}") from error
        with container:
            if not container.streams.video:
                kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
                raise InputError(f"{self._path}: holds no video, only {', '.join(kinds)}")
            yield container, container.streams.video[0]

    def _read(self) -> Iterator[Frame]:
        period = 1 / (self.rate or DEFAULT_RATE)
        index, damaged, stamp = 0, self.skipped, 0.0
        with self._open() as (container, stream):
            for picture in self._pictures(container, stream):
                stamp = float(picture.pts * picture.time_base) if picture.pts is not None else index * period
                yield Frame(image=_upright(picture), stamp=stamp, index=index, name=f"{self._path.name}#{index}")
                index += 1
            # Containers cut short often end without an error. Frames that an edit list hides are not missing, so the
            # time has to be missing as well as the number.
            end = float((stream.start_time or 0) + (stream.duration or 0)) * float(stream.time_base or 0)
            if self.skipped == damaged and index < self._declared and stamp + 2.5 * period < end:
                found = f"ends after {index} of {self._declared} frames ({stamp:.2f} of {end:.2f} s)"
                self._unreadable(InputError(f"{self._path}: cut short: {found}"))
        if index == 0 and self.skipped == damaged:
            raise InputError(f"{self._path}: no frame of this video can be decoded")

    def _pictures(self, container: Any, stream: Any) -> Iterator[Any]:
        """Decoded frames. FFmpeg's errors are named; those inside a packet concern that packet alone."""
        packets = container.demux(stream)
        number = 0
        while True:
            try:
                packet = next(packets, None)
            except self._av.error.FFmpegError as error:
                self._unreadable(InputError(f"{self._path}: breaks off after packet {number}: {_reason(error)}"))
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except self._av.error.FFmpegError as error:
                if isinstance(error, self._av.error.EOFError):
                    return
                self._unreadable(InputError(f"{self._path}: packet {number} cannot be decoded: {_reason(error)}"))
            number += 1


def _upright(picture: Any) -> NDArray[np.uint8]:
    """u8 [H, W, 3] RGB, turned as the file says: phones store portrait video lying down."""
    image = picture.to_ndarray(format="rgb24")
    quarter_turns = round(getattr(picture, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _reason(error: BaseException) -> str:
    """FFmpeg's words without the number and the file name, which the message has already."""
    return str(getattr(error, "strerror", None) or error)
