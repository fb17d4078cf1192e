# SPDX-License-Identifier: Apache-2.0
"""A sequence to evaluate: a name, and a `FrameSource` to read it from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.files import read_rgb
from omnistream.io.frames import Frame, FrameSource


@dataclass(frozen=True)
class Opened:
    """A source, and what was seen to be missing when it was opened."""

    source: FrameSource
    missing: tuple[str, ...] = ()
    """Messages, one per hole in the numbering of the frames."""


@dataclass(frozen=True)
class SequenceRef:
    """Opens when it is its turn: one damaged sequence does not keep the others from being evaluated."""

    name: str
    open: Callable[[], Opened]
    """Raises InputError naming the file (and line) that is wrong."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame of a benchmark: files that are read when it is their turn."""

    image: Path
    depth: Path | None = None
    stamp: float | None = None
    T_world_camera: NDArray[np.float64] | None = None


class ShotSource(FrameSource):
    """Frames from shots. An unreadable picture costs the frame; unreadable depth only costs its depth."""

    def __init__(
        self,
        name: str,
        shots: Sequence[Shot],
        *,
        rate: float = 30.0,
        read_depth: Callable[[Path], NDArray[np.float32]] | None = None,
        read_pose: Callable[[Shot], NDArray[np.float64] | None] | None = None,
        K: NDArray[np.float64] | None = None,
    ) -> None:
        """read_pose: for data sets with one pose file per frame; else poses are in the shots."""
        if not shots:
            raise InputError(f"{name}: no frames")
        super().__init__(description=f"{name}: {len(shots)} frames", rate=rate, length=len(shots))
        self._shots, self._read_depth, self._read_pose, self._K = shots, read_depth, read_pose, K

    def _read(self) -> Iterator[Frame]:
        for index, shot in enumerate(self._shots):
            try:
                image = read_rgb(shot.image)
                pose = shot.T_world_camera if self._read_pose is None else self._read_pose(shot)
            except InputError as error:
                self._unreadable(error)
                continue
            depth = None
            if shot.depth is not None and self._read_depth is not None:
                try:
                    depth = self._read_depth(shot.depth)
                except InputError as error:
                    self._unreadable(error)
            yield Frame(
                image=image,
                stamp=index / (self.rate or 30.0) if shot.stamp is None else shot.stamp,
                index=index,
                name=str(shot.image),
                K=self._K,
                depth=depth,
                T_world_camera=pose,
            )
