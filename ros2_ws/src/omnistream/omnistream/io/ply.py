# SPDX-License-Identifier: Apache-2.0
"""Points as binary PLY. The grid of the image is kept: point r * width + c is pixel (r, c), NaN where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.files import write_bytes

VERTEX = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])
_TYPES = {"<f4": "float", "|u1": "uchar"}


def write_ply(path: Path, points: NDArray[Any], colours: NDArray[np.uint8], comments: tuple[str, ...] = ()) -> None:
    """Write points [H, W, 3] with colours u8 [H, W, 3], atomically.

    Points with a coordinate that is not finite become (NaN, NaN, NaN). `comments` (one line each) should say frame
    and unit. num_rows and num_cols are the range-grid convention of Stanford's PLY tools.
    """
    if points.ndim != 3 or points.shape[2] != 3 or colours.shape != points.shape:
        raise InputError(f"points are {points.shape}, colours {colours.shape}; expected [H, W, 3] both")
    height, width = points.shape[:2]
    vertices = np.empty(height * width, VERTEX)
    flat = np.asarray(points, np.float32).reshape(-1, 3)
    flat = np.where(np.isfinite(flat).all(axis=1, keepdims=True), flat, np.float32(np.nan))
    for i, name in enumerate(("x", "y", "z")):
        vertices[name] = flat[:, i]
    for i, name in enumerate(("red", "green", "blue")):
        vertices[name] = colours.reshape(-1, 3)[:, i]
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {line}" for comment in comments for line in comment.splitlines()]
    lines += [f"obj_info num_cols {width}", f"obj_info num_rows {height}", f"element vertex {len(vertices)}"]
    lines += [f"property {_TYPES[VERTEX[name].str]} {name}" for name in VERTEX.names or ()]
    header = "\n".join([*lines, "end_header", ""]).encode("ascii", "replace")
    write_bytes(path, header + vertices.tobytes())
