# SPDX-License-Identifier: Apache-2.0
"""Clips as "omnistream recordings": the folder that every tool here reads, and one of which the package ships.

World of a recording is the camera of its first frame; depth is written in millimetres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.io.recording_writer import RecordingWriter

from .furnished_room import furnished_room, walk
from .quality import QUALITIES, Quality
from .rendering import Clip, render

LICENCE = "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class RecordingOptions:
    """The furnished room; the defaults are those of the shipped recording."""

    frames: int = 120
    width: int = 640
    height: int = 480
    rate: float = 30.0
    jpeg_quality: int = 78
    depth_every: int = 1  # a depth picture takes 50 kB at 640x480
    quality: Quality = QUALITIES["fine"]

    def __post_init__(self) -> None:
        for name in ("frames", "width", "height", "depth_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")


def relative_poses(poses: NDArray[np.floating]) -> NDArray[np.float64]:
    """T_first_camera [T, 4, 4] from T_world_camera: the first becomes the identity, exactly."""
    wide = poses.astype(np.float64)
    turn, origin = wide[0, :3, :3], wide[0, :3, 3]
    inverse = np.eye(4)
    inverse[:3, :3], inverse[:3, 3] = turn.T, -turn.T @ origin
    relative = inverse @ wide
    relative[0] = np.eye(4)
    return relative


def write_clip(
    folder: Path, clip: Clip, index: int, *, rate: float, description: str, made_by: str, jpeg_quality: int | None = 95
) -> None:
    """Write clip `index` of a batch as a recording. InputError if the folder holds a recording already."""
    assert clip.rgb is not None
    poses = relative_poses(clip.T_world_camera[index].cpu().numpy())
    depths: Iterable[NDArray[np.float32] | None] = [None] * len(poses)
    if clip.depth is not None:
        depths = clip.depth[index].cpu().numpy()
    writer = RecordingWriter(
        folder,
        rate=rate,
        size=(clip.rgb.shape[2], clip.rgb.shape[3]),
        K=clip.K[index].double().cpu().numpy(),
        D=(0.0,) * 5,
        jpeg_quality=jpeg_quality,
        description=description,
        licence=LICENCE,
        made_by=made_by,
    )
    with writer:
        for image, depth, pose, stamp in zip(clip.rgb[index].cpu().numpy(), depths, poses, clip.stamps, strict=True):
            writer.add(image, stamp=float(stamp), depth=depth, T_world_camera=pose)


def shipped_recording(folder: Path, options: RecordingOptions, progress: Callable[[int, int], None]) -> None:
    """Render a walk through the furnished room, frame by frame. InputError if `folder` holds a recording."""
    scenes = furnished_room(walk(options.frames), rate=options.rate)
    poses = relative_poses(scenes.T_world_camera[0].numpy())
    size = (options.height, options.width)
    still = render(scenes, size, frames=1, want=())
    writer = RecordingWriter(
        folder,
        rate=options.rate,
        size=size,
        K=still.K[0].double().numpy(),
        D=(0.0,) * 5,
        jpeg_quality=options.jpeg_quality,
        description="A furnished room, rendered: a hand-held walk of about 2.8 m around a table with objects",
        licence=LICENCE,
        made_by="omnistream-sim recording",
    )
    with writer:
        for i in range(options.frames):
            want = ("rgb", "depth") if i % options.depth_every == 0 else ("rgb",)
            clip = render(scenes.window(i, 1), size, want=want, quality=options.quality)
            assert clip.rgb is not None
            depth = None if clip.depth is None else clip.depth[0, 0].numpy()
            writer.add(clip.rgb[0, 0].numpy(), stamp=float(clip.stamps[0]), depth=depth, T_world_camera=poses[i])
            progress(i + 1, options.frames)
