# SPDX-License-Identifier: Apache-2.0
"""Recordings of any kind as sequences: one folder, or a data set folder with one recording per subfolder.

A recording is whatever `omnistream.io.open_source` reads with reference depth or poses: our recording folder (which
`omnistream-sim generate` writes many of), a TUM RGB-D folder, a 7-Scenes folder. A path with wildcards is one sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from omnistream.errors import InputError
from omnistream.io import open_source, recording, tum_folder
from omnistream.io.folder import INTRINSICS, list_images
from omnistream_training.data.numbering import numbering_gaps
from omnistream_training.evaluation.protocols import Protocol
from omnistream_training.evaluation.sequences import Opened, SequenceRef

DEEPEST = 3
"""Levels below the data set folder that are searched."""


def folder_sequences(root: Path, protocol: Protocol) -> list[SequenceRef]:
    """All recordings at or below `root`, by name; those that the protocol names, if it names any."""
    if not root.is_dir():
        if "*" not in root.name and not root.exists():
            raise InputError(f"{root} does not exist; expected a recording, or a folder of recordings")
        return [SequenceRef(root.parent.name, lambda: _open(root))]
    found = {_name(path, root): path for path in sorted(_recordings(root))}
    if not found:
        raise InputError(
            f"no recordings in {root}, {DEEPEST} levels deep; expected {recording.HEADER}, {tum_folder.LIST} or "
            "frame-*.color.* in each recording's folder"
        )
    names = protocol.sequences or tuple(found)
    unknown = [name for name in names if name not in found]
    if unknown:
        raise InputError(f"no recording {unknown[0]!r} in {root}; there are {', '.join(list(found)[:10])}")
    return [SequenceRef(name, lambda path=found[name]: _open(path)) for name in names]  # type: ignore[misc]


def is_recording(folder: Path) -> bool:
    """Whether a folder is one recording in a layout that can hold reference depth and poses."""
    if any((folder / mark).is_file() for mark in (recording.HEADER, tum_folder.LIST, INTRINSICS)):
        return True
    return any(folder.glob("*.color.*")) or any(folder.glob("*_depth.png"))


def _recordings(folder: Path, level: int = 0) -> Iterator[Path]:
    if is_recording(folder):
        yield folder
    elif level < DEEPEST:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.name.startswith("."):
                yield from _recordings(child, level + 1)


def _name(path: Path, root: Path) -> str:
    return root.resolve().name if path == root else str(path.relative_to(root))


def _open(path: Path) -> Opened:
    source = open_source(path)
    images = path / "rgb" if (path / recording.HEADER).is_file() else path
    numbered = path.is_dir() and not (path / tum_folder.LIST).is_file()
    return Opened(source, numbering_gaps(list_images(images)) if numbered else ())
