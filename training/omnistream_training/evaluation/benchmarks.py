# SPDX-License-Identifier: Apache-2.0
"""The published data sets, as their authors lay them out on disk. Nothing has to be converted or copied first.

sintel   ROOT/training/final/alley_2/frame_0001.png   ROOT/training/depth/alley_2/frame_0001.dpt
         ROOT/training/camdata_left/alley_2/frame_0001.cam
bonn     ROOT/rgbd_bonn_balloon2/rgb/*.png   ROOT/rgbd_bonn_balloon2/depth/*.png
kitti    ROOT/val/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000005.png   (annotated)
         ROOT/2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000005.png     (raw; also in ROOT/raw)
tum      ROOT/rgbd_dataset_freiburg3_sitting_xyz/{rgb.txt, groundtruth.txt, rgb/*.png}
scannet  ROOT/scene0707_00/{color/0.jpg, pose/0.txt}   (as the data set's SensReader exports them)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.files import natural_key, read_depth, read_pose
from omnistream.io.trajectory import read_tum
from omnistream.io.tum_folder import read_list
from omnistream_training.data.numbering import numbering_gaps
from omnistream_training.data.shots import Shot, ShotSource
from omnistream_training.data.sintel import read_cam, read_dpt
from omnistream_training.evaluation.protocols import Protocol
from omnistream_training.evaluation.sequences import Opened, SequenceRef


def benchmark_sequences(root: Path, protocol: Protocol) -> list[SequenceRef]:
    """The protocol's sequences below `root`, in its order. That one is missing shows when it is opened."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; expected the data set of protocol {protocol.name}")
    open_one = {"sintel": _sintel, "bonn": _bonn, "kitti": _kitti, "tum": _tum, "scannet": _scannet}[protocol.layout]

    def opener(name: str) -> Callable[[], Opened]:
        return lambda: open_one(root, name, protocol)

    return [SequenceRef(name, opener(name)) for name in protocol.sequences or ()]


def _sintel(root: Path, name: str, protocol: Protocol) -> Opened:
    training = root / "training" if (root / "training").is_dir() else root
    images = _files(training / "final" / name, "*.png")
    gaps = numbering_gaps(images)
    shots = []
    for index in protocol.select(len(images)):
        image = images[index]
        depth = training / "depth" / name / f"{image.stem}.dpt"
        shots.append(Shot(image, depth if protocol.depth else None))

    def pose(shot: Shot) -> NDArray[np.float64]:
        return read_cam(training / "camdata_left" / name / f"{shot.image.stem}.cam")[1]

    return Opened(ShotSource(name, shots, read_depth=read_dpt, read_pose=pose if protocol.pose else None), gaps)


def _bonn(root: Path, name: str, protocol: Protocol) -> Opened:
    folder = root / f"rgbd_bonn_{name}"
    images, depths = _files(folder / "rgb", "*.png"), _files(folder / "depth", "*.png")
    # Paired by rank, as published, although each file name is a time stamp.
    chosen = protocol.select(min(len(images), len(depths)))
    shots = [Shot(images[index], depths[index], _stamp(images[index])) for index in chosen]
    return Opened(ShotSource(name, shots, read_depth=lambda path: read_depth(path, 1 / 5000)))


def _kitti(root: Path, name: str, protocol: Protocol) -> Opened:
    annotated = _files(root / "val" / name / "proj_depth" / "groundtruth" / "image_02", "*.png")
    places = [root / name[:10] / name, root / "raw" / name, root / "raw" / name[:10] / name]
    raw = next((place for place in places if place.is_dir()), None)
    if raw is None:
        raise InputError(f"{places[0]} does not exist, nor {places[1]}; expected the raw pictures of that drive")
    chosen = [annotated[index] for index in protocol.select(len(annotated))]
    shots = [Shot(raw / "image_02" / "data" / depth.name, depth) for depth in chosen]
    return Opened(ShotSource(name, shots, rate=10.0, read_depth=lambda path: read_depth(path, 1 / 256)))


def _tum(root: Path, name: str, protocol: Protocol) -> Opened:
    from omnistream_training.evaluation.trajectory_metrics import associate

    folder = root / name
    for required in ("rgb.txt", "groundtruth.txt"):
        if not (folder / required).is_file():
            raise InputError(f"{folder / required} does not exist; expected a TUM RGB-D sequence")
    stamps, images = read_list(folder / "rgb.txt")
    times, poses = read_tum(folder / "groundtruth.txt")
    limit = protocol.pose.max_time_difference if protocol.pose else None
    pairs = associate(stamps, times, 0.02 if limit is None else limit)
    shots = [
        Shot(folder / images[image], stamp=float(stamps[image]), T_world_camera=poses[pose])
        for image, pose in pairs[list(protocol.select(len(pairs)))]
    ]
    return Opened(ShotSource(name, shots))


def _scannet(root: Path, name: str, protocol: Protocol) -> Opened:
    images = sorted(_files(root / name / "color", "*.jpg"), key=natural_key)
    gaps = numbering_gaps(images)
    shots = [Shot(images[index]) for index in protocol.select(len(images))]

    def pose(shot: Shot) -> NDArray[np.float64] | None:
        return read_pose(root / name / "pose" / f"{shot.image.stem}.txt")

    return Opened(ShotSource(name, shots, read_pose=pose), gaps)


def _files(folder: Path, pattern: str) -> Sequence[Path]:
    """Files in plain order; InputError if there are none."""
    found = sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
    if not found:
        raise InputError(f"{folder} {'holds no ' + pattern if folder.is_dir() else 'does not exist'}")
    return found


def _stamp(path: Path) -> float | None:
    try:
        return float(path.stem)
    except ValueError:
        return None
