# SPDX-License-Identifier: Apache-2.0
"""Clips from video files, by a jump to the keyframe before them: the rest of the file is not decoded."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.extras import need
from omnistream.io.frames import DEFAULT_RATE, Frame
from omnistream.io.video import VIDEO_SUFFIXES
from omnistream_training.corpus.pictures import unlabelled
from omnistream_training.corpus.sampling import Sampler
from omnistream_training.corpus.store import FilePart, Part, Sample, Store
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.packed import fit
from omnistream_training.data.source import ClipRequest

EXTENSIONS = tuple(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))


class VideoClipSource:
    """Videos of a folder or of shards, see `ClipSource`. Needs PyAV (`pip install 'omnistream[io]'`)."""

    def __init__(self, path: str, nominal_rate: float, on_error: Literal["raise", "skip"] = "skip") -> None:
        self._av = need("av", "io", "reading video")
        self._rate = nominal_rate
        self.store = Store(Path(path).expanduser(), EXTENSIONS)
        self.sampler = Sampler(self.store, on_error)
        self.description = f"videos: {self.store.description}"

    def read(self, request: ClipRequest) -> ClipBatch:
        """Clips somewhere in the videos. A video too short for the stride is stepped through more slowly."""
        seconds = request.stride / self._rate

        def decode(sample: Sample, draw: random.Random) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
            part = sample.first(EXTENSIONS)
            assert part is not None
            return self._clip(part, request.frames, seconds, request.size, draw.random())

        near = request.numbers[0]
        clips = [self.sampler.draw(number, near, decode) for number in request.numbers]
        times = torch.from_numpy(np.stack([stamps for _, stamps in clips]) * self._rate)
        return unlabelled(np.stack([images for images, _ in clips]), times).to(request.device)

    def _clip(
        self, part: Part, frames: int, seconds: float, size: tuple[int, int], where: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Pictures [T, H, W, 3] about `seconds` apart, and their times from 0. where: 0 .. 1, among starts."""
        with self._open(part) as (container, stream):
            period = float(1 / (stream.average_rate or DEFAULT_RATE))
            length = self._length(container, stream, period)
            if length < (frames - 0.5) * period:
                raise InputError(f"{part.name}: {length:.2f} s at {1 / period:g} Hz; a clip takes {frames} frames")
            step = min(max(seconds, period), (length - period) / max(frames - 1, 1))
            begin = float((stream.start_time or 0) * stream.time_base)
            start = begin + where * max(0.0, length - period - (frames - 1) * step)
            container.seek(int(start / stream.time_base), stream=stream, backward=True)
            found: list[tuple[NDArray[np.uint8], float]] = []
            for picture in container.decode(stream):
                now = float(picture.pts * picture.time_base) if picture.pts is not None else start
                if now < start + len(found) * step - 0.5 * period:
                    continue
                image = np.ascontiguousarray(picture.to_ndarray(format="rgb24"))
                turns = round(getattr(picture, "rotation", 0) / 90) % 4
                image = np.ascontiguousarray(np.rot90(image, turns)) if turns else image
                found.append((fit(Frame(image=image, stamp=now, index=0, name=part.name), size)[0], now))
                if len(found) == frames:
                    break
        if len(found) < frames:
            raise InputError(f"{part.name}: ends after {len(found)} of the {frames} frames of a clip; it is cut short")
        stamps = np.array([now for _, now in found])
        return np.stack([image for image, _ in found]), stamps - stamps[0]

    def _length(self, container: Any, stream: Any, period: float) -> float:
        """Seconds; containers tell it in different places."""
        if stream.duration:
            return float(stream.duration * stream.time_base)
        if stream.frames:
            return stream.frames * period
        return float(Fraction(container.duration or 0, self._av.time_base))

    @contextmanager
    def _open(self, part: Part) -> Iterator[tuple[Any, Any]]:
        """Errors of FFmpeg become InputErrors that name the file, those while decoding too."""
        target = str(part.path) if isinstance(part, FilePart) else io.BytesIO(part.read())
        try:
            with self._av.open(target) as container:
                if not container.streams.video:
                    raise InputError(f"{part.name}: holds no video")
                stream = container.streams.video[0]
                stream.thread_type = "NONE"  # workers read several videos at once
                yield container, stream
        except (self._av.error.FFmpegError, OSError) as error:
            raise InputError(f"{part.name}: cannot be read as video: {error}") from error
