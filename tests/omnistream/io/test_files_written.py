# SPDX-License-Identifier: Apache-2.0
"""Files that are written are read back: PLY, TUM, depth PNG, npy; and a file is there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream.io.depth_error import compare_depth, stream_scale
from omnistream.io.depth_files import write_depth_png
from omnistream.io.files import read_depth, replacing, write_bytes, write_npy
from omnistream.io.ply import write_ply
from omnistream.io.resample import nearest_resize
from omnistream.io.trajectory import TumWriter, nearest, read_tum, write_tum


def random_poses(count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rigid.from_translation_quaternion(rng.normal(size=(count, 7)))


def test_two_threads_write_a_file_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as other, replacing(tmp_path / "a.json") as mine:
        mine.write_bytes(b"half")
        other.submit(write_bytes, tmp_path / "a.json", b"theirs").result()
        assert (tmp_path / "a.json").read_bytes() == b"theirs"
        assert mine.read_bytes() == b"half"
    assert len(list(tmp_path.iterdir())) == 1


def test_ply_round_trip_keeps_the_grid(tmp_path: Path, read_ply: Callable) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 7, 3)).astype(np.float32)
    points[2, 3, 1] = np.inf
    colours = rng.integers(0, 255, (5, 7, 3), np.uint8)
    path = tmp_path / "deep" / "cloud.ply"
    write_ply(path, points, colours, ("frame 0", "scale metric\nsecond line"))
    back, back_colours = read_ply(path)
    assert np.isnan(back[2, 3]).all()
    points[2, 3] = np.nan
    np.testing.assert_array_equal(back, points)
    np.testing.assert_array_equal(back_colours, colours)
    header = path.read_bytes().split(b"end_header")[0].decode()
    assert header.startswith(
        "ply\nformat binary_little_endian 1.0\ncomment frame 0\ncomment scale metric\ncomment second"
    )
    assert "element vertex 35\nproperty float x\n" in header and "property uchar blue" in header
    assert path.stat().st_size == len(header) + len("end_header\n") + 35 * 15


def test_ply_of_wrong_shapes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected \[H, W, 3\]"):
        write_ply(tmp_path / "a.ply", np.zeros((4, 3)), np.zeros((4, 3), np.uint8))


def test_tum_round_trip(tmp_path: Path) -> None:
    poses = random_poses(6)
    stamps = 1_700_000_000.123456789 + np.arange(6) / 30
    write_tum(tmp_path / "poses.txt", zip(stamps, poses, strict=True), "two\nlines")
    times, back = read_tum(tmp_path / "poses.txt")
    np.testing.assert_allclose(times, stamps, atol=1e-6, rtol=0)
    np.testing.assert_allclose(back, poses, atol=1e-8)
    assert (tmp_path / "poses.txt").read_text().startswith("# two\n# lines\n1700000000.123")


def test_tum_of_one_known_pose(tmp_path: Path) -> None:
    turn = rigid.transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [1, 2, 3])  # 90 degrees about z
    write_tum(tmp_path / "poses.txt", [(0.5, turn)])
    assert (tmp_path / "poses.txt").read_text() == "0.500000000 1 2 3 0 0 0.707106781 0.707106781\n"


def test_an_empty_trajectory_is_no_error(tmp_path: Path) -> None:
    with TumWriter(tmp_path / "poses.txt", "nothing came"):
        pass
    times, poses = read_tum(tmp_path / "poses.txt")
    assert times.shape == (0,) and poses.shape == (0, 4, 4)


def test_nearest_in_time() -> None:
    np.testing.assert_array_equal(nearest([0.0, 1.0, 2.0, 9.0], [2.1, 0.1, 0.9], 0.2), [1, 2, 0, -1])
    np.testing.assert_array_equal(nearest([0.0, 5.0], [0.05], 0.1), [0, -1])
    np.testing.assert_array_equal(nearest([0.0], [], 1.0), [-1])


def test_depth_png_is_millimetres_and_metric_alone(tmp_path: Path) -> None:
    depth = np.array([[1.2344, np.nan, 65.534], [0.0, 70.0, np.inf]], np.float32)
    write_depth_png(tmp_path / "d.png", depth, "metric")
    with Image.open(tmp_path / "d.png") as picture:
        assert picture.mode.startswith("I")
        np.testing.assert_array_equal(np.asarray(picture), [[1234, 0, 65534], [0, 0, 0]])
    back = read_depth(tmp_path / "d.png", 0.001)
    np.testing.assert_allclose(back, [[1.234, np.nan, 65.534], [np.nan, np.nan, np.nan]])
    for scale in ("relative", "none"):
        with pytest.raises(InputError, match=f"scale '{scale}' is not written in millimetres"):
            write_depth_png(tmp_path / "refused.png", depth, scale)
    assert [path.name for path in tmp_path.iterdir()] == ["d.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.npy") as path:
        path.write_bytes(b"half")
        raise RuntimeError
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), [0, 1, 2])
    with pytest.raises(RuntimeError), TumWriter(tmp_path / "poses.txt") as writer:
        writer.add(0.0, np.eye(4))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_nearest_resize_takes_the_value_at_the_pixel_centre() -> None:
    grid = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(nearest_resize(grid, (3, 4)), grid)
    np.testing.assert_array_equal(nearest_resize(grid, (6, 8)), grid.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(nearest_resize(grid, (1, 2)), [[5, 7]])


def test_depth_error_known_answers() -> None:
    reference = np.array([[1.0, 2.0, np.nan], [4.0, 0.0, 1.0]])
    error = compare_depth(np.array([[1.1, 1.0, 5.0], [4.0, 3.0, np.nan]]), reference)
    np.testing.assert_allclose(error.relative, [[0.1, 0.5, np.nan], [0, np.nan, np.nan]], atol=1e-12)
    assert error.abs_rel == pytest.approx(0.2) and error.delta1 == pytest.approx(2 / 3)
    assert np.isnan(compare_depth(np.full((1, 1), np.nan), np.ones((1, 1))).abs_rel)
    assert stream_scale([(reference / 3, reference), (reference / 3, reference)]) == pytest.approx(3)
    assert stream_scale([]) == 1
    with pytest.raises(InputError, match="same size"):
        compare_depth(np.ones((2, 2)), reference)
