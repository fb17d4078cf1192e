# SPDX-License-Identifier: Apache-2.0
"""Pictures as bytes in a table's cells, and back."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistream.errors import InputError
from omnistream.io.pixels import decode_compressed

PNG_LEVEL = 1
"""zlib's level: level 6 takes three times as long for a tenth less."""
JPEG_QUALITY = 95


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """u8 [H, W, 3] without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def encode_jpeg(image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """u8 [H, W, 3] with loss, chroma at full resolution: coloured objects are what instructions name."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def decode_picture(data: bytes | None, where: str) -> NDArray[np.uint8]:
    """u8 [H, W, 3]; InputError with `where` in it if the bytes are missing or damaged."""
    if not data:
        raise InputError(f"{where}: no bytes; expected a PNG or JPEG")
    try:
        return decode_compressed(data)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def check_picture(image: NDArray[np.uint8], height: int, width: int, where: str) -> NDArray[np.uint8]:
    """The picture, contiguous; InputError unless it is u8 [height, width, 3]."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != (height, width, 3):
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"{where} is {found}; the contract says uint8 [{height}, {width}, 3]")
    return np.ascontiguousarray(image)
