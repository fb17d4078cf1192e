# SPDX-License-Identifier: Apache-2.0
"""Folders of pictures, with the side files that public RGB-D recordings put next to them.

    frame-000000.color.jpg  frame-000000.depth.png  frame-000000.pose.txt  camera-intrinsics.txt      7-Scenes
    1.png  1_depth.png                                                                                TUM-style pairs
    a.jpg  b.png  ...                                                                                 plain pictures

Order is natural (2 before 10). Stamps come from names that are a time (1305031102.175304.png in seconds,
1403636579763555584.png in nanoseconds), else index / rate.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError, OptionError
from omnistream.io.files import IMAGE_SUFFIXES, natural_key, read_depth, read_intrinsics, read_pose, read_rgb
from omnistream.io.frames import DEFAULT_RATE, Frame, FrameSource

SEVEN_SCENES_DEPTH = 1 / 1000
"""Metres per unit of a `.depth.png` (7-Scenes: millimetres)."""
TUM_DEPTH = 1 / 5000
"""Metres per unit of a `_depth.png` (TUM RGB-D file formats: 5000 is one metre)."""
INTRINSICS = "camera-intrinsics.txt"


@dataclass(frozen=True)
class Shot:
    """One picture and its side files."""

    image: Path
    depth: Path | None = None
    depth_scale: float = 0.0
    pose: Path | None = None


class FolderSource(FrameSource):
    """The pictures of a folder, or one picture file."""

    def __init__(self, path: Path, pattern: str | None = None, depth_scale: float | None = None) -> None:
        """path: a folder, or an image file. pattern: which files, as in `frame-*.color.jpg`; default all pictures.

        depth_scale: metres per unit of the depth files, default by their naming convention.
        Raises InputError if there is nothing to read, saying what is there instead.
        """
        folder = path if path.is_dir() else path.parent
        images = list_images(folder, pattern) if path.is_dir() else [path]
        self._shots = [_side_files(image, depth_scale) for image in images]
        intrinsics = folder / INTRINSICS
        self._K = read_intrinsics(intrinsics) if intrinsics.is_file() else None
        self._stamps = stamps_from_names(images)
        super().__init__(description=self._describe(path), rate=self._rate(), length=len(images))

    def _rate(self) -> float:
        if self._stamps is None or len(self._stamps) < 2:
            return DEFAULT_RATE
        period = float(np.median(np.diff(self._stamps)))
        return 1 / period if period > 0 else DEFAULT_RATE

    def _describe(self, path: Path) -> str:
        count = len(self._shots)
        words = [f"{count} image{'s' if count != 1 else ''} in {path.name or path}"]
        scales = Counter(shot.depth_scale for shot in self._shots if shot.depth)
        words += [f"{number} with depth (1/{1 / scale:g} m)" for scale, number in scales.items()]
        poses = sum(shot.pose is not None for shot in self._shots)
        words += [f"{poses} with pose"] if poses else []
        words += ["intrinsics"] if self._K is not None else []
        words += ["stamps from the names"] if self._stamps is not None else []
        return ", ".join(words)

    def _read(self) -> Iterator[Frame]:
        for index, shot in enumerate(self._shots):
            try:
                frame = Frame(
                    image=read_rgb(shot.image, upright=self._K is None),
                    stamp=index / (self.rate or DEFAULT_RATE) if self._stamps is None else self._stamps[index],
                    index=index,
                    name=shot.image.name,
                    K=self._K,
                    depth=None if shot.depth is None else read_depth(shot.depth, shot.depth_scale),
                    T_world_camera=None if shot.pose is None else read_pose(shot.pose),
                )
            except InputError as error:
                self._unreadable(error)
                continue
            yield frame


def list_images(folder: Path, pattern: str | None = None) -> list[Path]:
    """The pictures of a folder in natural order, without the depth maps that belong to other pictures in it."""
    if pattern is not None:
        try:
            found = [path for path in folder.glob(pattern) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
        except (ValueError, NotImplementedError) as error:
            raise OptionError(f"pattern {pattern!r} is not one for files in {folder}: {error}") from error
        if not found:
            raise OptionError(f"no image in {folder} matches {pattern!r}; {_contents(folder)}")
        return sorted(found, key=natural_key)
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    found = [path for path in found if not path.name.startswith(".")]
    colour = [path for path in found if ".color." in path.name]
    if colour:  # 7-Scenes: all else is side files
        return sorted(colour, key=natural_key)
    stems = {path.stem for path in found}
    found = [path for path in found if not (path.stem.endswith("_depth") and path.stem[: -len("_depth")] in stems)]
    if not found:
        raise InputError(f"no images in {folder}; {_contents(folder)}")
    return sorted(found, key=natural_key)


def _contents(folder: Path) -> str:
    """What a folder holds instead, for the error message."""
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    kinds = Counter(path.suffix.lower() or path.name for path in entries if path.is_file())
    words = [f"{count} {kind}" for kind, count in kinds.most_common(6)]
    inside = []
    for child in sorted(path for path in entries if path.is_dir()):
        count = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in child.iterdir())
        inside.append(f"{child.name}/ ({count} images)" if count else f"{child.name}/")
    return "it holds " + (", ".join(words + inside[:6]) or "nothing")


def _side_files(image: Path, depth_scale: float | None) -> Shot:
    def existing(name: str) -> Path | None:
        path = image.with_name(name)
        return path if path.is_file() else None

    base, colour, _ = image.name.partition(".color.")
    if colour:
        return Shot(
            image, existing(f"{base}.depth.png"), depth_scale or SEVEN_SCENES_DEPTH, existing(f"{base}.pose.txt")
        )
    return Shot(image, existing(f"{image.stem}_depth.png"), depth_scale or TUM_DEPTH)


def stamps_from_names(images: Sequence[Path]) -> NDArray[np.float64] | None:
    """Seconds, if every name is a time: seconds with a fraction, or 19 digits of nanoseconds. Else None."""
    rules: tuple[tuple[str, Callable[[str], float]], ...] = (
        (r"\d{9,10}\.\d+", float),
        (r"\d{19}", lambda stem: int(stem) / 1e9),
    )
    for rule, value in rules:
        if all(re.fullmatch(rule, image.stem) for image in images):
            return np.array([value(image.stem) for image in images])
    return None
