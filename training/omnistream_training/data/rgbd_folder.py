# SPDX-License-Identifier: Apache-2.0
"""Folders with one subfolder per kind of file: ScanNet as its SensReader exports it, and what people lay out like it.

    color/0.jpg   depth/0.png   pose/0.txt   intrinsic/intrinsic_color.txt       (rgb/ and image/, poses/ will do too)

Files belong together by their names' numbers. Depth is 16 bit, millimetres, registered to the colour camera. A pose is
a 4 x 4 T_world_camera in metres; ScanNet writes -inf where tracking was lost, which is "unknown" here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.files import (
    IMAGE_SUFFIXES,
    natural_key,
    read_depth,
    read_intrinsics,
    read_matrix,
    read_pose,
    read_rgb,
)
from omnistream.io.frames import DEFAULT_RATE, Frame, FrameSource
from omnistream.io.recording import HEADER
from omnistream.io.tum_folder import LIST

COLOUR = ("color", "rgb", "image")
POSE = ("pose", "poses")
INTRINSICS = ("intrinsic/intrinsic_color.txt", "intrinsics.txt", "camera-intrinsics.txt")
DEPTH_SCALE = 0.001


def is_rgbd_folder(folder: Path) -> bool:
    """Whether there are colour and depth subfolders, and no list that makes it another kind of recording."""
    listed = any((folder / name).is_file() for name in (HEADER, LIST))
    return not listed and (folder / "depth").is_dir() and _subfolder(folder, COLOUR) is not None


def rgbd_pictures(folder: Path) -> list[Path]:
    """The colour pictures of such a folder in natural order."""
    colour = _subfolder(folder, COLOUR)
    found = [] if colour is None else [p for p in colour.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found, key=natural_key)


class RgbdFolderSource(FrameSource):
    """Reads such a folder. InputError names the file that is wrong."""

    def __init__(self, folder: Path, rate: float = DEFAULT_RATE) -> None:
        colour = _subfolder(folder, COLOUR)
        if colour is None:
            raise InputError(f"{folder} has none of {', '.join(COLOUR)}; expected a folder of pictures beside depth/")
        self._images = rgbd_pictures(folder)
        if not self._images:
            raise InputError(f"{colour}: no images")
        self._depth = {p.stem: p for p in (folder / "depth").glob("*.png")}
        poses = _subfolder(folder, POSE)
        self._poses = {} if poses is None else {p.stem: p for p in poses.glob("*.txt")}
        self._K = _intrinsics(folder)
        parts = [f"RGB-D folder {folder.name}: {len(self._images)} images, {len(self._depth)} depth"]
        parts += [f"{len(self._poses)} poses", "intrinsics" if self._K is not None else "no intrinsics"]
        super().__init__(description=", ".join(parts), rate=rate, length=len(self._images))

    def _read(self) -> Iterator[Frame]:
        assert self.rate is not None
        for index, path in enumerate(self._images):
            depth, pose = self._depth.get(path.stem), self._poses.get(path.stem)
            try:
                frame = Frame(
                    image=read_rgb(path, upright=False),
                    stamp=index / self.rate,
                    index=index,
                    name=path.name,
                    K=self._K,
                    depth=None if depth is None else read_depth(depth, DEPTH_SCALE),
                    T_world_camera=None if pose is None else read_pose(pose),
                )
            except InputError as error:
                self._unreadable(error)
                continue
            yield frame


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _intrinsics(folder: Path) -> NDArray[np.float64] | None:
    path = next((folder / name for name in INTRINSICS if (folder / name).is_file()), None)
    if path is None:
        return None
    if path.name == "intrinsic_color.txt":
        return read_matrix(path, (4, 4))[:3, :3]  # ScanNet pads K to 4 x 4
    return read_intrinsics(path)
