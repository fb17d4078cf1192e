# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an image message to numbers: the one place that knows pixel formats.

Encoding names are those of ROS 2 (``sensor_msgs/image_encodings.hpp``), but nothing here needs ROS: the bag reader and
the ROS nodes call the same functions. Everything is numpy and Pillow.

    decode_image(encoding, height, width, step, data)  -> u8 [H, W, 3] RGB
    check_image(encoding, height, width, step, size)   -> None: the checks of decode_image alone
    decode_depth(encoding, height, width, step, data)  -> f32 [H, W] metres, NaN where there is no value
    decode_compressed(data, format)                    -> u8 [H, W, 3] RGB      (jpeg, png)

All of them raise `InputError` with the reason, and never return an image with made-up pixels in it.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistream.errors import InputError
from omnistream.io.raw_colour import demosaic, yuv_to_rgb

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

PICTURE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""Picture files that are opened. Pillow knows more, some of which start other programs."""

UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for a file that is damaged or no picture."""

# encoding -> (bytes per channel value, channels, order of the channels that make RGB)
_PACKED: dict[str, tuple[int, int, tuple[int, int, int]]] = {
    "rgb8": (1, 3, (0, 1, 2)),
    "bgr8": (1, 3, (2, 1, 0)),
    "rgba8": (1, 4, (0, 1, 2)),
    "bgra8": (1, 4, (2, 1, 0)),
    "mono8": (1, 1, (0, 0, 0)),
    "8UC1": (1, 1, (0, 0, 0)),
    "8UC3": (1, 3, (2, 1, 0)),  # the name leaves the order open; it is written by OpenCV code, and that is BGR
    "8UC4": (1, 4, (2, 1, 0)),
    "rgb16": (2, 3, (0, 1, 2)),
    "bgr16": (2, 3, (2, 1, 0)),
    "rgba16": (2, 4, (0, 1, 2)),
    "bgra16": (2, 4, (2, 1, 0)),
    "mono16": (2, 1, (0, 0, 0)),
    "32FC1": (4, 1, (0, 0, 0)),
    "32FC3": (4, 3, (0, 1, 2)),
}
# Chroma at half width, four bytes for two pixels. encoding -> position of (Y0, U, Y1, V) in them.
_YUV422: dict[str, tuple[int, int, int, int]] = {
    "yuv422": (1, 0, 3, 2),  # the old ROS name of uyvy
    "uyvy": (1, 0, 3, 2),
    "yuv422_yuy2": (0, 1, 2, 3),  # the old ROS name of yuyv
    "yuyv": (0, 1, 2, 3),
}
# A plane of Y, then a plane of interleaved chroma. encoding -> (pixels per chroma value along y and x, U first).
_TWO_PLANES: dict[str, tuple[int, bool]] = {"nv12": (2, True), "nv21": (2, False), "nv24": (1, True)}
# encoding -> (row, column) of the red pixel in each 2x2 block; blue is at the opposite corner.
_BAYER: dict[str, tuple[int, int]] = {"rggb": (0, 0), "grbg": (0, 1), "gbrg": (1, 0), "bggr": (1, 1)}

IMAGE_ENCODINGS: tuple[str, ...] = (
    *_PACKED,
    *_YUV422,
    *_TWO_PLANES,
    *(f"bayer_{pattern}{bits}" for bits in (8, 16) for pattern in _BAYER),
)
"""What `decode_image` understands."""

DEPTH_ENCODINGS: tuple[str, ...] = ("16UC1", "mono16", "32FC1")
"""What `decode_depth` understands (REP-118: 32FC1 is metres, 16UC1 millimetres)."""


def check_image(encoding: str, height: int, width: int, step: int, size: int) -> None:
    """The checks of `decode_image` that look at no pixel, in microseconds: for whoever decodes later, or elsewhere.

    size: bytes of data. Raises `InputError` as `decode_image` does.
    """
    if encoding == "16UC1":
        raise InputError("image has encoding '16UC1', which is depth in millimetres; a 16-bit picture is 'mono16'")
    if encoding not in IMAGE_ENCODINGS:
        raise InputError(f"image has encoding {encoding!r}; supported: {', '.join(IMAGE_ENCODINGS)}")
    _check_size(encoding, height, width)
    if encoding in _PACKED:
        per_value, channels, _ = _PACKED[encoding]
        _check_rows(encoding, height, width * channels * per_value, step, size)
    elif encoding in _YUV422:
        if width % 2:
            raise InputError(f"{encoding} image is {width} pixels wide; expected an even width")
        _check_rows(encoding, height, width * 2, step, size)
    elif encoding in _TWO_PLANES:
        every, _ = _TWO_PLANES[encoding]
        if height % every or width % every:
            raise InputError(f"{encoding} image is {width}x{height}; expected an even width and height")
        _check_rows(encoding, _two_plane_rows(height, every), width, step, size, picture_rows=height)
    else:
        if height < 2 or width < 2:
            raise InputError(f"{encoding} image is {width}x{height}; expected at least 2x2 pixels")
        _check_rows(encoding, height, width * (2 if encoding.endswith("16") else 1), step, size)


def checksum(*parts: Any) -> int:
    """CRC-32 of bytes-like objects (bytes, array('B'), u8 arrays), one after the other: which message was meant."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(_as_bytes(part).data, crc) if len(part) else crc
    return crc


def decode_image(encoding: str, height: int, width: int, step: int, data: Any, is_bigendian: bool | int = False) -> U8:
    """Pixels of an uncompressed image message as u8 [height, width, 3] RGB.

    Args:
        encoding: one of `IMAGE_ENCODINGS`.
        height, width: pixels.
        step: bytes per row (of the Y plane for nv12, nv21, nv24), padding included.
        data: any bytes-like object: bytes, memoryview, array('B') as rclpy gives it, or a u8 array.
        is_bigendian: byte order of 16-bit and float values.

    Returns:
        A contiguous array. For rgb8 without row padding it is a view of `data` (no copy, read-only if `data` is);
        copy it before changing it or before `data` is used again.

    16-bit values are scaled from 0..65535 and floats from 0..1 to 0..255. YUV is BT.601, limited range, as drivers
    mean it. Bayer is interpolated bilinearly.

    Raises:
        InputError: unknown encoding, zero size, a step or an amount of data that does not fit, or a float image
            with values that are not finite or not within 0..1.
    """
    check_image(encoding, height, width, step, _as_bytes(data).size)
    if encoding in _PACKED:
        return _packed(encoding, height, width, step, data, bool(is_bigendian))
    if encoding in _YUV422:
        return _yuv422(encoding, height, width, step, data)
    if encoding in _TWO_PLANES:
        return _two_planes(encoding, height, width, step, data)
    return _bayer(encoding, height, width, step, data, bool(is_bigendian))


def decode_depth(encoding: str, height: int, width: int, step: int, data: Any, is_bigendian: bool | int = False) -> F32:
    """Depth along the optical axis as f32 [height, width] in metres; NaN where the sensor gave none.

    16UC1 and mono16 are millimetres with 0 for "no value"; 32FC1 is metres, where 0, negative and non-finite values
    are no measurement (REP-118). Raises `InputError` as `decode_image` does.
    """
    if encoding not in DEPTH_ENCODINGS:
        raise InputError(f"depth image has encoding {encoding!r}; supported: {', '.join(DEPTH_ENCODINGS)}")
    _check_size(encoding, height, width)
    kind = "f4" if encoding == "32FC1" else "u2"
    raw = _rows(encoding, height, width * int(kind[1]), step, data)
    values = _typed(raw, kind, bool(is_bigendian))
    if kind == "u2":
        return millimetres_to_metres(values)
    depth = values.astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def decode_compressed(data: Any, format: str = "") -> U8:
    """Pixels of a compressed image message (jpeg or png, and what else Pillow reads) as u8 [H, W, 3] RGB.

    `format` is the field of sensor_msgs/CompressedImage ("jpeg", "rgb8; jpeg compressed bgr8", ...). The bytes say for
    themselves what they are, so it is used only in messages, and to refuse compressed depth.

    Raises:
        InputError: empty, truncated or unreadable data, or a depth format.
    """
    if "compresseddepth" in format.lower() or format.startswith(("16UC1", "32FC1")):  # the encoding comes first
        raise InputError(f"compressed image has format {format!r}, which is depth, not a picture; expected jpeg or png")
    view = _as_bytes(data)
    if view.size == 0:
        raise InputError(f"compressed image (format {format!r}) is empty; expected jpeg or png data")
    try:
        with Image.open(io.BytesIO(view.data), formats=PICTURE_FORMATS) as picture:
            return pillow_to_rgb(picture)
    except InputError:
        raise
    except UNREADABLE as error:
        start = view[:8].tobytes().hex(" ")
        raise InputError(
            f"compressed image (format {format!r}, {view.size} bytes, starting {start}) cannot be decoded: {error}"
        ) from error


def pillow_to_rgb(picture: Image.Image) -> U8:
    """A Pillow image of any mode as u8 [H, W, 3] RGB; transparency is dropped, 16-bit grey scaled to 8 bits."""
    if picture.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):  # Pillow's own conversion would clip at 255
        values = np.asarray(picture)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise InputError(f"grey image has values {values.min()}..{values.max()}; expected 16 bits, 0..65535")
        return _grey(_to_8_bits(values.astype(np.uint16)))
    if picture.mode == "F":
        return _grey(_float_to_8_bits("F", np.asarray(picture, np.float32)))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def millimetres_to_metres(values: NDArray[Any], scale: float = 0.001) -> F32:
    """Integer depth [H, W] to metres by `scale` (metres per unit); 0 becomes NaN."""
    depth = values.astype(np.float32) * np.float32(scale)
    depth[values == 0] = np.nan
    return depth


# ------------------------------------------------------------------------------------------------ checks


def _check_size(encoding: str, height: int, width: int) -> None:
    if height <= 0 or width <= 0:
        raise InputError(f"{encoding} image is {width}x{height}; expected at least 1x1 pixels")


def _as_bytes(data: Any) -> U8:
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8:
            raise InputError(f"image data is an array of {data.dtype}; expected uint8")
        return np.ascontiguousarray(data).reshape(-1)
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise InputError(f"image data is a {type(data).__name__}; expected bytes ({error})") from error


def _check_rows(
    encoding: str, rows: int, row_bytes: int, step: int, size: int, picture_rows: int | None = None
) -> None:
    if step < row_bytes:
        raise InputError(f"{encoding} image has step {step}; expected at least {row_bytes} bytes per row")
    if size != step * rows:
        what = "truncated: " if size < step * rows else ""
        of = f" (of {picture_rows} picture rows)" if picture_rows not in (None, rows) else ""
        raise InputError(
            f"{encoding} image is {what}{size} bytes; expected {step * rows} = step {step} x {rows} rows{of}"
        )


def _rows(encoding: str, rows: int, row_bytes: int, step: int, data: Any) -> U8:
    """`data` as [rows, step] cut to [rows, row_bytes], a view; both lengths are checked first."""
    flat = _as_bytes(data)
    _check_rows(encoding, rows, row_bytes, step, flat.size)
    return flat.reshape(rows, step)[:, :row_bytes]


def _typed(rows: U8, kind: str, is_bigendian: bool) -> NDArray[Any]:
    """[H, n bytes] read as little or big endian numbers: [H, n / itemsize]."""
    return np.ascontiguousarray(rows).view((">" if is_bigendian else "<") + kind)


# ------------------------------------------------------------------------------------------------ depth of values


def _to_8_bits(values: NDArray[Any]) -> U8:
    """0..65535 to 0..255, rounded: a fixed scale, so that brightness does not jump between frames."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _float_to_8_bits(encoding: str, values: NDArray[Any]) -> U8:
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise InputError(f"{encoding} image has {bad} values that are NaN or infinite; expected numbers within 0..1")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise InputError(f"{encoding} image has values {low:g}..{high:g}; expected a picture within 0..1")
    return (values * 255 + 0.5).astype(np.uint8)


def _grey(values: U8) -> U8:
    return np.repeat(values[:, :, None], 3, axis=2)


# ------------------------------------------------------------------------------------------------ families of formats


def _packed(encoding: str, height: int, width: int, step: int, data: Any, is_bigendian: bool) -> U8:
    size, channels, order = _PACKED[encoding]
    rows = _rows(encoding, height, width * channels * size, step, data)
    if size == 1:
        pixels = rows
    elif size == 2:
        pixels = _to_8_bits(_typed(rows, "u2", is_bigendian))
    else:
        pixels = _float_to_8_bits(encoding, _typed(rows, "f4", is_bigendian))
    pixels = pixels.reshape(height, width, channels)
    if channels == 1:
        return _grey(pixels[:, :, 0])
    if order == (0, 1, 2):
        return np.ascontiguousarray(pixels[:, :, :3])
    image = np.empty((height, width, 3), np.uint8)
    for out, channel in enumerate(order):  # plane by plane is three times as fast as a fancy index
        image[:, :, out] = pixels[:, :, channel]
    return image


def _yuv422(encoding: str, height: int, width: int, step: int, data: Any) -> U8:
    y0, u, y1, v = _YUV422[encoding]
    pairs = _rows(encoding, height, width * 2, step, data).reshape(height, width // 2, 4)
    luma = np.stack((pairs[:, :, y0], pairs[:, :, y1]), axis=2)
    return yuv_to_rgb(luma[:, None], pairs[:, :, u], pairs[:, :, v])


def _two_plane_rows(height: int, every: int) -> int:
    """Rows of Y and of chroma, whose rows have as many bytes as those of Y (nv12, nv21) or twice as many (nv24)."""
    return height + (height // 2 if every == 2 else 2 * height)


def _two_planes(encoding: str, height: int, width: int, step: int, data: Any) -> U8:
    every, u_first = _TWO_PLANES[encoding]
    flat = _rows(encoding, _two_plane_rows(height, every), step, step, data).reshape(-1)
    luma = flat[: height * step].reshape(height, step)[:, :width]
    chroma_step = step if every == 2 else 2 * step
    chroma = flat[height * step :].reshape(height // every, chroma_step)[:, : 2 * width // every]
    chroma = chroma.reshape(height // every, width // every, 2)
    first, second = chroma[:, :, 0], chroma[:, :, 1]
    u, v = (first, second) if u_first else (second, first)
    return yuv_to_rgb(luma.reshape(height // every, every, width // every, every), u, v)


def _bayer(encoding: str, height: int, width: int, step: int, data: Any, is_bigendian: bool) -> U8:
    size = 2 if encoding.endswith("16") else 1
    rows = _rows(encoding, height, width * size, step, data)
    mosaic = _to_8_bits(_typed(rows, "u2", is_bigendian)) if size == 2 else rows
    return demosaic(mosaic, *_BAYER[encoding[6:10]])
