# SPDX-License-Identifier: Apache-2.0
"""Folders of pictures: order, side files, stamps, and what happens when a file is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnistream.errors import InputError
from omnistream.io import open_source
from omnistream.io.files import natural_key


def save(folder: Path, name: str, array: np.ndarray) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def test_natural_order_counts() -> None:
    names = [
        "frame10.png",
        "frame2.png",
        "frame1.png",
        "a.png",
        "frame02.png",
        "10.png",
        "9.png",
        "1_depth.png",
        "1.png",
    ]
    assert sorted(names, key=natural_key)[:4] == ["a.png", "frame1.png", "frame02.png", "frame2.png"]
    assert sorted(names, key=natural_key)[4:] == ["frame10.png", "1.png", "1_depth.png", "9.png", "10.png"]


def test_plain_folder_in_numeric_order_with_index_stamps(
    tmp_path: Path, numbered: Callable, number_of: Callable
) -> None:
    for number in (10, 9, 1, 2):
        save(tmp_path, f"{number}.png", numbered(number))
    (tmp_path / "notes.txt").write_text("not an image")
    save(tmp_path, ".hidden.png", numbered(3))
    source = open_source(tmp_path)
    frames = list(source)
    assert [number_of(frame.image) for frame in frames] == [1, 2, 9, 10]
    assert [frame.index for frame in frames] == [0, 1, 2, 3] and len(source) == source.length == 4
    np.testing.assert_allclose([frame.stamp for frame in frames], np.arange(4) / 30)
    assert frames[0].K is None and frames[0].depth is None and frames[0].T_world_camera is None
    assert [frame.stamp for frame in open_source(tmp_path, rate=2)] == [0, 0.5, 1.0, 1.5]
    assert len(list(source)) == 4  # it can be read again


def test_loop_goes_on_in_time(tmp_path: Path, numbered: Callable, number_of: Callable) -> None:
    for number in range(3):
        save(tmp_path, f"{number}.png", numbered(number))
    source = open_source(tmp_path, loop=True, rate=None)
    frames = [frame for frame, _ in zip(source, range(7), strict=False)]
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 0, 1, 2, 0]
    np.testing.assert_allclose([frame.stamp for frame in frames], np.arange(7) / 30)
    with pytest.raises(TypeError):
        len(source)


def seven_scenes(folder: Path, numbered: Callable, count: int = 3) -> None:
    for number in range(count):
        save(folder, f"frame-{number:06d}.color.png", numbered(number))
        depth = np.full((24, 32), 1000 + number, np.uint16)
        depth[0, 0], depth[0, 1] = 0, 65535
        save(folder, f"frame-{number:06d}.depth.png", depth)
        pose = np.eye(4)
        pose[0, 3] = number
        np.savetxt(folder / f"frame-{number:06d}.pose.txt", pose)
    np.savetxt(folder / "camera-intrinsics.txt", [[30, 0, 16], [0, 31, 12], [0, 0, 1]])


@pytest.mark.parametrize("how", ["folder", "pattern", "wildcards"])
def test_seven_scenes_side_files(tmp_path: Path, how: str, numbered: Callable, number_of: Callable) -> None:
    seven_scenes(tmp_path, numbered)
    if how == "folder":
        source = open_source(tmp_path)
    elif how == "pattern":
        source = open_source(tmp_path, pattern="frame-*.color.png")
    else:
        source = open_source(str(tmp_path / "frame-*.color.png"))
    frames = list(source)
    assert len(frames) == 3 and [number_of(frame.image) for frame in frames] == [0, 1, 2]
    for number, frame in enumerate(frames):
        assert frame.depth is not None and frame.depth.dtype == np.float32
        assert np.isnan(frame.depth[0, :2]).all() and frame.depth[1, 1] == pytest.approx(1 + number / 1000)
        assert frame.T_world_camera is not None and frame.T_world_camera[0, 3] == number
        np.testing.assert_array_equal(frame.K, [[30, 0, 16], [0, 31, 12], [0, 0, 1]])
    assert "3 with depth" in source.description and "intrinsics" in source.description
    np.savetxt(tmp_path / "frame-000001.pose.txt", np.full((4, 4), -np.inf))  # tracking lost
    assert [frame.T_world_camera is None for frame in open_source(tmp_path)] == [False, True, False]


def test_tum_style_pairs_are_fifths_of_millimetres(tmp_path: Path, numbered: Callable) -> None:
    for number in (1, 2):
        save(tmp_path, f"{number}.png", numbered(number))
        save(tmp_path, f"{number}_depth.png", np.full((24, 32), 5000 * number, np.uint16))
    frames = list(open_source(tmp_path))
    assert [frame.name for frame in frames] == ["1.png", "2.png"]
    assert [float(frame.depth[0, 0]) for frame in frames if frame.depth is not None] == [1.0, 2.0]
    millimetres = next(iter(open_source(tmp_path, depth_scale=0.001)))
    assert millimetres.depth is not None and millimetres.depth[0, 0] == pytest.approx(5)


def test_tum_benchmark_folder_is_associated_by_time(tmp_path: Path, numbered: Callable) -> None:
    stamps = [100.0, 100.033, 100.066]
    for number, stamp in enumerate(stamps):
        save(tmp_path, f"rgb/{stamp:.6f}.png", numbered(number))
    save(tmp_path, "depth/100.010000.png", np.full((24, 32), 5000, np.uint16))
    (tmp_path / "rgb.txt").write_text("# stamp file\n" + "".join(f"{s:.6f} rgb/{s:.6f}.png\n" for s in stamps))
    (tmp_path / "depth.txt").write_text("100.010000 depth/100.010000.png\n")
    (tmp_path / "groundtruth.txt").write_text("100.067 1 2 3 0 0 0 1\n500.0 0 0 0 0 0 0 1\n")
    source = open_source(tmp_path)
    frames = list(source)
    assert [frame.stamp for frame in frames] == stamps and source.rate == pytest.approx(30.3, abs=0.1)
    assert [frame.depth is not None for frame in frames] == [True, False, False]
    assert [frame.T_world_camera is not None for frame in frames] == [False, False, True]
    np.testing.assert_array_equal(frames[2].T_world_camera[:3, 3], [1, 2, 3])  # type: ignore[index]
    (tmp_path / "rgb.txt").write_text("100.0 ../../etc/picture.png\n")
    with pytest.raises(InputError, match="inside the folder"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["1305031102.175304", "1305031102175304000"])
def test_names_that_are_times_become_stamps(tmp_path: Path, name: str, numbered: Callable) -> None:
    save(tmp_path, f"{name}.png", numbered(0))
    assert next(iter(open_source(tmp_path))).stamp == pytest.approx(1305031102.175304, abs=1e-6)


def test_single_image_and_photo_orientation(tmp_path: Path, numbered: Callable) -> None:
    wide = numbered(4)
    path = save(tmp_path, "one.png", wide)
    (frame,) = open_source(path)
    np.testing.assert_array_equal(frame.image, wide)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(wide).save(tmp_path / "phone.jpg", exif=exif)
    (photo,) = open_source(tmp_path / "phone.jpg")
    assert photo.image.shape == (32, 24, 3)


def test_a_truncated_file_is_named_or_skipped_and_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        save(tmp_path, f"{number}.jpg", rng.integers(0, 255, (48, 64, 3), np.uint8))
    damaged = tmp_path / "1.jpg"
    damaged.write_bytes(damaged.read_bytes()[:400])
    (tmp_path / "2.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"1\.jpg: cannot be read as an image: .*[Tt]runcated"):
        list(open_source(tmp_path))
    source = open_source(tmp_path, on_error="skip")
    assert [frame.name for frame in source] == ["0.jpg", "3.jpg"]
    assert source.skipped == 2 and "1.jpg" in source.skip_reasons[0]
    assert [frame.index for frame in source] == [0, 1] and source.skipped == 2  # counted per iteration


def test_damaged_side_files_are_named(tmp_path: Path, numbered: Callable) -> None:
    seven_scenes(tmp_path, numbered)
    save(tmp_path, "frame-000001.depth.png", np.zeros((24, 32), np.uint8))
    with pytest.raises(InputError, match=r"000001\.depth\.png.*16 bits"):
        list(open_source(tmp_path))
    (tmp_path / "frame-000000.pose.txt").write_text("1 2 3\n")
    with pytest.raises(InputError, match=r"000000\.pose\.txt: line 1 is .*; expected 4 numbers"):
        list(open_source(tmp_path))
    np.savetxt(tmp_path / "frame-000000.pose.txt", np.diag([2.0, 1, 1, 1]))
    with pytest.raises(InputError, match="not a rigid transform"):
        list(open_source(tmp_path))
    np.savetxt(tmp_path / "camera-intrinsics.txt", np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"intrinsics\.txt: line 1 holds \[0.0, 0.0, 0.0\]; expected fx 0 cx"):
        open_source(tmp_path)


def test_errors_say_what_is_there(tmp_path: Path, numbered: Callable) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_source(tmp_path / "nothing")
    with pytest.raises(InputError, match="it holds nothing"):
        open_source(tmp_path)
    (tmp_path / "log.txt").write_text("x")
    save(tmp_path, "left/0.png", numbered(0))
    with pytest.raises(InputError, match=r"1 \.txt.*left/ \(1 images\)"):
        open_source(tmp_path)
    with pytest.raises(InputError, match=r"no image in .* matches '\*\.jpg'"):
        open_source(tmp_path, pattern="*.jpg")
    for wrong in ({"rate": 0}, {"rate": float("nan")}, {"topic": "/a"}, {"on_error": "ignore"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            open_source(tmp_path / "left", **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pattern"):
        open_source(tmp_path / "left" / "0.png", pattern="*.png")
