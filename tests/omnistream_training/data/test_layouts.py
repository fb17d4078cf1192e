# SPDX-License-Identifier: Apache-2.0
"""Known data sets, each written as its authors lay it out, read as training recordings."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream_training.data.folder import FolderSource, find_recordings
from omnistream_training.data.layouts import open_layout
from omnistream_training.data.source import ClipRequest

SIZE = (24, 32)
VGA, WIDE = (480, 640), (375, 1242)
"""Where intrinsics are published for a size, pictures have it."""
TAG = struct.pack("<f", 202021.25)


def picture(path: Path, value: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def depth16(path: Path, value: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full(size, value, np.uint16)
    values[0, 0] = 0
    Image.fromarray(values).save(path)


def pose(step: float) -> np.ndarray:
    """T_world_camera: turned a quarter about y, moved along x."""
    return rigid.transform([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]], [step, 0.5, 0])


def sintel(root: Path) -> Path:
    K = np.array([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]])
    for i in range(1, 5):
        for kind in ("final", "clean"):
            picture(root / "training" / kind / "alley_2" / f"frame_{i:04d}.png", 10 * i)
        for name, suffix, data in (
            ("depth", "dpt", struct.pack("<ii", *SIZE[::-1]) + np.full(SIZE, 1.0 + i, "<f4").tobytes()),
            ("camdata_left", "cam", K.astype("<f8").tobytes() + rigid.inverse(pose(i))[:3].astype("<f8").tobytes()),
        ):
            file = root / "training" / name / "alley_2" / f"frame_{i:04d}.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(TAG + data)
    return root


def kitti(root: Path) -> Path:
    drive = "2011_09_26_drive_0002_sync"
    for i in range(8):
        picture(root / "2011_09_26" / drive / "image_02" / "data" / f"{i:010d}.png", 10 * i, WIDE)
    for i in range(2, 6):
        depth16(
            root / "train" / drive / "proj_depth" / "groundtruth" / "image_02" / f"{i:010d}.png", 256 * (1 + i), WIDE
        )
    lens = "721.5377 0.0 609.5593 44.85728 0.0 721.5377 172.854 0.2163791 0.0 0.0 1.0 0.002745884"
    calibration = root / "2011_09_26" / "calib_cam_to_cam.txt"
    calibration.write_text(f"calib_time: 09-Jan-2012 13:57:47\nP_rect_02: {lens}\n")
    return root


def bonn(root: Path) -> Path:
    folder = root / "rgbd_bonn_balloon"
    for i in range(4):
        picture(folder / "rgb" / f"{1548266470 + i / 30:.5f}.png", 10 * i, VGA)
        if i != 1:  # depth lacks a frame: pairs are made by time
            depth16(folder / "depth" / f"{1548266470.004 + i / 30:.5f}.png", 5000 * (1 + i), VGA)
    (folder / "rgb.txt").write_text("# color images\n")  # also a TUM folder, whose poses are another thing's
    return root


def tartanair(root: Path) -> Path:
    folder = root / "abandonedfactory" / "Easy" / "P001"
    lines = []
    for i in range(4):
        picture(folder / "image_left" / f"{i:06d}_left.png", 10 * i, VGA)
        depth = np.full(VGA, 1.0 + i, np.float32)
        depth[0, 0] = 10_000  # sky
        (folder / "depth_left").mkdir(exist_ok=True)
        np.save(folder / "depth_left" / f"{i:06d}_left_depth.npy", depth)
        lines.append(f"{i} 0.5 0.25 0 0 0 1")  # ahead, right, down
    (folder / "pose_left.txt").write_text("\n".join(lines) + "\n")
    return root


def virtual_kitti(root: Path) -> Path:
    folder = root / "Scene01" / "clone"
    outer = ["frame cameraID r1,1 r1,2 r1,3 t1 r2,1 r2,2 r2,3 t2 r3,1 r3,2 r3,3 t3 0 0 0 1"]
    inner = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
    for i in range(4):
        for camera in (0, 1):
            picture(folder / "frames" / "rgb" / f"Camera_{camera}" / f"rgb_{i:05d}.jpg", 10 * i, WIDE)
            depth16(folder / "frames" / "depth" / f"Camera_{camera}" / f"depth_{i:05d}.png", 100 * (1 + i), WIDE)
            numbers = rigid.inverse(pose(i + camera)).ravel()
            outer.append(f"{i} {camera} " + " ".join(f"{n:.6f}" for n in numbers))
            inner.append(f"{i} {camera} 725.0087 725.0087 620.5 187")
    (folder / "extrinsic.txt").write_text("\n".join(outer) + "\n")
    (folder / "intrinsic.txt").write_text("\n".join(inner) + "\n")
    return root


def test_sintel(tmp_path: Path) -> None:
    found = find_recordings(sintel(tmp_path))
    assert [path.relative_to(tmp_path) for path in found] == [Path("training/final/alley_2")]
    frames = list(open_layout(found[0]))  # type: ignore[arg-type]
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [10, 20, 30, 40]
    assert [float(frame.depth[3, 3]) for frame in frames] == [2, 3, 4, 5]  # type: ignore[index]
    np.testing.assert_allclose(frames[1].T_world_camera, pose(2), atol=1e-12)  # type: ignore[arg-type]
    assert frames[0].K is not None and frames[0].K[0, 0] == 40


def test_kitti_takes_pictures_by_the_annotations_names(tmp_path: Path) -> None:
    (path,) = find_recordings(kitti(tmp_path))
    frames = list(open_layout(path))  # type: ignore[arg-type]
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [20, 30, 40, 50]
    assert float(frames[0].depth[3, 3]) == 3 and np.isnan(frames[0].depth[0, 0])  # type: ignore[index]
    assert frames[0].K is not None and frames[0].K[0, 2] == 609.5593 and frames[0].T_world_camera is None
    calibration = tmp_path / "2011_09_26" / "calib_cam_to_cam.txt"
    calibration.write_text("P_rect_02: 1 2 3\n")
    with pytest.raises(InputError, match=r"calib_cam_to_cam\.txt: line 1 is .* expected 12 numbers"):
        open_layout(path)
    calibration.unlink()
    assert next(iter(open_layout(path))).K is None  # type: ignore[arg-type]


def test_bonn_pairs_by_time_and_leaves_poses_unknown(tmp_path: Path) -> None:
    (path,) = find_recordings(bonn(tmp_path))
    frames = list(open_layout(path))  # type: ignore[arg-type]
    known = [None if frame.depth is None else float(frame.depth[3, 3]) for frame in frames]
    assert known == [1, None, 3, 4]
    assert all(frame.T_world_camera is None for frame in frames)
    assert frames[0].K is not None and len(frames[0].D) == 5


def test_tartanair_axes_and_sky(tmp_path: Path) -> None:
    (path,) = find_recordings(tartanair(tmp_path))
    frames = list(open_layout(path))  # type: ignore[arg-type]
    camera = frames[3].T_world_camera
    assert camera is not None
    np.testing.assert_allclose(camera[:3, 3], [3, 0.5, 0.25])
    np.testing.assert_allclose(camera[:3, :3] @ [0, 0, 1], [1, 0, 0])  # the optical axis points ahead
    np.testing.assert_allclose(camera[:3, :3] @ [1, 0, 0], [0, 1, 0])  # a picture's right is the right
    assert np.isnan(frames[0].depth[0, 0]) and frames[0].depth[1, 1] == 1  # type: ignore[index]
    (path / "pose_left.txt").write_text("0 0 0 0 0 0 1\n")
    with pytest.raises(InputError, match="1 poses, up to line 1, for 4 pictures"):
        open_layout(path)


def test_virtual_kitti_has_two_cameras(tmp_path: Path) -> None:
    one, two = find_recordings(virtual_kitti(tmp_path))
    frames = list(open_layout(two))  # type: ignore[arg-type]
    np.testing.assert_allclose(frames[2].T_world_camera, pose(3), atol=1e-5)  # type: ignore[arg-type]
    assert frames[2].depth is not None and frames[2].depth[3, 3] == 3 and frames[2].K is not None
    variation = tmp_path / "Scene01" / "clone"
    lines = (variation / "extrinsic.txt").read_text().splitlines()
    (variation / "extrinsic.txt").write_text("\n".join([*lines[:3], "2 0 nonsense", *lines[4:]]))
    with pytest.raises(InputError, match=r"extrinsic\.txt: line 4 is '2 0 nonsense'; expected 18 numbers"):
        open_layout(one)
    (variation / "extrinsic.txt").write_text("\n".join(lines[:-2]))
    with pytest.raises(InputError, match=r"rgb_00003\.jpg: extrinsic\.txt or intrinsic\.txt .* no line"):
        open_layout(one)


@pytest.mark.parametrize("write", [sintel, kitti, bonn, tartanair, virtual_kitti])
def test_clips_of_each(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the cache of decoded recordings, with a damaged picture that is named and left out."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write(tmp_path / "data")
    source = FolderSource([str(root)], (24, 32), 30.0)
    batch = source.read(ClipRequest(numbers=range(3), frames=2, size=(24, 32)))
    assert batch.images.shape == (3, 2, 3, 24, 32) and bool(batch.depth.isfinite().any())
    broken = open_layout(find_recordings(root)[0]).shots[1].image  # type: ignore[union-attr]
    broken.write_bytes(b"no picture")
    again = FolderSource([str(root)], (24, 32), 30.0)
    assert any(broken.name in line for line in again.report_lines())
