# SPDX-License-Identifier: Apache-2.0
"""YUV and Bayer mosaics to RGB, in integer arithmetic on whole planes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# ITU-R BT.601 with luma 16..235 and chroma 16..240, in 16-bit fixed point.
_ONE = 1 << 16
_KY = round(255 / 219 * _ONE)
_RV = round(2 * (1 - 0.299) * 255 / 224 * _ONE)
_BU = round(2 * (1 - 0.114) * 255 / 224 * _ONE)
_GV = round(2 * (1 - 0.299) * 0.299 / 0.587 * 255 / 224 * _ONE)
_GU = round(2 * (1 - 0.114) * 0.114 / 0.587 * 255 / 224 * _ONE)


def yuv_to_rgb(luma: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.uint8]:
    """luma [h, sy, w, sx] with chroma [h, w] shared by each sy x sx block -> u8 [h*sy, w*sx, 3]."""
    h, sy, w, sx = luma.shape
    y = (luma.astype(np.int32) - 16) * _KY + _ONE // 2
    u = u.astype(np.int32) - 128
    v = v.astype(np.int32) - 128
    image = np.empty((h, sy, w, sx, 3), np.uint8)
    for channel, chroma in enumerate((_RV * v, -_GU * u - _GV * v, _BU * u)):  # at chroma resolution: cheap
        value = y + chroma[:, None, :, None]
        value >>= 16
        image[..., channel] = np.clip(value, 0, 255, out=value)
    return image.reshape(h * sy, w * sx, 3)


def demosaic(mosaic: NDArray[np.uint8], red_row: int, red_column: int) -> NDArray[np.uint8]:
    """Bilinear interpolation of a Bayer mosaic u8 [H, W] whose red pixels sit at (red_row, red_column) of each 2x2.

    Mirroring at the border (without repeating the edge) keeps the pattern, so all pixels are treated alike.
    """
    height, width = mosaic.shape
    even_h, even_w = height + height % 2, width + width % 2
    p = np.pad(mosaic, ((1, 1 + height % 2), (1, 1 + width % 2)), mode="reflect").astype(np.uint16)

    def at(row: int, column: int) -> NDArray[np.uint16]:
        """The quarter picture of pixels at offset (row, column) from the 2x2 blocks' corners, -1..2."""
        return p[1 + row : 1 + row + even_h : 2, 1 + column : 1 + column + even_w : 2]

    image = np.empty((even_h, even_w, 3), np.uint8)

    def neighbours(r: int, c: int, offsets: tuple[tuple[int, int], ...]) -> NDArray[np.uint16]:
        total = np.full((even_h // 2, even_w // 2), len(offsets) // 2, np.uint16)  # the half makes the division round
        for dr, dc in offsets:
            total += at(r + dr, c + dc)
        return total // len(offsets)

    cross, corners = ((-1, 0), (1, 0), (0, -1), (0, 1)), ((-1, -1), (-1, 1), (1, -1), (1, 1))
    beside, above = ((0, -1), (0, 1)), ((-1, 0), (1, 0))
    for r in (0, 1):
        for c in (0, 1):
            out = image[r::2, c::2]
            same_row, same_column = r == red_row, c == red_column
            if same_row == same_column:  # a red or a blue pixel
                own, other = (0, 2) if same_row else (2, 0)
                out[:, :, own] = at(r, c)
                out[:, :, other] = neighbours(r, c, corners)
                out[:, :, 1] = neighbours(r, c, cross)
            else:  # green: red lies beside it in red's row, above and below it in red's column
                out[:, :, 1] = at(r, c)
                out[:, :, 0] = neighbours(r, c, beside if same_row else above)
                out[:, :, 2] = neighbours(r, c, above if same_row else beside)
    return np.ascontiguousarray(image[:height, :width])
