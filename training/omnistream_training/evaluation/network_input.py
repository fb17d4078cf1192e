# SPDX-License-Identifier: Apache-2.0
"""The pictures as a protocol feeds them: resized, and cut or squeezed to multiples of 16, with their intrinsics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistream.geometry.pinhole import scale_intrinsics
from omnistream_training.evaluation.protocols import InputRule


def prepare(
    image: NDArray[np.uint8], K: NDArray[np.float64] | None, rule: InputRule
) -> tuple[NDArray[np.uint8], NDArray[np.float64] | None]:
    """Picture [H, W, 3] and its K -> what the session is given, and K there.

    With a long side: CUT3R's `load_images_for_eval`. Bicubic where the picture grows, Lanczos where it shrinks; then
    each side goes down to a multiple of 16; a square becomes 4:3, for the models it was written for know no squares.
    """
    if rule.long_side is None:
        return image, K
    height, width = image.shape[:2]
    factor = rule.long_side / max(height, width)
    filter_ = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC
    size = (round(width * factor), round(height * factor))
    picture = Image.fromarray(image).resize(size, filter_)
    half_w, half_h = size[0] // 2 // 8 * 8, size[1] // 2 // 8 * 8
    if size[0] == size[1]:
        half_h = 3 * half_w // 4
    if rule.crop:
        left, top = size[0] // 2 - half_w, size[1] // 2 - half_h
        picture = picture.crop((left, top, left + 2 * half_w, top + 2 * half_h))
    else:
        left = top = 0
        picture = picture.resize((2 * half_w, 2 * half_h), Image.Resampling.LANCZOS)
    if K is not None:
        between = size[::-1] if rule.crop else (2 * half_h, 2 * half_w)
        K = scale_intrinsics(K, (height, width), between)
        K[:2, 2] -= (left, top)
    return np.asarray(picture), K


def horizontal_fov(K: NDArray[np.float64], width: int) -> float:
    """Degrees between the left and the right edge of a picture of that width."""
    left, right = K[0, 2] + 0.5, width - 0.5 - K[0, 2]
    return float(np.degrees(np.arctan2(left, K[0, 0]) + np.arctan2(right, K[0, 0])))
