# SPDX-License-Identifier: Apache-2.0
"""The recording folder: what the writer writes, the reader reads, and a wrong header is named by field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream.io import open_source
from omnistream.io.recording_writer import RecordingWriter

K = np.array([[300.0, 0, 20], [0, 301, 15], [0, 0, 1]])
SIZE = (30, 40)


def pose(number: int) -> np.ndarray:
    return rigid.from_translation_quaternion([number, 0.5, -1, 0, np.sin(0.1 * number), 0, np.cos(0.1 * number)])


def write(folder: Path, count: int = 5, **options: object) -> list[np.ndarray]:
    images = [np.random.default_rng(n).integers(0, 255, (*SIZE, 3), np.uint8) for n in range(count)]
    options = {"K": K, "D": (0.1, 0, 0, 0), "jpeg_quality": None, "description": "a test"} | options
    with RecordingWriter(folder, rate=10, size=SIZE, **options) as writer:  # type: ignore[arg-type]
        for number, image in enumerate(images):
            depth = np.full(SIZE, 1.0 + number / 8)
            depth[0, 0], depth[0, 1], depth[0, 2] = np.nan, np.inf, 1000.0
            writer.add(image, stamp=50 + number / 10, depth=depth, T_world_camera=pose(number))
    return images


def test_round_trip(tmp_path: Path) -> None:
    images = write(tmp_path / "room")
    source = open_source(tmp_path / "room")
    frames = list(source)
    assert source.rate == 10 and len(source) == 5 and "a test" in source.description
    for number, (frame, image) in enumerate(zip(frames, images, strict=True)):
        np.testing.assert_array_equal(frame.image, image)
        assert frame.stamp == pytest.approx(50 + number / 10) and frame.name == f"{number:06d}.png"
        np.testing.assert_array_equal(frame.K, K)
        assert frame.D == (0.1, 0, 0, 0) and frame.distortion_model == "plumb_bob"
        assert frame.frame_id == "camera_optical_frame"
        assert frame.depth is not None and np.isnan(frame.depth[0, :3]).all()
        np.testing.assert_allclose(frame.depth[1:], 1 + number / 8, atol=5e-4)
        np.testing.assert_allclose(frame.T_world_camera, pose(number), atol=1e-8)


def test_only_pictures_are_needed(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path, rate=5, size=SIZE) as writer:
        writer.add(np.zeros((*SIZE, 3), np.uint8))
        writer.add(np.full((*SIZE, 3), 200, np.uint8))
    (tmp_path / "stamps.txt").unlink()
    frames = list(open_source(tmp_path))
    assert [frame.stamp for frame in frames] == [0, 0.2] and frames[0].name == "000000.jpg"
    assert frames[0].K is None and frames[0].depth is None and frames[0].T_world_camera is None


def test_poses_are_matched_by_time(tmp_path: Path) -> None:
    write(tmp_path, count=3)
    lines = (tmp_path / "poses.txt").read_text().splitlines()
    (tmp_path / "poses.txt").write_text("# comment\n" + lines[2] + "\n")
    assert [frame.T_world_camera is None for frame in open_source(tmp_path)] == [True, True, False]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "other"}, "expected 'format: omnistream-recording'"),
        ({"version": 2}, "version is 2; this release reads 1"),
        ({"rate": 0}, "rate is 0"),
        ({"rate": "fast"}, "rate is 'fast'"),
        ({"depth_scale": -1}, "depth_scale is -1"),
        ({"camera": None}, "camera is None"),
        ({"camera": {"width": 40, "height": 30, "K": [1, 2]}}, "camera.K is .* expected 9 numbers"),
        ({"camera": {"width": 40, "height": 30, "D": ["a"]}}, "camera.D"),
        ({"camera": {"width": 40, "height": 31}}, "40x30; expected 40x31"),
    ],
)
def test_wrong_headers_are_named(tmp_path: Path, change: dict, match: str) -> None:
    write(tmp_path, count=2)
    header = yaml.safe_load((tmp_path / "recording.yaml").read_text())
    (tmp_path / "recording.yaml").write_text(yaml.safe_dump(header | change))
    with pytest.raises(InputError, match=match):
        list(open_source(tmp_path))


def test_wrong_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, count=3)
    (tmp_path / "stamps.txt").write_text("0\n1\n")
    with pytest.raises(InputError, match=r"stamps\.txt: 2 stamps; expected 3"):
        open_source(tmp_path)
    (tmp_path / "stamps.txt").unlink()
    (tmp_path / "poses.txt").write_text("0 1 2 3\n")
    with pytest.raises(InputError, match=r"poses\.txt: line 1 is .0 1 2 3.; expected 8 numbers"):
        open_source(tmp_path)
    (tmp_path / "poses.txt").write_text("0 1 2 3 0 0 0 0\n")
    with pytest.raises(InputError, match=r"poses\.txt: line 1 has a quaternion of length 0"):
        open_source(tmp_path)
    (tmp_path / "recording.yaml").write_text("format: [")
    with pytest.raises(InputError, match=r"recording\.yaml"):
        open_source(tmp_path)


def test_a_broken_run_is_no_recording_and_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RecordingWriter(tmp_path / "a", rate=5, size=SIZE) as writer:
        writer.add(np.zeros((*SIZE, 3), np.uint8))
        raise KeyboardInterrupt
    assert not (tmp_path / "a" / "recording.yaml").exists()
    write(tmp_path / "b", count=1)
    with pytest.raises(InputError, match="already holds a recording"):
        RecordingWriter(tmp_path / "b", rate=5, size=SIZE)
    with (
        RecordingWriter(tmp_path / "c", rate=5, size=SIZE) as writer,
        pytest.raises(InputError, match="expected uint8"),
    ):
        writer.add(np.zeros((3, 3, 3), np.uint8))


def test_a_wrong_camera_line_is_named_by_its_number(tmp_path: Path) -> None:
    write(tmp_path, count=2)
    header = yaml.safe_load((tmp_path / "recording.yaml").read_text())
    header["camera"]["K"] = [1.0, 2.0]
    (tmp_path / "recording.yaml").write_text(yaml.safe_dump(header, sort_keys=False, default_flow_style=None))
    text = (tmp_path / "recording.yaml").read_text().replace("camera: {", "camera: {\n  ").replace(", K:", ",\n  K:")
    (tmp_path / "recording.yaml").write_text(text)
    number = next(i for i, line in enumerate(text.splitlines(), start=1) if line.strip().startswith("K:"))
    with pytest.raises(InputError, match=rf"recording\.yaml: line {number}: camera\.K is .*; expected 9 numbers"):
        open_source(tmp_path)


def test_a_wrong_line_of_a_trajectory_is_named_by_its_number(tmp_path: Path) -> None:
    write(tmp_path, count=2)
    (tmp_path / "poses.txt").write_text("# stamp ...\n0 0 0 0 0 0 0 1\n\n0.1 0 0 nan 0 0 0 1\n")
    with pytest.raises(InputError, match=r"poses\.txt: line 4 is '0.1 0 0 nan 0 0 0 1'; expected 8 numbers"):
        open_source(tmp_path)
