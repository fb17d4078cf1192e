# SPDX-License-Identifier: Apache-2.0
"""Bags, written here by `rosbags` in both storages: stamps, calibration, choice of topic, damage."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnistream.errors import InputError
from omnistream.io import open_source

pytest.importorskip("rosbags")

K = (100.0, 0, 16, 0, 101, 12, 0, 0, 1)
RAW = "/front/image_raw"
START = 1_700_000_000_000_000_000  # log time, ns: wall clock, while headers are a simulation's


def simple(maker: Any, numbered: Callable, count: int = 5, info_at: int = 0) -> Path:
    for number in range(count):
        log_time = START + number * 100_000_000
        if number == info_at:
            maker.info("/front/camera_info", K, (24, 32), log_time, D=(0.1, 0.2, 0, 0, 0))
        maker.image(RAW, numbered(number), stamp=7 + number / 20, log_time=log_time)
        maker.text("/chatter", log_time)
    return maker.close()


@pytest.mark.parametrize("how", ["folder", "file", "without metadata"])
@pytest.mark.parametrize("info_at", [0, 3])
def test_images_with_header_stamps_and_calibration(
    make_bag: Callable, how: str, info_at: int, numbered: Callable, number_of: Callable
) -> None:
    path = simple(make_bag(), numbered, info_at=info_at)
    if how == "file":
        path = next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
    elif how == "without metadata":
        (path / "metadata.yaml").unlink()
    source = open_source(path)
    frames = list(source)
    assert [number_of(frame.image) for frame in frames] == list(range(5)) and len(source) == 5
    np.testing.assert_allclose([frame.stamp for frame in frames], 7 + np.arange(5) / 20, atol=1e-9)
    assert source.rate == pytest.approx(10)
    for frame in frames:
        np.testing.assert_array_equal(frame.K, np.reshape(K, (3, 3)))  # also before the bag's first CameraInfo
        assert frame.D == (0.1, 0.2, 0, 0, 0) and frame.distortion_model == "plumb_bob"
        assert frame.frame_id == "front_optical"


@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "yuyv", "bayer_rggb8"])
def test_encodings_are_decoded(make_bag: Callable, encoding: str) -> None:
    image = np.full((24, 32, 3), 90, np.uint8)
    data = {
        "bgr8": image,
        "mono8": image[:, :, 0],
        "yuyv": np.tile(np.array([93, 128], np.uint8), (24, 32)),  # 16 + 90 * 219 / 255
        "bayer_rggb8": image[:, :, 0],
    }[encoding]
    maker = make_bag()
    # rows of bytes: the maker takes the width from the array, so yuyv is given as [24, 32, 2]
    maker.image(RAW, data.reshape(24, 32, -1), 1.0, START, encoding=encoding)
    (frame,) = open_source(maker.close())
    assert np.abs(frame.image.astype(int) - 90).max() <= 1


def test_compressed_images_use_the_camera_info_of_their_base_topic(
    make_bag: Callable, numbered: Callable, number_of: Callable
) -> None:
    maker = make_bag()
    maker.info("/front/camera_info", K, (24, 32), START)
    for number in range(3):
        buffer = io.BytesIO()
        Image.fromarray(numbered(number)).save(buffer, "JPEG", quality=95)
        maker.compressed(f"{RAW}/compressed", buffer.getvalue(), "rgb8; jpeg compressed bgr8", number, START + number)
    frames = list(open_source(maker.close()))
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2]
    assert frames[0].K is not None


def test_rectified_binned_and_foreign_calibrations(make_bag: Callable, numbered: Callable) -> None:
    P = (90.0, 0, 15, 5, 0, 91, 11, 0, 0, 0, 1, 0)
    maker = make_bag("rectified")
    maker.info("/front/camera_info", K, (24, 32), START, D=(0.3,), P=P)
    maker.image("/front/image_rect", numbered(0), 1.0, START)
    (frame,) = open_source(maker.close())
    np.testing.assert_array_equal(frame.K, [[90, 0, 15], [0, 91, 11], [0, 0, 1]])
    assert frame.D == () and frame.distortion_model == ""

    maker = make_bag("director")  # letters of another word: the image is as the camera made it
    maker.info("/director/camera_info", K, (24, 32), START, D=(0.3,), P=P)
    maker.image("/director/image", numbered(0), 1.0, START)
    (frame,) = open_source(maker.close())
    assert frame.K[0, 0] == K[0] and frame.D == (0.3,)

    maker = make_bag("binned")  # 52x66 with the upper left 4x2 cut off, then 2x2 pixels made one
    maker.info("/front/camera_info", K, (52, 66), START, binning=2, offset=(4, 2))
    maker.image(RAW, numbered(0), 1.0, START)
    (frame,) = open_source(maker.close())
    # A point seen at full-resolution pixel (u, v) is at ((u - 2 + 0.5) / 2 - 0.5, (v - 4 + 0.5) / 2 - 0.5) now.
    np.testing.assert_allclose(frame.K, [[50, 0, 6.75], [0, 50.5, 3.75], [0, 0, 1]])

    for name, wrong in (("other size", {"size": (48, 64)}), ("not calibrated", {"K": (0.0,) * 9})):
        maker = make_bag(name)
        maker.info("/front/camera_info", **({"K": K, "size": (24, 32), "log_time": START} | wrong))
        maker.image(RAW, numbered(0), 1.0, START)
        (frame,) = open_source(maker.close())
        assert frame.K is None


def test_several_topics_must_be_chosen_and_depth_is_no_picture(
    make_bag: Callable, numbered: Callable, number_of: Callable
) -> None:
    maker = make_bag("two")
    maker.image("/left/image_raw", numbered(1), 1.0, START)
    maker.image("/right/image_raw", numbered(2), 1.0, START + 1)
    maker.image("/depth/image_rect", np.ones((24, 32), np.float32), 1.0, START + 2, encoding="32FC1")
    path = maker.close()
    with pytest.raises(InputError, match=r"(?s)several image topics.*/left/image_raw.*/right/image_raw"):
        open_source(path)
    (frame,) = open_source(path, topic="/right/image_raw")
    assert number_of(frame.image) == 2
    with pytest.raises(InputError, match=r"(?s)no image topic '/front'.*/left/image_raw +sensor_msgs/msg/Image +1"):
        open_source(path, topic="/front")
    with pytest.raises(InputError, match=r"/depth/image_rect holds depth"):
        open_source(path, topic="/depth/image_rect")

    maker = make_bag("one")
    maker.image("/color/image_raw", numbered(1), 1.0, START)
    maker.image("/depth/image_rect_raw", np.ones((24, 32), np.uint16), 1.0, START, encoding="16UC1")
    (frame,) = open_source(maker.close())
    assert number_of(frame.image) == 1


def test_a_bag_without_images_shows_its_table_of_contents(make_bag: Callable) -> None:
    maker = make_bag()
    maker.text("/chatter", START)
    maker.text("/chatter", START + 1)
    maker.info("/front/camera_info", K, (24, 32), START)
    pattern = r"(?s)no images.*/chatter +std_msgs/msg/String +2.*/front/camera_info +sensor_msgs/msg/CameraInfo +1"
    with pytest.raises(InputError, match=pattern):
        open_source(maker.close())


def test_unstamped_headers_fall_back_to_the_log_and_say_so(make_bag: Callable, numbered: Callable) -> None:
    maker = make_bag()
    for number in range(3):
        maker.image(RAW, numbered(number), 0.0, START + number * 50_000_000)
    source = open_source(maker.close())
    assert "stamps from the log" in source.description
    np.testing.assert_allclose([frame.stamp for frame in source], START / 1e9 + np.arange(3) / 20, atol=1e-6)


def test_damaged_messages_are_named_or_skipped_and_counted(
    make_bag: Callable, numbered: Callable, number_of: Callable
) -> None:
    maker = make_bag()
    maker.image(RAW, numbered(0), 1.0, START)
    maker.image(RAW, numbered(1), 1.1, START + 1, cut=5)
    maker.image(RAW, numbered(2), 1.2, START + 2, encoding="h264")
    maker.image(RAW, numbered(3), 1.3, START + 3)
    path = maker.close()
    with pytest.raises(InputError, match=r"image 1 on /front/image_raw: rgb8 image is truncated: 2299 bytes"):
        list(open_source(path))
    source = open_source(path, on_error="skip")
    assert [number_of(frame.image) for frame in source] == [0, 3]
    assert source.skipped == 2 and "h264" in source.skip_reasons[1]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_bags_are_named(make_bag: Callable, keep: float, numbered: Callable) -> None:
    path = simple(make_bag(), numbered, count=30)
    file = next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    for which in (path, file):
        with pytest.raises(InputError, match=file.name.replace(".", r"\.") if which == file else path.name):
            list(open_source(which))


def test_options_of_other_inputs_are_refused(make_bag: Callable, numbered: Callable) -> None:
    path = simple(make_bag(), numbered)
    with pytest.raises(InputError, match="pattern"):
        open_source(path, pattern="*.png")
