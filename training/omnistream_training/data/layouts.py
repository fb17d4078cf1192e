# SPDX-License-Identifier: Apache-2.0
"""Published RGB-D data sets as training recordings, read where their authors put the files; nothing is converted.

Sintel        ROOT/training/{final,clean}/alley_2/frame_0001.png   depth/alley_2/*.dpt   camdata_left/alley_2/*.cam
KITTI depth   ROOT/{train,val}/DRIVE/proj_depth/groundtruth/image_02/0000000005.png, and raw pictures by equal name in
              ROOT/2011_09_26/DRIVE/image_02/data, also below ROOT/raw; calib_cam_to_cam.txt beside the drive
BONN          ROOT/rgbd_bonn_balloon2/{rgb,depth}/STAMP.png
TartanAir     ROOT/ENVIRONMENT/Easy/P000/{image_left/000000_left.png, depth_left/000000_left_depth.npy, pose_left.txt}
Virtual KITTI 2   ROOT/Scene01/clone/{frames/rgb/Camera_0/rgb_00000.jpg, frames/depth/Camera_0/depth_00000.png,
              extrinsic.txt, intrinsic.txt}

Poses of KITTI (from GPS) and of BONN (of a marker on the camera, by a map that is not rigid) are not read: unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream.io.files import IMAGE_SUFFIXES, read_depth
from omnistream.io.tables import read_table
from omnistream.io.trajectory import nearest
from omnistream_training.data.shots import Shot, ShotSource
from omnistream_training.data.sintel import read_cam, read_dpt

FAR = 1000.0
"""m: beyond is sky, which TartanAir renders as a distant sphere (10,000 m)."""
TARTANAIR_K = np.array([[320.0, 0, 320.0], [0, 320.0, 240.0], [0, 0, 1]])
NED = np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""A camera with x ahead, y right, z down, from optical axes (x right, y down, z ahead)."""
BONN_K = np.array([[542.822841, 0, 315.593520], [0, 542.576870, 237.756098], [0, 0, 1]])
BONN_D = (0.039903, -0.099343, -0.000730, -0.000144, 0.0)
BONN_APART = 0.02
"""Seconds between a picture and its depth."""


@dataclass(frozen=True)
class Layout:
    """One data set's way of laying out files."""

    name: str
    marks: tuple[str, ...]
    """Patterns below a root that find the sequences: each a folder that `open` takes."""
    open: Callable[[Path], ShotSource]


def layout_sequences(root: Path) -> list[Path]:
    """The sequences of a known data set at or below `root`, in order; none where it is none."""
    if not root.is_dir():
        return []
    if layout_of(root) is not None:
        return [root]
    for layout in LAYOUTS:
        found = {path for mark in layout.marks for path in root.glob(mark) if layout_of(path) is layout}
        if found:
            return sorted(found)
    return []


def layout_of(folder: Path) -> Layout | None:
    """Whose sequence a folder is."""
    if not folder.is_dir():
        return None
    return next((layout for layout, test in _TESTS if test(folder)), None)


def open_layout(folder: Path) -> ShotSource | None:
    """The sequence in a folder, None where it is of no known data set. InputError names the file that is wrong."""
    layout = layout_of(folder)
    return None if layout is None else layout.open(folder)


def _sintel(folder: Path) -> ShotSource:
    training = folder.parent.parent
    images = _pictures(folder)
    shots = [Shot(image, training / "depth" / folder.name / f"{image.stem}.dpt") for image in images]

    def camera(shot: Shot) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return read_cam(training / "camdata_left" / folder.name / f"{shot.image.stem}.cam")

    return ShotSource(f"Sintel {folder.name}", shots, rate=24.0, read_depth=read_dpt, read_camera=camera)


def _kitti(folder: Path) -> ShotSource:
    camera, drive, root = folder.name, folder.parents[2].name, folder.parents[4]
    places = [root / drive[:10] / drive, root / "raw" / drive, root / "raw" / drive[:10] / drive]
    raw = next((place for place in places if place.is_dir()), None)
    if raw is None:
        raise InputError(f"{places[0]} does not exist, nor {places[1]}; expected the raw pictures of that drive")
    shots = [Shot(raw / camera / "data" / depth.name, depth) for depth in _pictures(folder)]
    K = _kitti_intrinsics(raw.parent / "calib_cam_to_cam.txt", camera.removeprefix("image_"))
    return ShotSource(f"KITTI {drive}", shots, rate=10.0, read_depth=lambda path: read_depth(path, 1 / 256), K=K)


def _kitti_intrinsics(path: Path, camera: str) -> NDArray[np.float64] | None:
    """Of the rectified camera; None without the file, which is a download of its own."""
    if not path.is_file():
        return None
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if line.startswith(f"P_rect_{camera}:"):
            try:
                return np.array(line.split()[1:], np.float64).reshape(3, 4)[:, :3].copy()
            except ValueError:
                raise InputError(f"{path}: line {number} is {line[:80]!r}; expected 12 numbers") from None
    raise InputError(f"{path} has no line P_rect_{camera}")


def _bonn(folder: Path) -> ShotSource:
    images, depths = _pictures(folder / "rgb"), _pictures(folder / "depth")
    stamps, others = _stamps(images), _stamps(depths)
    pairs = nearest(stamps, others, BONN_APART)
    shots = [
        Shot(image, depths[pair] if pair >= 0 else None, float(stamp))
        for image, stamp, pair in zip(images, stamps, pairs, strict=True)
    ]
    return ShotSource(
        folder.name, shots, rate=30.0, read_depth=lambda path: read_depth(path, 1 / 5000), K=BONN_K, D=BONN_D
    )


def _stamps(files: Sequence[Path]) -> NDArray[np.float64]:
    for path in files:
        try:
            float(path.stem)
        except ValueError:
            raise InputError(f"{path}: its name is no time; expected seconds, as in 1548266470.1234.png") from None
    return np.array([float(path.stem) for path in files])


def _tartanair(folder: Path) -> ShotSource:
    images = _pictures(folder / "image_left")
    file = folder / "pose_left.txt"
    poses, lines = read_table(file, 7, "tx ty tz qx qy qz qw")
    if len(poses) != len(images):
        raise InputError(f"{file} has {len(poses)} poses, up to line {lines[-1]}, for {len(images)} pictures")
    shots = [
        Shot(
            image,
            folder / "depth_left" / f"{image.stem}_depth.npy",
            T_world_camera=rigid.from_translation_quaternion(pose) @ NED,
        )
        for image, pose in zip(images, poses, strict=True)
    ]
    name = "/".join(folder.parts[-3:])
    return ShotSource(f"TartanAir {name}", shots, rate=10.0, read_depth=_read_npy_depth, K=TARTANAIR_K)


def _read_npy_depth(path: Path) -> NDArray[np.float32]:
    """[H, W] metres, NaN beyond `FAR`. InputError for what is no such array."""
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as an array: {error}") from error
    if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
        raise InputError(f"{path}: holds {depth.dtype} {depth.shape}; expected depth [H, W] in metres")
    near = depth.astype(np.float32)
    near[~(near > 0) | (near > FAR)] = np.nan
    return near


def _virtual_kitti(folder: Path) -> ShotSource:
    variation, camera = folder.parents[2], int(folder.name.removeprefix("Camera_"))
    cameras = {row[0]: rigid.inverse(row[2:].reshape(4, 4)) for row in _table(variation / "extrinsic.txt", 18, camera)}
    lenses = {
        row[0]: np.array([[row[2], 0, row[4]], [0, row[3], row[5]], [0, 0, 1]])
        for row in _table(variation / "intrinsic.txt", 6, camera)
    }
    shots = []
    for image in _pictures(folder):
        number = image.stem.removeprefix("rgb_")
        frame = float(number) if number.isdecimal() else -1.0
        if frame not in cameras or frame not in lenses:
            raise InputError(f"{image}: extrinsic.txt or intrinsic.txt in {variation} has no line for this frame")
        depth = variation / "frames" / "depth" / folder.name / f"depth_{number}.png"
        shots.append(Shot(image, depth, T_world_camera=cameras[frame], K=lenses[frame]))
    name = "/".join([*variation.parts[-2:], folder.name])
    return ShotSource(f"Virtual KITTI 2 {name}", shots, rate=10.0, read_depth=lambda path: read_depth(path, 0.01))


def _table(path: Path, columns: int, camera: int) -> list[NDArray[np.float64]]:
    """Rows of one camera of a text table whose first line names the columns: frame, camera, and numbers."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; Virtual KITTI 2 has it in vkitti_2.0.3_textgt.tar.gz")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()[1:], start=2):
        try:
            row = np.array(line.split(), np.float64)
        except ValueError:
            row = np.empty(0)
        if len(row) != columns or not np.isfinite(row).all():
            raise InputError(f"{path}: line {number} is {line[:80]!r}; expected {columns} numbers")
        if row[1] == camera:
            rows.append(row)
    return rows


def _pictures(folder: Path) -> list[Path]:
    """In plain order; InputError if there are none."""
    found = folder.iterdir() if folder.is_dir() else ()
    pictures = sorted(p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not pictures:
        raise InputError(f"{folder} {'holds no pictures' if folder.is_dir() else 'does not exist'}")
    return pictures


SINTEL = Layout("Sintel", ("training/final/*", "final/*"), _sintel)
KITTI = Layout("KITTI depth", ("*/*/proj_depth/groundtruth/image_0[23]",), _kitti)
BONN = Layout("BONN", ("rgbd_bonn_*", "*/rgbd_bonn_*"), _bonn)
TARTANAIR = Layout("TartanAir", ("P*", "*/P*", "*/*/P*", "*/*/*/P*"), _tartanair)
VIRTUAL_KITTI = Layout("Virtual KITTI 2", ("Scene*/*/frames/rgb/Camera_*", "*/frames/rgb/Camera_*"), _virtual_kitti)
LAYOUTS = (SINTEL, KITTI, BONN, TARTANAIR, VIRTUAL_KITTI)
_TESTS: tuple[tuple[Layout, Callable[[Path], bool]], ...] = (
    (SINTEL, lambda f: f.parent.name in ("final", "clean") and (f.parents[1] / "camdata_left" / f.name).is_dir()),
    (KITTI, lambda f: f.name in ("image_02", "image_03") and f.parts[-3:-1] == ("proj_depth", "groundtruth")),
    (BONN, lambda f: f.name.startswith("rgbd_bonn_") and (f / "rgb").is_dir() and (f / "depth").is_dir()),
    (TARTANAIR, lambda f: (f / "image_left").is_dir() and (f / "pose_left.txt").is_file()),
    (VIRTUAL_KITTI, lambda f: f.name.startswith("Camera_") and f.parts[-3:-1] == ("frames", "rgb")),
)
