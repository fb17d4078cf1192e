# SPDX-License-Identifier: Apache-2.0
"""Undistortion of images: where a straight line should be seen, every model assumes a pinhole.

Models as in sensor_msgs/distortion_models.hpp; formulas as in OpenCV's documentation of `projectPoints` and
`fisheye::distortPoints` (which image_proc uses).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from omnistream.errors import InputError

COEFFICIENTS = {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4, "fisheye": 4}
"""How many coefficients of each model are understood."""
MODELS = tuple(COEFFICIENTS)


@dataclass(frozen=True)
class Lens:
    """What bends the lines of an image. Plain numbers: it is part of run logs."""

    K: tuple[float, ...]
    """Nine, row by row, in pixels of the image as it is published."""
    D: tuple[float, ...]
    model: str
    """One of `MODELS`; another is refused by `Undistortion`."""


class Undistortion:
    """Undistorts images of one lens; K stays as it is, so the edge of the picture may become black.

    Raises:
        InputError: the distortion model is not one of `MODELS`, or has coefficients that are not understood.
    """

    def __init__(self, lens: Lens, size: tuple[int, int]) -> None:
        """size: (height, width) of the images."""
        if lens.model not in MODELS:
            raise InputError(f"distortion model is {lens.model!r}; expected one of {', '.join(MODELS)}")
        most = COEFFICIENTS[lens.model]
        if any(value != 0 for value in lens.D[most:]):
            raise InputError(
                f"distortion model {lens.model} has {len(lens.D)} coefficients, those after the first {most} not zero "
                f"(D = {list(lens.D)}); expected at most {most}: thin prisms and tilted sensors are not supported"
            )
        self.lens = lens
        K = np.array(lens.K, np.float64).reshape(3, 3)
        height, width = size
        v, u = np.mgrid[:height, :width].astype(np.float64)
        x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
        bent_x, bent_y = distort(x, y, lens.model, np.array(lens.D, np.float64))
        columns, rows = bent_x * K[0, 0] + K[0, 2], bent_y * K[1, 1] + K[1, 2]
        # grid_sample, align_corners=False: -1 and 1 are the outer edges of the picture.
        grid = np.stack(((columns + 0.5) * 2 / width - 1, (rows + 0.5) * 2 / height - 1), axis=2)
        self._grid = torch.from_numpy(grid.astype(np.float32))[None]
        self._size = size

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """u8 [H, W, 3] -> u8 [H, W, 3]."""
        if image.shape[:2] != self._size:
            raise InputError(f"image is {image.shape[:2]} (height, width); the rectification is for {self._size}")
        writable = image if image.flags.writeable and image.flags.c_contiguous else image.copy()  # torch wants both
        pixels = torch.from_numpy(writable).permute(2, 0, 1)[None].float()
        out = F.grid_sample(pixels, self._grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return out[0].add_(0.5).clamp_(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def distort(
    x: NDArray[np.float64], y: NDArray[np.float64], model: str, d: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the ray (x, y, 1) hits the lens' normalised image plane."""
    if model in ("equidistant", "fisheye"):
        k1, k2, k3, k4 = np.pad(d, (0, 4))[:4]
        r = np.hypot(x, y)
        theta = np.arctan(r)
        bent = theta * (1 + theta**2 * (k1 + theta**2 * (k2 + theta**2 * (k3 + theta**2 * k4))))
        scale = np.where(r > 1e-12, bent / np.maximum(r, 1e-12), 1.0)
        return x * scale, y * scale
    k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(d, (0, 8))[:8]
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return bent_x, bent_y
