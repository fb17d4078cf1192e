# SPDX-License-Identifier: Apache-2.0
"""Write a clip as an "omnistream recording": a folder that every tool here reads, and the one that the package ships.

OUT/recording.yaml          format, rate, camera (size, K, D, distortion_model, frame_id), depth_scale, description
OUT/rgb/000000.jpg          pictures
OUT/depth/000000.png        16-bit, value * depth_scale = metres along the optical axis, 0: none; not every frame
OUT/poses.txt               TUM lines: stamp tx ty tz qx qy qz qw, T_world_camera; world = the camera of frame 0
OUT/stamps.txt              one stamp per picture, seconds
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from .furnished_room import furnished_room, walk
from .quality import QUALITIES, Quality
from .render import render
from .scene import Scenes

DEPTH_SCALE = 0.001


@dataclass(frozen=True, kw_only=True)
class RecordingOptions:
    """What is written; the defaults are those of the shipped recording (about 13 MiB)."""

    frames: int = 120
    width: int = 640
    height: int = 480
    rate: float = 30.0
    jpeg_quality: int = 78
    depth_every: int = 1  # 50 kB a picture at 640x480
    quality: Quality = QUALITIES["fine"]


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """x, y, z, w with w >= 0 of a rotation matrix [3, 3] (Shepperd's method: divides by the largest component)."""
    m = rotation
    trace = np.trace(m)
    values = np.array([m[0, 0], m[1, 1], m[2, 2], trace])
    i = int(values.argmax())
    q = np.empty(4)
    if i == 3:
        q[3] = 1 + trace
        q[0], q[1], q[2] = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q[i] = 1 + 2 * m[i, i] - trace
        q[j], q[k], q[3] = m[j, i] + m[i, j], m[k, i] + m[i, k], m[k, j] - m[j, k]
    q /= np.linalg.norm(q)
    return q if q[3] >= 0 else -q


def relative_poses(poses: np.ndarray) -> np.ndarray:
    """T_first_camera [T, 4, 4] float64 from T_world_camera: frame 0 becomes the identity."""
    first = poses[0].astype(np.float64)
    inverse = np.eye(4)
    inverse[:3, :3] = first[:3, :3].T
    inverse[:3, 3] = -first[:3, :3].T @ first[:3, 3]
    relative = inverse @ poses.astype(np.float64)
    relative[0] = np.eye(4)
    return relative


def write_recording(
    scenes: Scenes,
    out: Path,
    options: RecordingOptions,
    *,
    description: str,
    licence: str,
    made_by: str,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Render the first scene of the batch to the folder `out`; frames already there are kept: a stopped run continues.

    Raises:
        ValueError: more frames than the scene has.
        FileExistsError: `out` holds something that is not a recording.
    """
    if options.frames > scenes.frames:
        raise ValueError(f"frames is {options.frames}; the scene has {scenes.frames}")
    if out.exists() and any(out.iterdir()) and not (out / "recording.yaml").exists():
        raise FileExistsError(f"{out} is not empty and has no recording.yaml; choose another folder")
    for folder in ("rgb", "depth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    k = np.eye(3)
    focal = float(scenes.focal[0]) * options.width
    k[0, 0] = k[1, 1] = round(focal, 6)
    k[0, 2] = (options.width - 1) / 2 + float(scenes.centre_shift[0, 0]) * options.width
    k[1, 2] = (options.height - 1) / 2 + float(scenes.centre_shift[0, 1]) * options.width
    about = {
        "format": "omnistream-recording",
        "version": 1,
        "rate": options.rate,
        "camera": {
            "width": options.width,
            "height": options.height,
            "K": [float(v) for v in k.ravel()],
            "D": [0.0, 0.0, 0.0, 0.0, 0.0],
            "distortion_model": "plumb_bob",
            "frame_id": "camera_optical_frame",
        },
        "depth_scale": DEPTH_SCALE,
        "depth_every": options.depth_every,
        "description": description,
        "licence": licence,
        "made_by": made_by,
    }
    (out / "recording.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
    stamps = scenes.stamps[: options.frames].numpy()
    (out / "stamps.txt").write_text("".join(f"{s:.6f}\n" for s in stamps))
    lines = ["# stamp tx ty tz qx qy qz qw (T_world_camera, world = camera of frame 0)\n"]
    for stamp, pose in zip(
        stamps, relative_poses(scenes.T_world_camera[0, : options.frames].double().numpy()), strict=True
    ):
        numbers = (stamp, *pose[:3, 3], *quaternion(pose[:3, :3]))
        lines.append(" ".join(f"{v:.9f}" for v in numbers) + "\n")
    (out / "poses.txt").write_text("".join(lines))
    for i in range(options.frames):
        if not (out / "rgb" / f"{i:06d}.jpg").exists():
            _write_frame(out, i, scenes.window(i, 1), options)
        if progress is not None:
            progress(i + 1, options.frames)


def _write_frame(out: Path, index: int, scenes: Scenes, options: RecordingOptions) -> None:
    """Render and write one frame; the picture last and by rename, so that it stands for a complete frame."""
    with_depth = index % options.depth_every == 0
    want = ("rgb", "depth") if with_depth else ("rgb",)
    clip = render(scenes, (options.height, options.width), want=want, quality=options.quality)
    if with_depth:
        assert clip.depth is not None
        metres = torch.nan_to_num(clip.depth[0, 0], nan=0.0).double().numpy()
        Image.fromarray(np.round(metres / DEPTH_SCALE).astype(np.uint16)).save(
            out / "depth" / f"{index:06d}.png", optimize=True, compress_level=9
        )
    assert clip.rgb is not None
    partial = out / "rgb" / f".{index:06d}.part"
    Image.fromarray(clip.rgb[0, 0].numpy()).save(
        partial, format="JPEG", quality=options.jpeg_quality, optimize=True, progressive=True
    )
    shutil.move(partial, out / "rgb" / f"{index:06d}.jpg")


def shipped_recording(out: Path, options: RecordingOptions, progress: Callable[[int, int], None] | None = None) -> None:
    """The furnished room, walked through by hand."""
    write_recording(
        furnished_room(walk(options.frames), rate=options.rate),
        out,
        options,
        description="A furnished room, rendered: a hand-held walk of about 2.8 m around a table with objects",
        licence="Apache-2.0",
        made_by="omnistream-sim recording",
        progress=progress,
    )
