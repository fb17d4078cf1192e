# SPDX-License-Identifier: Apache-2.0
"""Recordings of real cameras, where OMNISTREAM_REAL_DATA has them: opened, checked against what is known, streamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnistream.cli.stream import main
from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream.geometry.pinhole import unproject
from omnistream.io import open_source
from omnistream.io.trajectory import read_tum
from omnistream.weights import save_model

pytestmark = pytest.mark.realdata

G1 = "g1_lerobot_a/videos/chunk-000/observation.images.cam_high/episode_0000{}.mp4"


def need(folder: Path, name: str) -> Path:
    if not (folder / name).exists():
        pytest.skip(f"{name} is not in OMNISTREAM_REAL_DATA")
    return folder / name


def test_redkitchen_depth_pose_and_intrinsics_belong_together(real_data: Path) -> None:
    source = open_source(need(real_data, "redkitchen_a"), pattern="frame-*.color.jpg")
    assert len(source) == 150
    frames = {frame.index: frame for frame in source if frame.index in (0, 40)}
    a, b = frames[0], frames[40]
    assert a.image.shape == (480, 640, 3) and b.stamp == pytest.approx(40 / 30)
    assert a.K is not None and a.depth is not None and b.depth is not None
    assert a.T_world_camera is not None and b.T_world_camera is not None
    # Carry the depth of frame 0 into frame 40: it lands on that frame's depth, to a centimetre in the middle.
    T_b_a = rigid.inverse(b.T_world_camera) @ a.T_world_camera
    points = rigid.apply(T_b_a, unproject(a.depth, a.K)[::4, ::4].reshape(-1, 3))
    points = points[np.isfinite(points).all(1) & (points[:, 2] > 0.1)]
    pixels = np.rint(points[:, :2] / points[:, 2:] * np.diag(a.K)[:2] + a.K[:2, 2]).astype(int)
    inside = ((pixels >= 0) & (pixels < (640, 480))).all(1)
    difference = np.abs(b.depth[pixels[inside, 1], pixels[inside, 0]] - points[inside, 2])
    assert np.nanmedian(difference) < 0.015 and inside.sum() > 5000


def test_office_loop_comes_in_numeric_order(real_data: Path) -> None:
    frames = list(open_source(need(real_data, "office_loop")))
    assert [frame.name for frame in frames] == [f"{number:06d}.png" for number in range(0, 235, 3)]
    assert {frame.image.shape for frame in frames} == {(294, 518, 3)} and frames[0].depth is None


@pytest.mark.parametrize(("episode", "count"), [(29, 221), (59, 280)])
def test_g1_videos_have_all_their_frames(real_data: Path, episode: int, count: int) -> None:
    source = open_source(need(real_data, G1.format(episode)))
    stamps = [frame.stamp for frame in source if frame.image.shape == (480, 640, 3)]
    assert len(stamps) == count == source.length and source.rate == 30
    np.testing.assert_allclose(stamps, np.arange(count) / 30, atol=1e-3)


def test_the_root_of_a_data_set_names_the_videos_in_it(real_data: Path) -> None:
    with pytest.raises(InputError, match="2 videos or bags inside it: videos/chunk-000"):
        open_source(need(real_data, "g1_lerobot_a"))


def test_stereo_pair_and_photos(real_data: Path) -> None:
    stereo = list(open_source(need(real_data, "stereo_motorcycle")))
    assert [frame.name for frame in stereo] == ["motorcycle_left.png", "motorcycle_right.png"]
    assert stereo[0].image.shape == (500, 741, 3)
    photos = list(open_source(need(real_data, "photos_a")))
    assert [frame.image.shape for frame in photos] == [(300, 451, 3), (400, 600, 3)]
    with Image.open(need(real_data, "photos_a") / "coffee.png") as picture:
        np.testing.assert_array_equal(photos[1].image, np.asarray(picture.convert("RGB")))


def test_tum_pair_has_depth_in_metres(real_data: Path) -> None:
    frames = list(open_source(need(real_data, "tum_fr2_pair")))
    assert [frame.name for frame in frames] == ["1.png", "2.png"]
    for frame in frames:
        assert frame.depth is not None and 1.0 < np.nanmedian(frame.depth) < 2.5  # a desk in front of a Kinect


def test_a_bag_without_images_ends_with_its_topic_list(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = need(real_data, "bag_nav2_mcap_SIMULATED")
    for path in (folder, folder / "nav2_turtlebot.mcap"):
        assert main([str(path), "--out", str(tmp_path / "out")]) == 3
        errors = capsys.readouterr().err
        assert "no images in this bag" in errors
        for line in (("/odom", "nav_msgs/msg/Odometry", "2639"), ("/tf", "tf2_msgs/msg/TFMessage", "5422")):
            assert any(line == tuple(found.split()) for found in errors.splitlines())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "frames", "reference"),
    [
        ("redkitchen_a/frame-*.color.jpg", 8, True),
        ("office_loop", 8, False),
        (G1.format(29), 8, False),
        ("stereo_motorcycle", 2, False),
        ("tum_fr2_pair", 2, True),
        ("photos_a", 2, False),
        ("photos_a/coffee.png", 1, False),
    ],
)
def test_they_stream_through_the_command_line(
    real_data: Path, make_model: Callable, tmp_path: Path, name: str, frames: int, reference: bool
) -> None:
    need(real_data, name.partition("/")[0])
    save_model(make_model("metric"), tmp_path / "weights", made_by="a test")
    out = tmp_path / "out"
    words = ["--weights", tmp_path / "weights", "--threads", 1, "--max-frames", 8, "--save", "depth,poses,points,sheet"]
    assert main([str(real_data / name), "--out", str(out), *map(str, words)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["state"] == "done" and report["stepped"] == frames and report["drops"] == {}
    assert report["resets"] == ({"size_changed": 1} if name == "photos_a" else {})
    assert len(list((out / "depth").glob("*.png"))) == len(list((out / "points").glob("*.ply"))) == frames
    assert len(read_tum(out / "poses.txt")[0]) == frames
    with Image.open(out / "sheet.png") as sheet:
        assert (sheet.width > 1500) == reference  # five columns where the recording has depth
