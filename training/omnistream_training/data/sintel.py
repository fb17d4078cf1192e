# SPDX-License-Identifier: Apache-2.0
"""The binary files of MPI Sintel's depth training set, .dpt and .cam: little endian, first the number 202021.25."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.geometry import rigid

TAG = np.float32(202021.25)
MAX_SIDE = 100_000


def read_dpt(path: Path) -> NDArray[np.float32]:
    """Depth [H, W] in m. Layout: tag f32, width i32, height i32, then f32 row by row."""
    data = _tagged(path)
    if len(data) < 8:
        raise InputError(f"{path}: {len(data)} bytes behind the tag; expected width and height")
    width, height = (int(side) for side in np.frombuffer(data, "<i4", 2))
    if not (0 < width < MAX_SIDE and 0 < height < MAX_SIDE) or len(data) != 8 + 4 * width * height:
        raise InputError(f"{path}: {width} x {height} pixels do not fit {len(data) - 8} bytes of depth")
    depth = np.frombuffer(data, "<f4", offset=8).reshape(height, width).astype(np.float32)
    broken = int(depth.size - np.isfinite(depth).sum())
    if broken:
        raise InputError(f"{path}: {broken} of {depth.size} depths are not finite; a rendered scene has none of those")
    return depth


def read_cam(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """K [3, 3] and T_world_camera [4, 4]. Layout: tag f32, K 9 f64, T_camera_world 12 f64 (3x4), both row by row."""
    data = _tagged(path)
    if len(data) != 8 * 21:
        raise InputError(f"{path}: {len(data)} bytes behind the tag; expected 168 (K and a 3x4 matrix)")
    values = np.frombuffer(data, "<f8")
    K, camera_world = values[:9].reshape(3, 3).copy(), values[9:].reshape(3, 4)
    rotation = camera_world[:, :3]
    off = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if not np.isfinite(values).all() or off > 1e-2:
        raise InputError(f"{path}: not a rigid transform (rotation is off by {off:.2g})")
    return K, rigid.inverse(rigid.transform(rotation, camera_world[:, 3]))


def _tagged(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) < 4 or np.frombuffer(data, "<f4", 1)[0] != TAG:
        raise InputError(f"{path}: does not begin with the tag 202021.25 of a Sintel file")
    return data[4:]
