# SPDX-License-Identifier: Apache-2.0
"""Recordings decoded once, at training size, into memory-mapped arrays: random access without decoding a frame twice.

A pack is a directory of the cache: rgb.npy [N, H, W, 3] uint8, depth.npy [N, H, W] float16 metres (NaN: unknown),
poses.npy [N, 4, 4], K.npy [N, 3, 3], stamps.npy [N], and report.json: what was read, and what was not and why.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.geometry.pinhole import scale_intrinsics
from omnistream.io.bag_reader import is_bag
from omnistream.io.folder import list_images
from omnistream.io.frames import DEFAULT_RATE, Frame, FrameSource
from omnistream.io.recording import HEADER
from omnistream.io.source import open_source
from omnistream.io.tum_folder import LIST
from omnistream_training.data.appearing import appearing
from omnistream_training.data.bag_rgbd import RgbdBagSource
from omnistream_training.data.bag_topics import BagTopics
from omnistream_training.data.layouts import open_layout
from omnistream_training.data.numbering import numbering_gaps
from omnistream_training.data.rgbd_folder import RgbdFolderSource, is_rgbd_folder, rgbd_pictures
from omnistream_training.data.shots import ShotSource

VERSION = 2
MAX_GAP_PERIODS = 3.0
"""A pause longer than so many periods ends a segment: no clip goes over it."""


@dataclass
class PackReport:
    """What became of a recording. Counts are frames."""

    name: str
    frames: int = 0
    skipped: int = 0
    missing: int = 0
    """Holes in the numbers of the pictures' names."""
    without_depth: int = 0
    empty_depth: int = 0
    """Depth picture present, and nothing valid in it."""
    without_pose: int = 0
    without_intrinsics: int = 0
    distorted: int = 0
    """Lens distortion given; it is ignored."""
    reasons: list[str] = field(default_factory=list)
    """Of skipped and missing frames and empty depth, each with its file."""

    def line(self) -> str:
        """One line, faults only if there are any."""
        faults = {
            "skipped": self.skipped,
            "missing": self.missing,
            "without depth": self.without_depth,
            "with empty depth": self.empty_depth,
            "without pose": self.without_pose,
            "without intrinsics": self.without_intrinsics,
            "with lens distortion, which is ignored": self.distorted,
        }
        words = [f"{self.frames} frames", *(f"{count} {what}" for what, count in faults.items() if count)]
        return f"{self.name}: " + ", ".join(words)


@dataclass(frozen=True)
class Pack:
    """An opened pack; arrays are memory maps."""

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float16]
    poses: NDArray[np.float32]
    K: NDArray[np.float32]
    stamps: NDArray[np.float64]
    rate: float
    segments: tuple[tuple[int, int], ...]
    """[start, stop) of frames without a pause."""
    report: PackReport
    digest: str
    """Of the names and sizes of the recording's files."""


def open_pack(
    recording: Path,
    size: tuple[int, int],
    cache: Path,
    on_error: Literal["raise", "skip"] = "skip",
    topics: BagTopics | None = None,
) -> Pack:
    """The pack of a recording at `size` (H, W), made now if the cache does not have it.

    Raises InputError, naming file and reason, if the recording cannot be opened, or, with `on_error="raise"`, at its
    first damaged frame.
    """
    if not recording.exists():
        raise InputError(f"{recording} does not exist; expected a recording")
    known = open_layout(recording)
    files = _files(recording, known)
    folder = cache / _key(recording, files, size, f"{on_error} {topics}")
    if not (folder / "report.json").exists():
        source = (known or _open(recording, topics)).configure(rate=None, loop=False, on_error=on_error)
        pictures = _numbered_pictures(recording) if known is None else [shot.image for shot in known.shots]
        _pack(source, recording, pictures, size, folder)
    meta = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("rgb", "depth", "poses", "K", "stamps")}
    stamps = np.array(arrays["stamps"])
    return Pack(
        **arrays | {"stamps": stamps},
        rate=meta["rate"],
        segments=_segments(stamps, meta["rate"]),
        report=PackReport(**meta["report"]),
        digest=hashlib.sha256("\n".join(f"{p.name} {p.stat().st_size}" for p in files).encode()).hexdigest(),
    )


def _open(recording: Path, topics: BagTopics | None) -> FrameSource:
    """With labels where `omnistream.io`, which is for running, reads pictures alone."""
    if recording.is_dir() and is_rgbd_folder(recording):
        return RgbdFolderSource(recording)
    return RgbdBagSource(recording, topics) if is_bag(recording) else open_source(recording)


def _pack(source: FrameSource, recording: Path, pictures: Sequence[Path], size: tuple[int, int], folder: Path) -> None:
    """pictures: those whose names are numbered, if they are."""
    report = PackReport(name=recording.name)
    gaps = numbering_gaps(pictures)
    if gaps and source.on_error == "raise":
        raise InputError(gaps[0])
    rows: dict[str, list[NDArray[np.generic]]] = {name: [] for name in ("rgb", "depth", "poses", "K", "stamps")}
    blank: list[str] = []
    for frame in source:
        rgb, depth, K = fit(frame, size)
        rows["rgb"].append(rgb)
        rows["depth"].append(depth.astype(np.float16))
        pose = np.full((4, 4), np.nan) if frame.T_world_camera is None else frame.T_world_camera
        rows["poses"].append(pose.astype(np.float32))
        rows["K"].append(K.astype(np.float32))
        rows["stamps"].append(np.float64(frame.stamp))  # type: ignore[arg-type]
        report.frames += 1
        report.without_depth += frame.depth is None
        if frame.depth is not None and not np.isfinite(depth).any():
            empty = f"{recording}: {frame.name}: its depth has no finite value"
            if source.on_error == "raise":
                raise InputError(empty)
            report.empty_depth += 1
            blank.append(empty)
        report.without_pose += not np.isfinite(pose).all()
        report.without_intrinsics += not np.isfinite(K).all()
        report.distorted += any(abs(d) > 1e-6 for d in frame.D)
    report.skipped, report.missing = source.skipped, len(gaps)
    report.reasons = [*source.skip_reasons, *gaps[: source.MAX_REASONS], *blank[: source.MAX_REASONS]]
    if not report.frames:
        why = "; ".join(report.reasons[:3]) or "it is empty"
        raise InputError(f"{recording} has no readable frame: {why}")
    meta = {"rate": source.rate or DEFAULT_RATE, "recording": str(recording), "report": asdict(report)}
    with appearing(folder) as partial:
        for name, values in rows.items():
            np.save(partial / f"{name}.npy", np.stack(values))
        (partial / "report.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _numbered_pictures(recording: Path) -> list[Path]:
    """Of a recording whose frames have their place by their names' numbers; others have stamps, whose gaps show."""
    if not recording.is_dir() or is_bag(recording) or (recording / LIST).is_file():
        return []
    if (recording / HEADER).is_file():
        return list_images(recording / "rgb")
    return rgbd_pictures(recording) if is_rgbd_folder(recording) else list_images(recording)


def fit(frame: Frame, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float64]]:
    """A frame at `size` (H, W): scaled to cover it, the middle cut out. Depth is sampled, never blended over an edge.

    Returns RGB, depth (NaN: unknown) and K (NaN: unknown). Raises InputError for intrinsics that no camera has.
    """
    height, width = frame.image.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    scaled = (max(size[0], round(height * scale)), max(size[1], round(width * scale)))
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    pixels = torch.from_numpy(np.array(frame.image)).permute(2, 0, 1)[None]
    image = F.interpolate(pixels, size=scaled, mode="bilinear", antialias=True, align_corners=False)[0]
    image = image[:, top : top + size[0], left : left + size[1]].permute(1, 2, 0).contiguous()
    K = np.full((3, 3), np.nan)
    if frame.K is not None:
        _check_intrinsics(frame, width, height)
        K = scale_intrinsics(frame.K, (height, width), scaled)
        K[:2, 2] -= (left, top)
    depth = np.full(size, np.nan, np.float32)
    if frame.depth is not None:
        rows = ((np.arange(size[0]) + top + 0.5) * frame.depth.shape[0] / scaled[0]).astype(int)
        columns = ((np.arange(size[1]) + left + 0.5) * frame.depth.shape[1] / scaled[1]).astype(int)
        depth = frame.depth[rows[:, None], columns]
    return image.numpy(), depth, K


def _check_intrinsics(frame: Frame, width: int, height: int) -> None:
    assert frame.K is not None
    fx, fy, cx, cy = frame.K[0, 0], frame.K[1, 1], frame.K[0, 2], frame.K[1, 2]
    if not (fx > 0 and fy > 0 and 0 <= cx < width and 0 <= cy < height):
        raise InputError(
            f"{frame.name}: intrinsics fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g}; expected positive focal lengths and "
            f"a principal point inside the {width} x {height} picture"
        )


def _segments(stamps: NDArray[np.float64], rate: float) -> tuple[tuple[int, int], ...]:
    steps = np.diff(stamps)
    breaks = np.flatnonzero((steps <= 0) | (steps > MAX_GAP_PERIODS / rate)) + 1
    edges = [0, *breaks.tolist(), len(stamps)]
    return tuple((a, b) for a, b in itertools.pairwise(edges) if b > a)


def _files(recording: Path, known: ShotSource | None) -> list[Path]:
    """Those that a recording is made of."""
    if known is not None:
        return [path for shot in known.shots for path in (shot.image, shot.depth) if path is not None and path.exists()]
    return sorted(p for p in recording.rglob("*") if p.is_file()) if recording.is_dir() else [recording]


def _key(recording: Path, files: Sequence[Path], size: tuple[int, int], options: str) -> str:
    """Name of the pack: changes when a file of the recording does."""
    digest = hashlib.sha256(f"{VERSION} {recording.resolve()} {size} {options}".encode())
    for path in files:
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return f"{recording.name[:40]}-{digest.hexdigest()[:16]}"
