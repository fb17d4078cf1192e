# SPDX-License-Identifier: Apache-2.0
"""Recordings as training data: what is wrong in them is named and counted, and never silently trained on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnistream.errors import InputError
from omnistream.io.frames import Frame
from omnistream.io.recording_writer import RecordingWriter
from omnistream_training.data import packed
from omnistream_training.data.folder import FolderSource, find_recordings
from omnistream_training.data.packed import fit, open_pack
from omnistream_training.data.source import HELD_OUT, ClipRequest
from tests.omnistream_training.scenes import intrinsics, plane_depth, pose, rotation

SIZE = (48, 64)
EYE = torch.eye(3, dtype=torch.float64)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def record(
    folder: Path, frames: int = 20, gap_after: int | None = None, rate: float = 30.0, depth: bool = True
) -> Path:
    """A camera that turns before a wall; the green channel tells the frame."""
    K = intrinsics(SIZE)
    poses = torch.stack([pose(rotation(1, 0.01 * t), (0.02 * t, 0, 0)) for t in range(frames)])
    walls = plane_depth(poses, K, SIZE, 2.0).numpy()
    with RecordingWriter(folder, rate=rate, size=SIZE, K=K.numpy(), jpeg_quality=None) as writer:
        for t in range(frames):
            image = np.full((*SIZE, 3), 40, np.uint8)
            image[..., 1] = 8 * t % 256
            late = 2.0 if gap_after is not None and t > gap_after else 0.0
            writer.add(
                image,
                stamp=t / rate + late,
                depth=walls[t].astype(np.float32) if depth else None,
                T_world_camera=poses[t].numpy(),
            )
    return folder


def source(*folders: Path, size: tuple[int, int] = (32, 32), on_error: str = "skip") -> FolderSource:
    return FolderSource([str(f) for f in folders], size, 30.0, on_error)  # type: ignore[arg-type]


def numbers(images: torch.Tensor) -> list[int]:
    """Frame numbers of [T, 3, H, W] by their green."""
    return [round(float(frame[1].median()) * 255 / 8) for frame in images]


def test_clips_have_the_frames_times_and_geometry_of_the_recording(tmp_path: Path) -> None:
    batch = source(record(tmp_path / "a")).read(ClipRequest(numbers=range(6), frames=4, size=(32, 32), stride=2))
    for clip in range(6):
        found = numbers(batch.images[clip])
        assert found == list(range(found[0], found[0] + 8, 2))
        assert batch.times[clip].tolist() == pytest.approx([0, 2, 4, 6])
        v, u = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
        rays = torch.stack([u, v, torch.ones_like(u)], -1).float() @ torch.linalg.inv(batch.K[clip]).T
        turned = torch.einsum("tij,hwj->thwi", batch.T_world_camera[clip, :, :3, :3], rays)
        wall = batch.depth[clip] * turned[..., 2]
        assert (wall - 2).abs().max() < 0.02  # depth is sampled at the nearest source pixel and stored in float16


def test_the_end_of_a_recording_is_held_out(tmp_path: Path) -> None:
    reader = source(record(tmp_path / "a", frames=30))
    train = reader.read(ClipRequest(numbers=range(40), frames=2, size=(32, 32)))
    held = reader.read(ClipRequest(numbers=range(HELD_OUT, HELD_OUT + 10), frames=2, size=(32, 32)))
    assert max(n for clip in train.images for n in numbers(clip)) < 27
    assert min(n for clip in held.images for n in numbers(clip)) >= 27


@pytest.mark.parametrize("count", [1, 2, 11])
def test_a_recording_too_short_to_be_cut_is_on_one_side_whole(tmp_path: Path, count: int) -> None:
    long = [record(tmp_path / "long", frames=60)] if count == 11 else []
    folders = [str(record(tmp_path / f"short{i:02}", frames=12 + i)) for i in range(count)] + [str(f) for f in long]
    reader = FolderSource(folders, (32, 32), 30.0, held_out_frames=6)
    seen: dict[bool, set[tuple[int, int]]] = {}
    for held_out in (False, True):
        clips = reader._windows(6, 1, held_out)[1]
        seen[held_out] = {(pack, frame) for pack, first, stop in clips for frame in range(first, stop + 5)}
    assert seen[True] and seen[False] and not seen[True] & seen[False]
    whole = {pack for pack, _ in seen[True]} & set(range(count))
    assert whole == {1: {0}, 2: {1}, 11: {9}}[count]
    for pack in range(count) if count > 1 else ():  # not a frame of it is left out
        assert {frame for i, frame in seen[pack in whole] if i == pack} == set(range(12 + pack))


def test_no_clip_goes_over_a_pause(tmp_path: Path) -> None:
    reader = source(record(tmp_path / "a", gap_after=8))
    batch = reader.read(ClipRequest(numbers=range(60), frames=4, size=(32, 32)))
    for clip in batch.images:
        found = numbers(clip)
        assert not (found[0] <= 8 < found[-1])


def test_too_short_for_the_stride_is_stepped_through_more_slowly(tmp_path: Path) -> None:
    batch = source(record(tmp_path / "a")).read(ClipRequest(numbers=[0], frames=9, size=(32, 32), stride=8))
    assert batch.times[0, 1] == pytest.approx(2)


def test_too_short_altogether_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recording has 40 frames without a pause"):
        source(record(tmp_path / "a")).read(ClipRequest(numbers=[0], frames=40, size=(32, 32)))


def test_no_depth_and_no_poses_are_nan_and_reported(tmp_path: Path) -> None:
    folder = record(tmp_path / "a", depth=False)
    (folder / "poses.txt").unlink()
    reader = source(folder)
    batch = reader.read(ClipRequest(numbers=[0], frames=2, size=(32, 32)))
    assert batch.depth.isnan().all() and batch.T_world_camera.isnan().all()
    assert "20 without depth, 20 without pose" in reader.report_lines()[0]


def test_a_damaged_picture_is_skipped_and_named_or_stops_it(tmp_path: Path) -> None:
    folder = record(tmp_path / "a")
    (folder / "rgb" / "000003.png").write_bytes(b"not a picture")
    reader = source(folder)
    lines = reader.report_lines()
    assert "19 frames, 1 skipped" in lines[0]
    assert any("000003.png" in line for line in lines[1:])
    with pytest.raises(InputError, match="000003.png"):
        source(folder, on_error="raise")


def test_a_missing_picture_makes_no_clip_go_over_it(tmp_path: Path) -> None:
    folder = record(tmp_path / "a")
    for name in ("000008", "000009", "000010"):
        (folder / "rgb" / f"{name}.png").write_bytes(b"")
    batch = source(folder).read(ClipRequest(numbers=range(40), frames=3, size=(32, 32)))
    assert all(not (numbers(clip)[0] < 8 and numbers(clip)[-1] > 10) for clip in batch.images)


def test_a_wrong_intrinsics_line_is_named_with_its_file(tmp_path: Path) -> None:
    good, bad = record(tmp_path / "set" / "good"), record(tmp_path / "set" / "bad")
    header = bad / "recording.yaml"
    header.write_text(header.read_text().replace("K:", "K: [1, 2]\n  was:"))
    reader = source(tmp_path / "set")
    assert [report.name for report in reader.reports] == [good.name]
    assert "recording.yaml" in reader.refused[0] and "K" in reader.refused[0]
    with pytest.raises(InputError, match=r"recording\.yaml"):
        source(tmp_path / "set", on_error="raise")


@pytest.mark.parametrize("K", [[-50, 50, 32, 24], [50, 0, 32, 24], [50, 50, 500, 24]])
def test_intrinsics_that_no_camera_has_are_refused(K: list[float]) -> None:
    fx, fy, cx, cy = K
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    frame = Frame(image=np.zeros((48, 64, 3), np.uint8), stamp=0, index=0, name="0.png", K=matrix)
    with pytest.raises(InputError, match=r"0\.png: intrinsics"):
        fit(frame, (32, 32))


def test_empty_depth_is_counted(tmp_path: Path) -> None:
    folder = record(tmp_path / "a")
    blank = folder / "depth" / "000005.png"
    from PIL import Image

    Image.fromarray(np.zeros(SIZE, np.uint16)).save(blank)
    assert "1 with empty depth" in source(folder).report_lines()[0]


def test_a_pack_is_made_once_and_again_when_a_file_changes(tmp_path: Path) -> None:
    folder = record(tmp_path / "a")
    open_pack(folder, (32, 32), tmp_path / "packs")
    assert len(list((tmp_path / "packs").iterdir())) == 1
    open_pack(folder, (32, 32), tmp_path / "packs")
    assert len(list((tmp_path / "packs").iterdir())) == 1
    (folder / "poses.txt").write_text((folder / "poses.txt").read_text() + "\n")
    open_pack(folder, (32, 32), tmp_path / "packs")
    assert len(list((tmp_path / "packs").iterdir())) == 2


def test_two_processes_pack_a_recording_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache, save = record(tmp_path / "a", frames=5), tmp_path / "packed", np.save

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(packed.np, "save", save)
        save(*arguments)
        open_pack(folder, (32, 32), cache)  # the other begins and ends while this one writes

    monkeypatch.setattr(packed.np, "save", late)
    assert len(open_pack(folder, (32, 32), cache).stamps) == 5
    assert len(list(cache.iterdir())) == 1


def test_fit_keeps_rays_and_cuts_the_middle() -> None:
    K = np.array([[80.0, 0, 31.5], [0, 80.0, 23.5], [0, 0, 1]])
    depth = np.arange(48 * 64, dtype=np.float32).reshape(48, 64)
    frame = Frame(image=np.zeros((48, 64, 3), np.uint8), stamp=0, index=0, name="x", K=K, depth=depth)
    _, cut, new = fit(frame, (24, 24))
    assert new[0, 0] == pytest.approx(40) and new[1, 1] == pytest.approx(40)
    assert new[0, 2] == pytest.approx(11.5) and new[1, 2] == pytest.approx(11.5)  # the middle stays the middle
    assert cut.shape == (24, 24) and cut[0, 0] in depth[0:2, 8:10]


def test_recordings_are_found_one_and_two_levels_down(tmp_path: Path) -> None:
    for name in ("x", "deep/y"):
        record(tmp_path / name, frames=2)
    assert find_recordings(tmp_path) == [tmp_path / "x", tmp_path / "deep" / "y"]
    assert find_recordings(tmp_path / "x") == [tmp_path / "x"]


def scannet(folder: Path, frames: int = 12) -> Path:
    """A scene as ScanNet's SensReader exports it; tracking is lost at frame 5."""
    from PIL import Image

    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    padded = np.eye(4)
    padded[:3, :3] = intrinsics(SIZE).numpy()
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", padded)
    for t in range(frames):
        Image.fromarray(np.full((*SIZE, 3), 8 * t, np.uint8)).save(folder / "color" / f"{t}.jpg")
        Image.fromarray(np.full(SIZE, 1500, np.uint16)).save(folder / "depth" / f"{t}.png")
        at = pose(EYE, (0.1 * t, 0, 0)).numpy()
        np.savetxt(folder / "pose" / f"{t}.txt", np.full((4, 4), -np.inf) if t == 5 else at)
    return folder


def test_scannet_is_read_in_numeric_order_with_lost_tracking_masked(tmp_path: Path) -> None:
    reader = source(scannet(tmp_path / "scene0000_00"))
    assert reader.report_lines() == ["scene0000_00: 12 frames, 1 without pose"]
    pack = reader._packs[0]
    assert pack.poses[10, 0, 3] == pytest.approx(1.0) and np.isnan(pack.poses[5]).all()
    assert pack.depth[3, 4, 4] == pytest.approx(1.5)
    batch = reader.read(ClipRequest(numbers=[1], frames=4, size=(32, 32)))
    assert batch.K[0, 0, 0] == pytest.approx(0.9 * 64 * 32 / 48, rel=1e-2)


def test_a_pose_that_is_no_rotation_is_named(tmp_path: Path) -> None:
    folder = scannet(tmp_path / "scene0000_00")
    np.savetxt(folder / "pose" / "7.txt", 2 * np.eye(4))
    lines = source(folder).report_lines()
    assert "1 skipped" in lines[0] and "7.txt" in lines[1]


def test_unknown_poses_stay_unknown_when_resized(tmp_path: Path) -> None:
    folder = record(tmp_path / "a")
    (folder / "poses.txt").unlink()
    batch = source(folder, size=(32, 32)).read(ClipRequest(numbers=[0], frames=2, size=(16, 16)))
    assert batch.images.shape[-2:] == (16, 16)
    assert math.isnan(batch.T_world_camera[0, 0, 0, 0])
    assert batch.K[0, 0, 2] == pytest.approx(7.75)  # 43 columns, of which 5 go left and 6 right
