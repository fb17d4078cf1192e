# SPDX-License-Identifier: Apache-2.0
"""The folder of the TUM RGB-D benchmark: rgb.txt, and depth.txt and groundtruth.txt where they exist.

Each list is `stamp file` per line. Depth and pose belong to the picture nearest in time, within 20 ms (the benchmark's
own association tool uses that as its default). Depth is 1/5000 m.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.files import read_depth, read_rgb
from omnistream.io.folder import TUM_DEPTH
from omnistream.io.frames import DEFAULT_RATE, Frame, FrameSource
from omnistream.io.trajectory import nearest, read_tum

LIST = "rgb.txt"
MAX_DIFFERENCE = 0.02
"""Seconds between a picture and its depth or pose."""


class TumFolderSource(FrameSource):
    """Reads such a folder; InputError names the list file that is wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamps, self._images = read_list(folder / LIST)
        if not self._images:
            raise InputError(f"{folder / LIST}: lists no images")
        parts = [f"TUM RGB-D folder {folder.name}: {len(self._images)} images"]
        self._depth: dict[int, str] = {}
        if (folder / "depth.txt").is_file():
            stamps, files = read_list(folder / "depth.txt")
            pairs = nearest(self._stamps, stamps, MAX_DIFFERENCE)
            self._depth = {index: files[other] for index, other in enumerate(pairs) if other >= 0}
            parts.append(f"{len(self._depth)} with depth")
        self._poses: dict[int, NDArray[np.float64]] = {}
        if (folder / "groundtruth.txt").is_file():
            times, poses = read_tum(folder / "groundtruth.txt")
            pairs = nearest(self._stamps, times, MAX_DIFFERENCE)
            self._poses = {index: poses[other] for index, other in enumerate(pairs) if other >= 0}
            parts.append(f"{len(self._poses)} with pose")
        period = float(np.median(np.diff(self._stamps))) if len(self._stamps) > 1 else 0.0
        rate = 1 / period if period > 0 else DEFAULT_RATE
        super().__init__(description=", ".join(parts), rate=rate, length=len(self._images))

    def _read(self) -> Iterator[Frame]:
        for index, name in enumerate(self._images):
            depth = self._depth.get(index)
            try:
                frame = Frame(
                    image=read_rgb(self._folder / name, upright=False),
                    stamp=float(self._stamps[index]),
                    index=index,
                    name=Path(name).name,
                    depth=None if depth is None else read_depth(self._folder / depth, TUM_DEPTH),
                    T_world_camera=self._poses.get(index),
                )
            except InputError as error:
                self._unreadable(error)
                continue
            yield frame


def read_list(path: Path) -> tuple[NDArray[np.float64], list[str]]:
    """Stamps [N] in s and file names of `stamp file` lines; # starts a comment. InputError names file and line."""
    stamps, files = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        try:
            stamp, name = float(words[0]), words[1]
        except (ValueError, IndexError):
            raise InputError(f"{path}: line {number} is {line!r}; expected 'stamp file'") from None
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path}: line {number} names {name!r}; expected a file inside the folder")
        stamps.append(stamp)
        files.append(name)
    return np.array(stamps), files
