# SPDX-License-Identifier: Apache-2.0
"""Image, CompressedImage, CameraInfo and PointCloud2 messages to numpy and back, without copies that can be avoided.

Pixel formats themselves live in `omnistream.io.pixels`. Message data is handed over as ``array('B')``: rclpy takes it
as it is, whereas a list or bytes is walked element by element (0.9 M of them for a VGA image).
"""

from __future__ import annotations

import sys
from array import array
from copy import deepcopy
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from omnistream.errors import InputError
from omnistream.geometry.pinhole import scale_intrinsics
from omnistream.io import pixels
from omnistream.io.pixels import decode_compressed, decode_depth, decode_image

_BIG_ENDIAN = sys.byteorder == "big"
# dtype and channels -> encoding that is written when the caller names none
_DEFAULT_ENCODING = {("uint8", 3): "rgb8", ("uint8", 1): "mono8", ("float32", 1): "32FC1", ("uint16", 1): "16UC1"}

# ------------------------------------------------------------------------------------------------ stamps


def stamp_to_ns(stamp: Time) -> int:
    """builtin_interfaces/Time as integer nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def ns_to_stamp(nanoseconds: int) -> Time:
    """Inverse of `stamp_to_ns`; exact."""
    sec, nanosec = divmod(int(nanoseconds), 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)


def stamp_to_seconds(stamp: Time) -> float:
    """Seconds as float64 (0.2 microseconds of resolution at today's epoch)."""
    return stamp_to_ns(stamp) * 1e-9


def seconds_to_stamp(seconds: float) -> Time:
    """Nearest nanosecond to `seconds`."""
    return ns_to_stamp(round(seconds * 1e9))


# ------------------------------------------------------------------------------------------------ images


def check_image(msg: Image | CompressedImage) -> None:
    """All checks that need no decoding, for a subscription callback; few pass them and are refused by `decode`.

    Raises:
        InputError: as `omnistream.io.pixels.check_image`; float images (rare) are searched for NaN as well.
    """
    if isinstance(msg, CompressedImage):
        if len(msg.data) == 0:
            raise InputError(f"compressed image (format {msg.format!r}) is empty; expected jpeg or png data")
        return
    pixels.check_image(msg.encoding, msg.height, msg.width, msg.step, len(msg.data))
    if msg.encoding.startswith("32F"):
        decode(msg)


def decode(msg: Image | CompressedImage) -> NDArray[np.uint8]:
    """Pixels as u8 [H, W, 3] RGB; for rgb8 without row padding a view of the message, no copy.

    Raises:
        InputError: as `omnistream.io.pixels.decode_image` and `decode_compressed`.
    """
    if isinstance(msg, CompressedImage):
        return decode_compressed(msg.data, msg.format)
    return decode_image(msg.encoding, msg.height, msg.width, msg.step, msg.data, msg.is_bigendian)


def decode_depth_image(msg: Image) -> NDArray[np.float32]:
    """Metres as f32 [H, W], NaN where invalid. Raises `InputError`."""
    return decode_depth(msg.encoding, msg.height, msg.width, msg.step, msg.data, msg.is_bigendian)


def image_message(values: NDArray[Any], header: Header, encoding: str | None = None) -> Image:
    """An Image message of pixels.

    Args:
        values: u8 [H, W, 3] (rgb8 unless `encoding` says bgr8), u8 [H, W] (mono8), f32 [H, W] (32FC1: depth in metres
            or any scalar), u16 [H, W] (16UC1).
        header: stamp and frame of the camera; not copied.

    Raises:
        InputError: another dtype or shape.
    """
    channels = 1 if values.ndim == 2 else values.shape[2] if values.ndim == 3 else 0
    default = _DEFAULT_ENCODING.get((values.dtype.name, channels))
    if default is None:
        raise InputError(
            f"image array is {values.dtype} {values.shape}; expected uint8 [H,W,3], or uint8, uint16, float32 [H,W]"
        )
    height, width = values.shape[:2]
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding or default,
        is_bigendian=int(_BIG_ENDIAN),
        step=width * channels * values.itemsize,
        data=byte_array(values),
    )


def compressed_message(data: bytes, header: Header, format: str = "jpeg") -> CompressedImage:
    """A CompressedImage of an encoded file's bytes (`format`: jpeg or png)."""
    return CompressedImage(header=header, format=format, data=byte_array(np.frombuffer(data, np.uint8)))


def byte_array(values: NDArray[Any]) -> array[int]:
    """The bytes of `values` in C order, as the type that rclpy hands to DDS without looking at each element."""
    out = array("B")
    if values.size:
        out.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return out


# ------------------------------------------------------------------------------------------------ camera info


def camera_info_message(
    K: ArrayLike,
    width: int,
    height: int,
    header: Header,
    D: ArrayLike = (),
    distortion_model: str = "plumb_bob",
) -> CameraInfo:
    """CameraInfo of one unrotated camera: R = identity, P = [K | 0]. K is [3, 3] in pixels of width x height."""
    k = np.asarray(K, np.float64).reshape(3, 3)
    return CameraInfo(
        header=header,
        width=width,
        height=height,
        distortion_model=distortion_model,
        d=array("d", np.asarray(D, np.float64).ravel()),
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack((k, np.zeros((3, 1)))).ravel(),
    )


def intrinsics(info: CameraInfo) -> NDArray[np.float64] | None:
    """K [3, 3] of the pixels that are published with `info` (binning and ROI applied); None when it is uncalibrated, or
    no K: not finite, a focal length that is not positive, a last row other than 0 0 1.

    Pixel centres have integer coordinates, so a pixel u of the sensor is (u - offset + 0.5) / binning - 0.5 here.
    """
    k = np.array(info.k, np.float64).reshape(3, 3)
    if not np.isfinite(k).all() or min(k[0, 0], k[1, 1]) <= 0:  # sensor_msgs: K[0] == 0 means uncalibrated
        return None
    if not np.array_equal(k[2], (0, 0, 1)):
        return None
    return _resample(k, info, (max(1, info.binning_y), max(1, info.binning_x)), (1, 1))


def picture_size(info: CameraInfo) -> tuple[int, int]:
    """(height, width) of the pictures that are published with `info`: binning and ROI applied."""
    height, width = info.roi.height or info.height, info.roi.width or info.width
    return height // max(1, info.binning_y), width // max(1, info.binning_x)


def scale_camera_info(info: CameraInfo, width: int, height: int) -> CameraInfo:
    """The CameraInfo of the same picture resized to width x height: K and P scaled, binning and ROI folded in.

    R and D stay: they speak of normalised coordinates. The size of the incoming picture is that of the ROI, or of the
    sensor, divided by the binning.
    """
    if min(picture_size(info)) < 1:
        raise InputError(f"camera info is for {info.width}x{info.height} pixels; expected at least 1x1")
    sensor = info.roi.height or info.height, info.roi.width or info.width
    k = _resample(np.array(info.k, np.float64).reshape(3, 3), info, sensor, (height, width))
    p = _resample(np.array(info.p, np.float64).reshape(3, 4), info, sensor, (height, width))
    return CameraInfo(
        header=info.header,
        width=width,
        height=height,
        distortion_model=info.distortion_model,
        d=deepcopy(info.d),
        k=k.ravel(),
        r=info.r,
        p=p.ravel(),
    )


def _resample(
    matrix: NDArray[np.float64], info: CameraInfo, source: tuple[int, int], target: tuple[int, int]
) -> NDArray[np.float64]:
    """K [3, 3] or P [3, 4]: cropped by the offsets of the ROI, then resized; zeros (uncalibrated) stay."""
    if matrix[0, 0] <= 0:
        return matrix
    matrix[:2, 2] -= info.roi.x_offset, info.roi.y_offset
    return scale_intrinsics(matrix, source, target)


# ------------------------------------------------------------------------------------------------ point clouds


def points_message(
    points: NDArray[np.floating[Any]], header: Header, rgb: NDArray[np.uint8] | None = None
) -> PointCloud2:
    """An organised cloud: row v, column u is pixel (u, v).

    Args:
        points: [H, W, 3] metres in the header's frame; NaN where there is no point.
        rgb: u8 [H, W, 3], or None for a cloud without colour.

    Raises:
        InputError: shapes do not fit.
    """
    if points.ndim != 3 or points.shape[2] != 3 or (rgb is not None and rgb.shape != points.shape):
        raise InputError(
            f"points are {points.shape}, rgb {None if rgb is None else rgb.shape}; expected both [H,W,3] of one size"
        )
    height, width = points.shape[:2]
    cloud = np.empty((height, width, 3 if rgb is None else 4), np.float32)
    cloud[..., :3] = points
    fields = [_field(name, 4 * axis) for axis, name in enumerate("xyz")]
    if rgb is not None:
        packed = cloud.view(np.uint8)[..., 12:]  # the four bytes of 0x00rrggbb
        red, green, blue, nothing = (1, 2, 3, 0) if _BIG_ENDIAN else (2, 1, 0, 3)
        packed[..., red], packed[..., green], packed[..., blue] = np.moveaxis(rgb, 2, 0)
        packed[..., nothing] = 0
        fields.append(_field("rgb", 12))
    return PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=fields,
        is_bigendian=_BIG_ENDIAN,
        point_step=4 * cloud.shape[2],
        row_step=4 * cloud.shape[2] * width,
        data=byte_array(cloud),
        is_dense=bool(np.isfinite(points).all()),
    )


def _field(name: str, offset: int) -> PointField:
    return PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
