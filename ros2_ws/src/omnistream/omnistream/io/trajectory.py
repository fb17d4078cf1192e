# SPDX-License-Identifier: Apache-2.0
"""Camera paths as text: TUM lines `stamp tx ty tz qx qy qz qw`, T_world_camera, metres and seconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream.io.files import write_bytes


def tum_text(poses: Iterable[tuple[float, NDArray[np.float64]]], comment: str = "") -> str:
    """(stamp in s, T_world_camera [4, 4]) pairs as TUM lines; `comment` lines go first, each behind a #."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for stamp, pose in poses:
        values = " ".join(f"{value:.9g}" for value in rigid.to_translation_quaternion(pose))
        lines.append(f"{stamp:.9f} {values}")
    return "".join(f"{line}\n" for line in lines)


def write_tum(path: Path, poses: Iterable[tuple[float, NDArray[np.float64]]], comment: str = "") -> None:
    """Write a TUM trajectory, atomically."""
    write_bytes(path, tum_text(poses, comment).encode())


def read_tum(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stamps [N] in s, strictly as in the file, and poses [N, 4, 4]. InputError names the file and what is wrong."""
    try:
        rows = np.loadtxt(path, dtype=np.float64, ndmin=2, comments="#")
        if rows.size and rows.shape[1] != 8:
            raise InputError(f"{path}: {rows.shape[1]} numbers in a line; expected 8: stamp tx ty tz qx qy qz qw")
        if not np.isfinite(rows).all():
            raise InputError(f"{path}: holds numbers that are not finite")
        rows = rows.reshape(-1, 8)
        return rows[:, 0], rigid.from_translation_quaternion(rows[:, 1:])
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a TUM trajectory: {error}") from error


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
