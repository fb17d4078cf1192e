# SPDX-License-Identifier: Apache-2.0
"""Camera paths as text: TUM lines `stamp tx ty tz qx qy qz qw`, T_world_camera, metres and seconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream.io.files import temporary_path
from omnistream.io.tables import read_table


def tum_line(stamp: float, T_world_camera: NDArray[np.float64]) -> str:
    """One line, with its end."""
    values = " ".join(f"{value:.9g}" for value in rigid.to_translation_quaternion(T_world_camera))
    return f"{stamp:.9f} {values}\n"


def write_tum(path: Path, poses: Iterable[tuple[float, NDArray[np.float64]]], comment: str = "") -> None:
    """Write (stamp in s, T_world_camera [4, 4]) pairs, atomically; the lines of `comment` go first, behind a #."""
    with TumWriter(path, comment) as writer:
        for stamp, pose in poses:
            writer.add(stamp, pose)


class TumWriter:
    """Writes a trajectory as it comes; a context manager. The file appears under its name when it is closed."""

    def __init__(self, path: Path, comment: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._temporary = path, temporary_path(path)
        self._file = self._temporary.open("w", encoding="utf-8")
        self.comment(comment)

    def __enter__(self) -> TumWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(keep=kind is None)

    def comment(self, text: str) -> None:
        """Add lines that readers of the format pass over."""
        self._file.writelines(f"# {line}\n" for line in text.splitlines())

    def add(self, stamp: float, T_world_camera: NDArray[np.float64]) -> None:
        """Add a pose [4, 4] at `stamp` seconds."""
        self._file.write(tum_line(stamp, T_world_camera))

    def close(self, keep: bool = True) -> None:
        """Finish the file; `keep=False` throws it away."""
        self._file.close()
        if keep:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


def read_tum(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stamps [N] in s, in the order of the file, and poses [N, 4, 4]. InputError names the file and the line."""
    rows, lines = read_table(path, 8, "stamp tx ty tz qx qy qz qw")
    short = np.flatnonzero(np.linalg.norm(rows[:, 4:], axis=1) < 1e-12)
    if short.size:
        raise InputError(
            f"{path}: line {lines[short[0]]} has a quaternion of length 0; expected qx qy qz qw of length 1"
        )
    return rows[:, 0], rigid.from_translation_quaternion(rows[:, 1:])


def nearest(stamps: ArrayLike, others: ArrayLike, max_difference: float) -> NDArray[np.intp]:
    """For each of `stamps` [N] the index of the nearest of `others` [M] within max_difference seconds, or -1 -> [N]."""
    a, b = np.asarray(stamps, np.float64), np.asarray(others, np.float64)
    if b.size == 0:
        return np.full(a.shape, -1, np.intp)
    order = np.argsort(b, kind="stable")
    ordered = b[order]
    right = np.clip(np.searchsorted(ordered, a), 1, max(1, b.size - 1))
    left, right = right - 1, np.minimum(right, b.size - 1)
    best = np.where(np.abs(ordered[left] - a) <= np.abs(ordered[right] - a), left, right)
    return np.where(np.abs(ordered[best] - a) <= max_difference, order[best], -1)
