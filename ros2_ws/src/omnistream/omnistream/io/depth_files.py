# SPDX-License-Identifier: Apache-2.0
"""Depth maps as files: .npy always means what the model said; a millimetre PNG is written of metric depth alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistream.errors import InputError
from omnistream.io.files import replacing

MAX_MILLIMETRES = 65534
"""65535 is left out: several tools take it for "too far"."""


def write_depth_png(path: Path, depth: NDArray[Any], scale: str) -> None:
    """Write depth [H, W] in metres as a 16-bit PNG of millimetres, 0 where there is no value or it is beyond 65.534 m.

    Raises InputError unless `scale` is "metric": the format says millimetres, and those would be made up.
    """
    if scale != "metric":
        raise InputError(f"{path}: depth of scale {scale!r} is not written in millimetres; write it as .npy")
    millimetres = np.rint(np.nan_to_num(np.asarray(depth, np.float64) * 1000, nan=0.0, posinf=0.0, neginf=0.0))
    values = np.where((millimetres > 0) & (millimetres <= MAX_MILLIMETRES), millimetres, 0).astype(np.uint16)
    with replacing(path) as temporary:
        Image.fromarray(values).save(temporary)
