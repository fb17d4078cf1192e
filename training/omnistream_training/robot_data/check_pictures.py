# SPDX-License-Identifier: Apache-2.0
"""Checks of pictures: frozen, black, white, damaged. One picture per camera is in memory at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistream.episodes import Episode
from omnistream.errors import InputError
from omnistream_training.robot_data.check_rules import Finding, Limits

THUMBNAIL = (160, 120)
"""Greatest width and height, pixels."""


class PictureChecks:
    """Reads an episode's pictures, in whole or its first ones, and says what is wrong with them."""

    def __init__(self, rate: float, limits: Limits, most: int | None) -> None:
        """most: pictures per episode and camera that are looked at; None: all."""
        self._rate, self._limits, self._most = rate, limits, most
        self._seen: dict[str, list[int]] = {}
        """Per camera: pictures read, frozen, dark, bright."""
        self._runs: dict[str, tuple[int, int]] = {}
        """Per camera: longest run of frozen pictures, and its episode."""
        self._damaged: list[Finding] = []
        self.thumbnails: dict[str, list[NDArray[np.uint8]]] = {}
        """First pictures of the first episodes, small."""

    def add(self, episode: Episode, idle: NDArray[np.bool_]) -> None:
        """Look at an episode. idle [T]: where the robot stands still, and pictures may too."""
        for camera in episode.cameras:
            try:
                self._camera(episode, camera, idle)
            except InputError as error:
                self._damaged.append(Finding("error", "picture", f"camera {camera}", str(error)))

    def _camera(self, episode: Episode, camera: str, idle: NDArray[np.bool_]) -> None:
        counts = self._seen.setdefault(camera, [0, 0, 0, 0])
        stop = len(episode) if self._most is None else min(self._most, len(episode))
        last, run = None, 0
        for t, image in enumerate(episode.frames(camera, 0, stop)):
            if t == 0 and len(self.thumbnails.setdefault(camera, [])) < 8:
                small = Image.fromarray(image)
                small.thumbnail(THUMBNAIL)
                self.thumbnails[camera].append(np.asarray(small))
            counts[0] += 1
            brightness = float(image[::4, ::4].mean())
            counts[2] += brightness < self._limits.dark
            counts[3] += brightness > 255 - self._limits.dark
            checksum = zlib.crc32(image.data)
            if checksum == last and not idle[t - 1]:
                counts[1] += 1
                run += 1
                if run > self._runs.get(camera, (0, 0))[0]:
                    self._runs[camera] = (run, episode.info.index)
            else:
                run = 0
            last = checksum

    def findings(self) -> Iterator[Finding]:
        """What is wrong."""
        yield from self._damaged
        for camera, (seen, frozen, dark, bright) in self._seen.items():
            where = f"camera {camera}"
            run, episode = self._runs.get(camera, (0, 0))
            if run / self._rate >= self._limits.frozen_run:
                text = f"frozen for {run / self._rate:.2f} s in episode {episode} while the robot is told to move"
                yield Finding("error", "frozen", where, text)
            elif seen and frozen / seen > self._limits.frozen:
                text = f"{frozen / seen:.0%} of the pictures repeat the one before: does it deliver less than the rate?"
                yield Finding("warning", "frozen", where, text)
            for count, name in ((dark, "black"), (bright, "white")):
                if count:
                    yield Finding("warning", name, where, f"{count} of {seen} pictures are {name}")

    def numbers(self) -> dict[str, Any]:
        """For the report, by camera."""
        names = ("read", "frozen", "dark", "bright")
        return {camera: dict(zip(names, counts, strict=True)) for camera, counts in self._seen.items()}
