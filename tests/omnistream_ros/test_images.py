# SPDX-License-Identifier: Apache-2.0
"""Messages to numpy and back: known answers, round trips, and refusals that say why."""

from __future__ import annotations

import io
import time
from array import array

import numpy as np
import pytest
from PIL import Image as Picture
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from omnistream.errors import InputError
from omnistream_ros import images
from omnistream_ros.testing import read_points

RNG = np.random.default_rng(0)
HEADER = Header(frame_id="camera_optical")


@pytest.mark.parametrize("nanoseconds", [0, 1, 999_999_999, 1_700_000_000_123_456_789])
def test_stamps_keep_every_nanosecond(nanoseconds: int) -> None:
    assert images.stamp_to_ns(images.ns_to_stamp(nanoseconds)) == nanoseconds


def test_seconds_are_rounded_to_the_nearest_nanosecond_not_cut() -> None:
    stamp = images.seconds_to_stamp(1.999999999)
    assert (stamp.sec, stamp.nanosec) == (1, 999_999_999)
    assert images.stamp_to_seconds(stamp) == pytest.approx(1.999999999, abs=1e-12)


def test_an_rgb_image_survives_the_message_and_decoding_makes_no_copy() -> None:
    pixels = RNG.integers(0, 256, (48, 64, 3), np.uint8)
    message = images.image_message(pixels, HEADER)
    assert (message.encoding, message.step, message.header.frame_id) == ("rgb8", 192, "camera_optical")
    assert isinstance(message.data, array)
    decoded = images.decode(message)
    np.testing.assert_array_equal(decoded, pixels)
    assert np.shares_memory(decoded, np.frombuffer(message.data, np.uint8))


def test_bgr_and_mono_come_out_as_rgb() -> None:
    pixels = RNG.integers(0, 256, (4, 6, 3), np.uint8)
    np.testing.assert_array_equal(images.decode(images.image_message(pixels, HEADER, "bgr8")), pixels[:, :, ::-1])
    grey = images.decode(images.image_message(pixels[:, :, 0], HEADER))
    np.testing.assert_array_equal(grey, np.repeat(pixels[:, :, :1], 3, axis=2))


def test_a_slice_of_an_array_is_written_in_its_own_order() -> None:
    wide = RNG.random((10, 20)).astype(np.float32)
    message = images.image_message(wide[:, ::2], HEADER)
    assert (message.encoding, message.width, message.step) == ("32FC1", 10, 40)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32).reshape(10, 10), wide[:, ::2])


def test_depth_round_trip_keeps_nan() -> None:
    depth = np.array([[1.5, np.nan], [0.25, 7.0]], np.float32)
    np.testing.assert_array_equal(images.decode_depth_image(images.image_message(depth, HEADER)), depth)


def test_compressed_images_are_decoded() -> None:
    buffer = io.BytesIO()
    pixels = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    Picture.fromarray(pixels).save(buffer, "png")
    message = images.compressed_message(buffer.getvalue(), HEADER, "png")
    np.testing.assert_array_equal(images.decode(message), pixels)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Image(encoding="foo8", height=1, width=1, step=3, data=array("B", bytes(3))), "'foo8'"),
        (Image(encoding="rgb8", height=0, width=4, step=12), "4x0"),
        (Image(encoding="rgb8", height=4, width=4, step=12, data=array("B", bytes(47))), "47 bytes"),
        (CompressedImage(format="jpeg"), "empty"),
    ],
)
def test_what_a_callback_can_see_is_refused_before_any_work(message: Image, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        images.check_image(message)


def test_arrays_that_are_no_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"float64 \(2, 2\)"):
        images.image_message(np.zeros((2, 2)), HEADER)


def test_a_vga_message_is_built_in_a_fraction_of_a_millisecond() -> None:
    """A list or bytes would take some 20 ms here; the bound leaves room for a busy machine."""
    pixels = RNG.integers(0, 256, (480, 640, 3), np.uint8)
    images.image_message(pixels, HEADER)
    start = time.perf_counter()
    for _ in range(10):
        images.image_message(pixels, HEADER)
    assert (time.perf_counter() - start) / 10 < 5e-3


# ------------------------------------------------------------------------------------------------ camera info

K = np.array([[500.0, 0, 319.5], [0, 510.0, 239.5], [0, 0, 1]])


def test_intrinsics_of_an_uncalibrated_camera_are_none() -> None:
    assert images.intrinsics(CameraInfo(width=640, height=480)) is None
    np.testing.assert_array_equal(images.intrinsics(images.camera_info_message(K, 640, 480, HEADER)), K)


def test_scaling_keeps_the_ray_through_each_pixel_corner() -> None:
    info = images.camera_info_message(K, 640, 480, HEADER, D=[0.1, 0, 0, 0, 0])
    scaled = images.scale_camera_info(info, 256, 192)
    k = images.intrinsics(scaled)
    assert k is not None
    # The picture's corner (-0.5, -0.5) is the same ray at each resolution, and so is the opposite one.
    for corner, at in (((-0.5, -0.5), (-0.5, -0.5)), ((639.5, 479.5), (255.5, 191.5))):
        np.testing.assert_allclose(np.linalg.solve(k, [*at, 1]), np.linalg.solve(K, [*corner, 1]), atol=1e-12)
    assert (scaled.width, scaled.height, list(scaled.d)) == (256, 192, [0.1, 0, 0, 0, 0])
    np.testing.assert_allclose(scaled.p.reshape(3, 4)[:, :3], k)


def test_binning_and_region_of_interest_are_folded_in() -> None:
    info = images.camera_info_message(K, 640, 480, HEADER)
    info.binning_x = info.binning_y = 2
    info.roi = RegionOfInterest(x_offset=100, y_offset=40, width=400, height=200)
    k = images.intrinsics(info)
    assert k is not None
    assert k[0, 2] == pytest.approx((319.5 - 100 + 0.5) / 2 - 0.5)
    same = images.scale_camera_info(info, 200, 100)  # the size at which the picture is published
    np.testing.assert_allclose(same.k.reshape(3, 3), k)
    assert same.binning_x == 0 and same.roi.width == 0


# ------------------------------------------------------------------------------------------------ point clouds


@pytest.mark.parametrize("colour", [True, False])
def test_a_cloud_survives_the_message(colour: bool) -> None:
    points = RNG.random((5, 7, 3)).astype(np.float32)
    points[2, 3] = np.nan
    rgb = RNG.integers(0, 256, (5, 7, 3), np.uint8) if colour else None
    message = images.points_message(points, HEADER, rgb)
    assert (message.height, message.width, message.row_step) == (5, 7, message.point_step * 7)
    assert not message.is_dense
    assert [field.name for field in message.fields] == ["x", "y", "z"] + ["rgb"] * colour
    back, colours = read_points(message)
    np.testing.assert_array_equal(back, points)
    assert (colours is None) if rgb is None else np.array_equal(colours, rgb)
