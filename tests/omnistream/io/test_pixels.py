# SPDX-License-Identifier: Apache-2.0
"""Pixel formats against arrays made by hand: every encoding, and every way a message can be wrong."""

from __future__ import annotations

import array
import io

import numpy as np
import pytest
from PIL import Image

from omnistream import StreamSession
from omnistream.errors import InputError
from omnistream.io.pixels import DEPTH_ENCODINGS, IMAGE_ENCODINGS, decode_compressed, decode_depth, decode_image
from omnistream.model.omnistream import OmniStream

RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)  # 2x2: red, green / blue, dark


def padded(rows: np.ndarray, extra: int) -> tuple[bytes, int]:
    """Rows of bytes [H, n] with `extra` bytes of rubbish after each; (data, step)."""
    rubbish = np.full((rows.shape[0], extra), 0xAB, np.uint8)
    return np.concatenate([rows, rubbish], axis=1).tobytes(), rows.shape[1] + extra


def as_rows(values: np.ndarray) -> np.ndarray:
    """Any array [H, ...] as bytes [H, n]."""
    return np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8).reshape(values.shape[0], -1)


ALPHA = np.full((2, 2, 1), 7, np.uint8)
GREY = np.array([[0, 128], [200, 255]], np.uint8)
WIDE = np.array([[0, 257 * 128], [257 * 200, 65535]], np.uint16)
PACKED = {
    "rgb8": (RGB, RGB),
    "bgr8": (RGB[:, :, ::-1], RGB),
    "rgba8": (np.concatenate([RGB, ALPHA], 2), RGB),
    "bgra8": (np.concatenate([RGB[:, :, ::-1], ALPHA], 2), RGB),
    "mono8": (GREY, GREY[:, :, None].repeat(3, 2)),
    "8UC1": (GREY, GREY[:, :, None].repeat(3, 2)),
    "8UC3": (RGB[:, :, ::-1], RGB),
    "8UC4": (np.concatenate([RGB[:, :, ::-1], ALPHA], 2), RGB),
    "mono16": (WIDE, GREY[:, :, None].repeat(3, 2)),
    "rgb16": (RGB.astype(np.uint16) * 257, RGB),
    "bgr16": (RGB[:, :, ::-1].astype(np.uint16) * 257, RGB),
    "rgba16": (np.concatenate([RGB, ALPHA], 2).astype(np.uint16) * 257, RGB),
    "bgra16": (np.concatenate([RGB[:, :, ::-1], ALPHA], 2).astype(np.uint16) * 257, RGB),
    "32FC1": (GREY.astype(np.float32) / 255, GREY[:, :, None].repeat(3, 2)),
    "32FC3": (RGB.astype(np.float32) / 255, RGB),
}


@pytest.mark.parametrize("extra", [0, 5])
@pytest.mark.parametrize("encoding", PACKED)
def test_packed_formats(encoding: str, extra: int) -> None:
    source, expected = PACKED[encoding]
    data, step = padded(as_rows(source), extra)
    image = decode_image(encoding, 2, 2, step, data)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("encoding", ["mono16", "rgb16", "32FC1"])
def test_big_endian(encoding: str) -> None:
    source, expected = PACKED[encoding]
    data, step = padded(as_rows(source.byteswap()), 0)
    np.testing.assert_array_equal(decode_image(encoding, 2, 2, step, data, is_bigendian=True), expected)


def test_every_encoding_is_covered_here() -> None:
    yuv = {"yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24"}
    bayer = {f"bayer_{p}{b}" for p in ("rggb", "bggr", "gbrg", "grbg") for b in (8, 16)}
    assert set(IMAGE_ENCODINGS) == set(PACKED) | yuv | bayer


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda b: array.array("B", b), None])
def test_any_buffer_is_read_and_rgb8_is_not_copied(make) -> None:  # type: ignore[no-untyped-def]
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    data = pixels.reshape(-1) if make is None else make(pixels.tobytes())
    image = decode_image("rgb8", 4, 6, 18, data)
    np.testing.assert_array_equal(image, pixels)
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))


# BT.601 limited range, worked out by hand: pure colours and the ends of the grey scale.
YUV_COLOURS = [
    ((16, 128, 128), (0, 0, 0)),
    ((235, 128, 128), (255, 255, 255)),
    ((126, 128, 128), (128, 128, 128)),
    ((81, 90, 240), (255, 0, 0)),
    ((145, 54, 34), (0, 255, 0)),
    ((41, 240, 110), (0, 0, 255)),
    ((0, 128, 128), (0, 0, 0)),  # below black stays black
    ((255, 128, 128), (255, 255, 255)),
]


@pytest.mark.parametrize("extra", [0, 4])
@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2"])
def test_yuv422(encoding: str, extra: int) -> None:
    quads = []
    for (y, u, v), _ in YUV_COLOURS:
        quads.append([u, y, v, y] if encoding in ("uyvy", "yuv422") else [y, u, y, v])
    rows = np.array(quads, np.uint8).reshape(2, -1)  # 2 rows of 4 colours, each two pixels wide
    data, step = padded(rows, extra)
    image = decode_image(encoding, 2, 8, step, data)
    expected = np.array([rgb for _, rgb in YUV_COLOURS]).reshape(2, 4, 3).repeat(2, axis=1)
    assert np.abs(image.astype(int) - expected).max() <= 2


def test_yuv422_keeps_the_luma_of_each_pixel() -> None:
    image = decode_image("yuyv", 1, 2, 4, bytes([16, 128, 235, 128]))
    np.testing.assert_array_equal(image, [[[0, 0, 0], [255, 255, 255]]])


@pytest.mark.parametrize("extra", [0, 6])
@pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24"])
def test_two_plane_yuv(encoding: str, extra: int) -> None:
    block = 2
    colours = np.array([yuv for yuv, _ in YUV_COLOURS], np.uint8).reshape(2, 4, 3)
    pixels = colours.repeat(block, 0).repeat(block, 1)  # 4 rows of 8 pixels
    luma, step = padded(pixels[:, :, 0], extra)
    chroma = pixels[:, :, 1:] if encoding == "nv24" else colours[:, :, 1:]
    if encoding == "nv21":
        chroma = chroma[:, :, ::-1]
    planes, chroma_step = padded(as_rows(chroma), extra * (2 if encoding == "nv24" else 1))
    assert chroma_step == step * (2 if encoding == "nv24" else 1)
    image = decode_image(encoding, 4, 8, step, luma + planes)
    expected = np.array([rgb for _, rgb in YUV_COLOURS]).reshape(2, 4, 3).repeat(2, 0).repeat(2, 1)
    assert np.abs(image.astype(int) - expected).max() <= 2


def mosaic_of(image: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor with this Bayer pattern sees of an RGB picture."""
    out = np.empty(image.shape[:2], image.dtype)
    for place, colour in enumerate(pattern):
        r, c = divmod(place, 2)
        out[r::2, c::2] = image[r::2, c::2, "rgb".index(colour)]
    return out


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (5, 7), (3, 4)])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_of_one_colour_is_exact(pattern: str, size: tuple[int, int]) -> None:
    image = np.broadcast_to(np.array([200, 90, 31], np.uint8), (*size, 3))
    mosaic = mosaic_of(image, pattern)
    data, step = padded(mosaic, 3)
    np.testing.assert_array_equal(decode_image(f"bayer_{pattern}8", *size, step, data), image)
    wide = mosaic.astype("<u2") * 257
    data, step = padded(as_rows(wide), 3)
    np.testing.assert_array_equal(decode_image(f"bayer_{pattern}16", *size, step, data), image)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_interpolates_a_ramp_exactly_inside(pattern: str) -> None:
    y, x = np.mgrid[:8, :10]
    image = np.stack([20 + 4 * x + 6 * y, 10 + 2 * x + 8 * y, 200 - 6 * x - 2 * y], axis=2).astype(np.uint8)
    decoded = decode_image(f"bayer_{pattern}8", 8, 10, 10, mosaic_of(image, pattern).tobytes())
    np.testing.assert_array_equal(decoded[1:-1, 1:-1], image[1:-1, 1:-1])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("rgb9", 2, 2, 6, bytes(12)), "rgb9.*supported: rgb8"),
        (("", 2, 2, 6, bytes(12)), "supported"),
        (("16UC1", 2, 2, 4, bytes(8)), "depth"),
        (("rgb8", 0, 2, 6, b""), "2x0"),
        (("rgb8", 2, 0, 0, b""), "0x2"),
        (("rgb8", -1, 2, 6, b""), "2x-1"),
        (("rgb8", 2, 2, 5, bytes(12)), "step 5.*at least 6"),
        (("rgb8", 2, 2, 0, bytes(12)), "step 0"),
        (("rgb8", 2, 2, 6, bytes(11)), "truncated: 11 bytes; expected 12"),
        (("rgb8", 2, 2, 6, bytes(13)), "13 bytes; expected 12"),
        (("rgb8", 2, 2, 6, b""), "truncated: 0 bytes"),
        (("rgb8", 2**31, 2**31, 3 * 2**31, bytes(12)), "truncated"),
        (("uyvy", 2, 3, 6, bytes(12)), "even width"),
        (("nv12", 3, 4, 4, bytes(18)), "even width and height"),
        (("nv12", 4, 4, 4, bytes(16)), "expected 24"),
        (("nv21", 4, 4, 2, bytes(24)), "step 2"),
        (("bayer_rggb8", 1, 4, 4, bytes(4)), "at least 2x2"),
        (("rgb8", 2, 2, 6, "text"), "str; expected bytes"),
        (("rgb8", 2, 2, 6, np.zeros(12, np.float32)), "float32; expected uint8"),
        (("32FC1", 1, 2, 8, np.array([0.5, np.nan], "<f4").tobytes()), "1 values that are NaN"),
        (("32FC3", 1, 1, 12, np.array([0, np.inf, 1], "<f4").tobytes()), "NaN or infinite"),
        (("32FC1", 1, 2, 8, np.array([0.5, 3.5], "<f4").tobytes()), "0.5..3.5; expected a picture within 0..1"),
    ],
)
def test_wrong_images_are_refused_with_the_reason(arguments: tuple, match: str) -> None:
    with pytest.raises(InputError, match=match):
        decode_image(*arguments)


def test_depth_is_metres_with_nan_for_nothing() -> None:
    millimetres = np.array([[0, 1500], [65535, 1]], np.uint16)
    metres = np.array([[np.nan, 1.5], [65.535, 0.001]], np.float32)
    for encoding in ("16UC1", "mono16"):
        data, step = padded(as_rows(millimetres), 2)
        np.testing.assert_allclose(decode_depth(encoding, 2, 2, step, data), metres)
        data, step = padded(as_rows(millimetres.byteswap()), 0)
        np.testing.assert_allclose(decode_depth(encoding, 2, 2, step, data, is_bigendian=True), metres)
    values = np.array([[0.0, 1.5], [np.inf, -1.0]], np.float32)
    depth = decode_depth("32FC1", 2, 2, 8, values.tobytes())
    np.testing.assert_array_equal(depth, np.array([[np.nan, 1.5], [np.nan, np.nan]], np.float32))
    assert depth.dtype == np.float32 and set(DEPTH_ENCODINGS) == {"16UC1", "mono16", "32FC1"}
    with pytest.raises(InputError, match="supported: 16UC1"):
        decode_depth("rgb8", 2, 2, 6, bytes(12))
    with pytest.raises(InputError, match="truncated"):
        decode_depth("16UC1", 2, 2, 4, bytes(7))


def encoded(picture: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **({"quality": 95} if format == "JPEG" else {}))
    return buffer.getvalue()


def test_compressed_images() -> None:
    np.testing.assert_array_equal(decode_compressed(encoded(Image.fromarray(RGB), "PNG"), "png"), RGB)
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    jpeg = decode_compressed(array.array("B", encoded(Image.fromarray(flat), "JPEG")), "bgr8; jpeg compressed bgr8")
    assert np.abs(jpeg.astype(int) - flat).max() <= 3
    grey16 = encoded(Image.fromarray(WIDE), "PNG")
    np.testing.assert_array_equal(decode_compressed(grey16), GREY[:, :, None].repeat(3, 2))
    with_alpha = Image.fromarray(np.concatenate([RGB, ALPHA], 2))
    np.testing.assert_array_equal(decode_compressed(encoded(with_alpha, "PNG")), RGB)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9])
def test_truncated_compressed_images_are_refused(format: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), format)
    with pytest.raises(InputError, match="compressed image"):
        decode_compressed(data[: int(len(data) * keep)], format.lower())


def test_compressed_rubbish_and_depth_are_refused() -> None:
    with pytest.raises(InputError, match="de ad be ef"):
        decode_compressed(b"\xde\xad\xbe\xef" * 10, "jpeg")
    with pytest.raises(InputError, match="is depth"):
        decode_compressed(b"123", "16UC1; compressedDepth png")
    depth = encoded(Image.fromarray(np.full((4, 4), 1500, np.uint16)), "PNG")  # a picture to Pillow
    for format in ("16UC1; png compressed ", "32FC1; tiff compressed "):
        with pytest.raises(InputError, match="depth, not a picture"):
            decode_compressed(depth, format)


@pytest.mark.filterwarnings("error")
def test_a_read_only_view_of_message_bytes_can_be_streamed(tiny_model: OmniStream) -> None:
    image = decode_image("rgb8", 48, 64, 192, bytes(48 * 192))
    assert not image.flags.writeable
    assert StreamSession(tiny_model, num_threads=1).step(image).index == 0
