# SPDX-License-Identifier: Apache-2.0
"""`open_source`: whatever the user has, as frames."""

from __future__ import annotations

from pathlib import Path

from omnistream.errors import InputError, OptionError
from omnistream.io import recording, tum_folder
from omnistream.io.bag import BagImageSource
from omnistream.io.bag_reader import STORAGE_SUFFIXES, is_bag
from omnistream.io.files import IMAGE_SUFFIXES
from omnistream.io.folder import FolderSource
from omnistream.io.frames import FrameSource, OnError
from omnistream.io.video import VIDEO_SUFFIXES, VideoSource


def open_source(
    path: str | Path,
    *,
    topic: str | None = None,
    rate: float | None = None,
    loop: bool = False,
    pattern: str | None = None,
    depth_scale: float | None = None,
    on_error: OnError = "raise",
) -> FrameSource:
    """Open a recording and find out what it is. Nothing but the standard formats' own readers runs; no pickles.

    Args:
        path: a video; an image; a folder of images (7-Scenes and TUM side files are found); a recording folder of ours;
            a TUM RGB-D folder; a rosbag2 folder or a bare .mcap or .db3 file (or a ROS 1 .bag). A path with wildcards,
            as in "kitchen/frame-*.color.jpg", is a folder and its pattern.
        topic: image topic of a bag. Needed when it has several.
        rate: frames per second; stamps become index / rate, whatever the input says.
        loop: start again at the end, for ever; stamps go on.
        pattern: which files of a folder.
        depth_scale: metres per unit of a folder's depth files, if not the convention of their names.
        on_error: "raise" at the first unreadable frame, or "skip" it and count it in `source.skipped`.

    Raises:
        InputError: nothing there, or nothing readable; as OptionError, an option that does not apply to this input.
    """
    try:
        path = Path(path).expanduser()
    except RuntimeError as error:  # ~somebody, who has no home here
        raise InputError(f"{path} does not exist: {error}") from error
    if not path.exists() and any(mark in str(path) for mark in "*?["):
        if pattern is not None:
            raise OptionError(f"{path} has wildcards and pattern is {pattern!r}; give one of the two")
        path, pattern = _split_wildcards(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a video, an image, a folder of images or a bag")
    source = _open(path, topic, pattern, depth_scale)
    return source.configure(rate=rate, loop=loop, on_error=on_error)


def _open(path: Path, topic: str | None, pattern: str | None, depth_scale: float | None) -> FrameSource:
    if is_bag(path):
        _refuse(path, "a bag", pattern=pattern, depth_scale=depth_scale)
        return BagImageSource(path, topic)
    if path.is_dir() and pattern is None:
        if (path / recording.HEADER).is_file():
            _refuse(path, "a recording folder", topic=topic, depth_scale=depth_scale)
            return recording.RecordingSource(path)
        if (path / tum_folder.LIST).is_file():
            _refuse(path, "a TUM RGB-D folder", topic=topic, depth_scale=depth_scale)
            return tum_folder.TumFolderSource(path)
    if path.is_dir():
        _refuse(path, "a folder of images", topic=topic)
        if pattern is None:
            _point_to_what_is_inside(path)
        return FolderSource(path, pattern, depth_scale)
    _refuse(path, "a file", topic=topic, pattern=pattern)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderSource(path, depth_scale=depth_scale)
    _refuse(path, "a video", depth_scale=depth_scale)
    return VideoSource(path)


def _refuse(path: Path, kind: str, **options: object) -> None:
    """An option without effect is a misunderstanding: say so."""
    for name, value in options.items():
        if value is not None:
            raise OptionError(f"{name} is {value!r}, but {path} is {kind}, where that means nothing")


def _split_wildcards(path: Path) -> tuple[Path, str]:
    """a/b/frame-*.png -> a/b and frame-*.png."""
    parts = path.parts
    first = next(i for i, part in enumerate(parts) if any(mark in part for mark in "*?["))
    return Path(*parts[:first]) if first else Path(), "/".join(parts[first:])


def _point_to_what_is_inside(folder: Path) -> None:
    """A data set's root holds its videos or bags further down: name them instead of finding no images."""
    if any(child.suffix.lower() in IMAGE_SUFFIXES for child in folder.iterdir()):
        return
    wanted = VIDEO_SUFFIXES | STORAGE_SUFFIXES
    inside = sorted(path for path in folder.rglob("*") if path.suffix.lower() in wanted)
    if inside:
        names = ", ".join(str(path.relative_to(folder)) for path in inside[:5]) + (", ..." if len(inside) > 5 else "")
        raise InputError(f"{folder} has no images; give one of the {len(inside)} videos or bags inside it: {names}")
