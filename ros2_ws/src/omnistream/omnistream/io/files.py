# SPDX-License-Identifier: Apache-2.0
"""Small things about files: pictures and matrices from disk, natural order, and writing without half-written files."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from omnistream.errors import InputError
from omnistream.io.pixels import PICTURE_FORMATS, UNREADABLE, millimetres_to_metres, pillow_to_rgb
from omnistream.io.tables import read_table

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


def natural_key(path: Path | str) -> list[tuple[int, int, str]]:
    """Sort key that counts: frame2 before frame10, 1.png before 1_depth.png before 2.png."""
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts if part]


def read_rgb(path: Path, upright: bool = True) -> NDArray[np.uint8]:
    """A picture file as u8 [H, W, 3] RGB.

    upright: turn it as its EXIF tag says (photos of a phone); pass False where intrinsics belong to the stored pixels.
    Raises InputError naming the file if it is missing, truncated or no picture.
    """
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as picture:
            return pillow_to_rgb(ImageOps.exif_transpose(picture) if upright else picture)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as an image: {error}") from error


def read_depth(path: Path, scale: float) -> NDArray[np.float32]:
    """A 16-bit grey PNG as f32 [H, W] metres: value * scale; 0 and 65535 (saturated) become NaN."""
    try:
        with Image.open(path, formats=("PNG", "TIFF")) as picture:
            if not picture.mode.startswith("I"):
                raise InputError(f"{path}: depth image has mode {picture.mode}; expected one channel of 16 bits")
            values = np.asarray(picture)
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as a depth image: {error}") from error
    depth = millimetres_to_metres(values, scale)
    depth[values >= 65535] = np.nan
    return depth


def read_matrix(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A text file of numbers as a float64 matrix of `shape`; InputError names the file, and the line that is wrong."""
    matrix, _ = read_table(path, shape[1], f"a row of a {shape[0]}x{shape[1]} matrix", finite=False)
    if len(matrix) != shape[0]:
        raise InputError(f"{path}: {len(matrix)} rows of {shape[1]} numbers; expected {shape[0]}x{shape[1]}")
    return matrix


def read_pose(path: Path) -> NDArray[np.float64] | None:
    """A 4x4 camera-to-world matrix from text; None where tracking was lost (NaN or infinite, as 7-Scenes writes it)."""
    pose = read_matrix(path, (4, 4))
    if not np.isfinite(pose).all():
        return None
    off = np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max()
    if off > 1e-2 or not np.allclose(pose[3], (0, 0, 0, 1)):
        raise InputError(f"{path}: not a rigid transform (rotation is off by {off:.2g}); expected a 4x4 camera pose")
    return pose


def read_intrinsics(path: Path) -> NDArray[np.float64]:
    """K [3, 3] in pixels from text; InputError if it is no pinhole matrix."""
    K, lines = read_table(path, 3, "fx 0 cx, then 0 fy cy, then 0 0 1")
    if len(K) != 3:
        raise InputError(f"{path}: {len(K)} rows of 3 numbers; expected 3x3 pinhole intrinsics")
    for row, good in enumerate((K[0, 0] > 0, K[1, 1] > 0, np.allclose(K[2], (0, 0, 1)))):
        if not good:
            raise InputError(
                f"{path}: line {lines[row]} holds {K[row].tolist()}; expected {('fx 0 cx', '0 fy cy', '0 0 1')[row]} "
                "with focal lengths above 0"
            )
    return K


def temporary_path(path: Path) -> Path:
    """A hidden name next to `path` with the same suffix, to be renamed to it when the file is whole: this thread's."""
    return path.with_name(f".{path.stem}-{os.getpid()}-{threading.get_ident()}{path.suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` that takes its place when the block ends well, and vanishes when it does not.

    Readers therefore see the old file or the whole new one. The folder is made if missing; the suffix is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy, atomically; no pickles."""
    with replacing(path) as temporary:
        np.save(temporary, array, allow_pickle=False)
