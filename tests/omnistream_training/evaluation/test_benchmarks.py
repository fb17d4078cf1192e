# SPDX-License-Identifier: Apache-2.0
"""Readers of the published data sets, on samples written here in the formats of their authors; and damage to them."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream_training.data.numbering import numbering_gaps
from omnistream_training.data.sintel import read_cam, read_dpt
from omnistream_training.evaluation import protocols
from omnistream_training.evaluation.benchmarks import benchmark_sequences
from omnistream_training.evaluation.findings import Findings
from omnistream_training.evaluation.predict import read_frames

SIZE = (20, 32)
TAG = struct.pack("<f", 202021.25)


def image(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), value, np.uint8)).save(path)
    return path


def png16(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)


def dpt(path: Path, depth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = depth.shape
    path.write_bytes(TAG + struct.pack("<ii", width, height) + depth.astype("<f4").tobytes())


def cam(path: Path, K: np.ndarray, T_world_camera: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TAG + K.astype("<f8").tobytes() + rigid.inverse(T_world_camera)[:3].astype("<f8").tobytes())


def sintel(root: Path, poses: np.ndarray, K: np.ndarray, name: str = "alley_2") -> Path:
    for i, pose in enumerate(poses, start=1):
        image(root / "training" / "final" / name / f"frame_{i:04d}.png", i)
        dpt(root / "training" / "depth" / name / f"frame_{i:04d}.dpt", np.full(SIZE, 1.0 + i, np.float32))
        cam(root / "training" / "camdata_left" / name / f"frame_{i:04d}.cam", K, pose)
    return root


def frames(root: Path, protocol: protocols.Protocol, name: str, on_error: str = "stop"):
    refs = {ref.name: ref for ref in benchmark_sequences(root, protocol)}
    findings = Findings(name, on_error)  # type: ignore[arg-type]
    return list(read_frames(refs[name], protocol, findings)), [finding.message for finding in findings.list]


def test_sintel(tmp_path, path_of, K):
    poses = path_of(5, 1)
    sintel(tmp_path, poses, K)
    found, _ = frames(tmp_path, protocols.SINTEL_DEPTH, "alley_2")
    assert [int(frame.image[0, 0, 0]) for frame in found] == [1, 2, 3, 4, 5]
    assert [float(frame.depth[3, 3]) for frame in found] == [2, 3, 4, 5, 6]
    assert found[0].depth.shape == SIZE
    found, _ = frames(tmp_path / "training", protocols.SINTEL_POSE, "alley_2")  # its parent or itself
    np.testing.assert_allclose([frame.T_world_camera for frame in found], poses, atol=1e-12)
    assert found[0].depth is None
    read_K, pose = read_cam(tmp_path / "training" / "camdata_left" / "alley_2" / "frame_0002.cam")
    np.testing.assert_array_equal(read_K, K)
    np.testing.assert_allclose(pose, poses[1], atol=1e-12)


def test_sintel_damage_is_named(tmp_path, path_of, K):
    sintel(tmp_path, path_of(6), K)
    folder = tmp_path / "training"
    depth = np.full(SIZE, 2.0, np.float32)
    depth[0, :7] = np.nan
    dpt(folder / "depth" / "alley_2" / "frame_0002.dpt", depth)
    (folder / "depth" / "alley_2" / "frame_0003.dpt").write_bytes(b"1234")
    (folder / "final" / "alley_2" / "frame_0004.png").write_bytes(b"not a png")
    (folder / "final" / "alley_2" / "frame_0005.png").unlink()
    found, messages = frames(tmp_path, protocols.SINTEL_DEPTH, "alley_2", "skip")
    assert [int(frame.image[0, 0, 0]) for frame in found] == [1, 2, 3, 6]  # bad depth does not cost the picture
    assert [frame.depth is not None for frame in found] == [True, False, False, True]
    assert any("frame_0002.dpt: 7 of 640 depths are not finite" in message for message in messages)
    assert any("frame_0003.dpt: does not begin with the tag" in message for message in messages)
    assert any("frame_0004.png: cannot be read as an image" in message for message in messages)
    assert any("1 frame(s) missing between frame_0004.png and frame_0006.png" in message for message in messages)
    assert len(messages) == 4
    with pytest.raises(InputError, match="missing between frame_0004"):
        frames(tmp_path, protocols.SINTEL_DEPTH, "alley_2")
    image(folder / "final" / "alley_2" / "frame_0005.png", 5)
    with pytest.raises(InputError, match=r"frame_0002\.dpt: 7 of 640"):
        frames(tmp_path, protocols.SINTEL_DEPTH, "alley_2")
    with pytest.raises(InputError, match="ambush_4 does not exist"):
        frames(tmp_path, protocols.SINTEL_DEPTH, "ambush_4")


def test_sintel_files_of_wrong_size_or_content(tmp_path, K):
    file = tmp_path / "x.dpt"
    file.write_bytes(TAG + struct.pack("<ii", 10, 10) + b"\0" * 396)
    with pytest.raises(InputError, match="10 x 10 pixels do not fit 396 bytes"):
        read_dpt(file)
    with pytest.raises(InputError, match=r"y\.dpt: cannot be read"):
        read_dpt(tmp_path / "y.dpt")
    file.write_bytes(TAG + b"\0" * 100)
    with pytest.raises(InputError, match="100 bytes behind the tag; expected 168"):
        read_cam(file)
    cam(file, K, np.eye(4))
    file.write_bytes(file.read_bytes()[:-96] + (np.eye(4)[:3] * 2).astype("<f8").tobytes())
    with pytest.raises(InputError, match="not a rigid transform"):
        read_cam(file)


def test_bonn_pairs_by_rank_from_frame_30(tmp_path):
    folder = tmp_path / "rgbd_bonn_balloon2"
    for i in range(145):
        image(folder / "rgb" / f"{1548266470 + i * 0.033:.5f}.png", i)
        if i != 3:  # a depth frame is missing early: later ranks shift by one, as published
            png16(folder / "depth" / f"{1548266470.01 + i * 0.033:.5f}.png", np.full(SIZE, 5000 + 50 * i))
    found, messages = frames(tmp_path, protocols.BONN_DEPTH, "balloon2")
    assert len(found) == 110 and not messages
    assert [int(frame.image[0, 0, 0]) for frame in found] == list(range(30, 140))
    np.testing.assert_allclose([frame.depth[0, 0] for frame in found], 1 + 0.01 * np.arange(31, 141), rtol=1e-6)
    assert found[1].stamp - found[0].stamp == pytest.approx(0.033, abs=1e-4)


@pytest.mark.parametrize("raw", ["2011_09_26", "raw", "raw/2011_09_26"])
def test_kitti_takes_pictures_by_the_name_of_the_annotation(tmp_path, raw):
    drive = "2011_09_26_drive_0002_sync"
    for i in range(130):
        image(tmp_path / raw / drive / "image_02" / "data" / f"{i:010d}.png", i)
    depth = np.zeros(SIZE)
    depth[5, 7] = 256 * 12.5
    for i in range(5, 125):
        png16(tmp_path / "val" / drive / "proj_depth" / "groundtruth" / "image_02" / f"{i:010d}.png", depth)
    found, _ = frames(tmp_path, protocols.KITTI_DEPTH, drive)
    assert [int(frame.image[0, 0, 0]) for frame in found] == list(range(5, 115))
    assert found[0].depth[5, 7] == 12.5 and np.isfinite(found[0].depth).sum() == 1  # 0 means nothing is known
    (tmp_path / raw / drive / "image_02" / "data" / "0000000007.png").unlink()
    found, messages = frames(tmp_path, protocols.KITTI_DEPTH, drive, "skip")
    assert len(found) == 109 and "0000000007.png" in messages[0]


def tum(folder: Path, poses: np.ndarray) -> Path:
    """The pose of picture i comes 3 ms late; between the pictures lie four more poses."""
    lines, listed = ["# timestamp tx ty tz qx qy qz qw"], ["# color images", "# timestamp filename"]
    for i, pose in enumerate(poses):
        stamp = 1311878200.0 + i / 30
        image(folder / "rgb" / f"{stamp:.6f}.png", i)
        listed.append(f"{stamp:.6f} rgb/{stamp:.6f}.png")
        for k in range(5):
            values = rigid.to_translation_quaternion(pose if k == 0 else np.eye(4))
            lines.append(f"{stamp + 0.003 + k / 150:.4f} " + " ".join(f"{value:.6f}" for value in values))
    (folder / "rgb.txt").write_text("\n".join(listed) + "\n")
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_tum_associates_and_takes_every_third(tmp_path, path_of):
    poses, name = path_of(20), "rgbd_dataset_freiburg3_sitting_xyz"
    folder = tum(tmp_path / name, poses)
    found, _ = frames(tmp_path, protocols.TUM_POSE, name)
    assert [int(frame.image[0, 0, 0]) for frame in found] == [0, 3, 6, 9, 12, 15, 18]
    np.testing.assert_allclose([frame.T_world_camera for frame in found], poses[::3], atol=1e-5)
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join([*lines[:6], "1311878200.1 0 0 nan 0 0 0 1", *lines[6:]]))
    with pytest.raises(InputError, match=r"groundtruth\.txt: line 7 is .* expected 8 numbers"):
        frames(tmp_path, protocols.TUM_POSE, name)
    (folder / "groundtruth.txt").write_text("\n".join(lines))
    (folder / "rgb.txt").write_text("1311878200.0 rgb/a.png\nyesterday\n")
    with pytest.raises(InputError, match=r"rgb\.txt: line 2 is 'yesterday'"):
        frames(tmp_path, protocols.TUM_POSE, name)
    (folder / "rgb.txt").unlink()
    with pytest.raises(InputError, match=r"rgb\.txt does not exist; expected a TUM RGB-D sequence"):
        frames(tmp_path, protocols.TUM_POSE, name)


def test_scannet_counts_in_numbers_and_knows_lost_tracking(tmp_path, path_of):
    poses, name = path_of(12), "scene0707_00"
    for i, pose in enumerate(poses):
        (tmp_path / name / "pose").mkdir(parents=True, exist_ok=True)
        image(tmp_path / name / "color" / f"{i}.jpg", 10 * i)
        lost = np.full((4, 4), -np.inf)
        np.savetxt(tmp_path / name / "pose" / f"{i}.txt", lost if i == 6 else pose, fmt="%.6f")
    found, _ = frames(tmp_path, protocols.SCANNET_POSE, name)
    assert [round(int(frame.image[0, 0, 0]) / 10) for frame in found] == [0, 3, 6, 9]
    assert [frame.T_world_camera is None for frame in found] == [False, False, True, False]
    np.testing.assert_allclose(found[1].T_world_camera, poses[3], atol=1e-5)
    (tmp_path / name / "pose" / "3.txt").write_text("1 0 0 0\n0 1 0\n0 0 1 0\n0 0 0 1\n")
    found, messages = frames(tmp_path, protocols.SCANNET_POSE, name, "skip")
    assert len(found) == 3 and "3.txt: line 2 is '0 1 0'; expected 4 numbers" in messages[0]


def test_root_must_exist_and_missing_sequences_show_when_opened(tmp_path):
    with pytest.raises(InputError, match="is not a folder; expected the data set of protocol kitti-depth"):
        benchmark_sequences(tmp_path / "nowhere", protocols.KITTI_DEPTH)
    refs = benchmark_sequences(tmp_path, dataclasses.replace(protocols.BONN_DEPTH, sequences=("crowd2",)))
    assert [ref.name for ref in refs] == ["crowd2"]
    with pytest.raises(InputError, match="rgbd_bonn_crowd2/rgb does not exist"):
        refs[0].open()


def test_numbering_gaps():
    assert numbering_gaps([Path(f"frame-{i:06d}.color.jpg") for i in range(5)]) == ()
    assert len(numbering_gaps([Path(f"{i}.jpg") for i in (1, 2, 5, 9)])) == 2
    assert "2 frame(s) missing between 2.jpg and 5.jpg" in numbering_gaps([Path("2.jpg"), Path("5.jpg")])[0]
    assert numbering_gaps([Path(f"{i}.jpg") for i in range(0, 60, 10)]) == ()
    assert "1 frame(s) missing" in numbering_gaps([Path(f"{i}.jpg") for i in (0, 10, 20, 40, 50, 60)])[0]
    assert numbering_gaps([Path("a.jpg"), Path("b.jpg")]) == () == numbering_gaps([])
