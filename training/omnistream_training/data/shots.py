# SPDX-License-Identifier: Apache-2.0
"""A sequence of a published data set: files per frame, wherever its authors put them, read when it is their turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.files import read_rgb
from omnistream.io.frames import Frame, FrameSource

Camera = tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]
"""K [3, 3] and T_world_camera [4, 4], None: unknown."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame."""

    image: Path
    depth: Path | None = None
    stamp: float | None = None
    T_world_camera: NDArray[np.float64] | None = None
    K: NDArray[np.float64] | None = None


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
        read_camera: Callable[[Shot], Camera] | None = None,
        K: NDArray[np.float64] | None = None,
        D: tuple[float, ...] = (),
    ) -> None:
        """read_pose, read_camera: for data sets with one pose or camera file per frame; else both are in the shots.

        K, D: of all frames, where a shot has none of its own.
        """
        if not shots:
            raise InputError(f"{name}: no frames")
        super().__init__(description=f"{name}: {len(shots)} frames", rate=rate, length=len(shots))
        self.shots = shots
        self._read_depth, self._read_pose, self._read_camera = read_depth, read_pose, read_camera
        self._K, self._D = K, D

    def _read(self) -> Iterator[Frame]:
        for index, shot in enumerate(self.shots):
            try:
                image = read_rgb(shot.image)
                K, pose = self._camera(shot)
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
                K=K,
                D=self._D,
                distortion_model="plumb_bob" if self._D else "",
                depth=depth,
                T_world_camera=pose,
            )

    def _camera(self, shot: Shot) -> Camera:
        if self._read_camera is not None:
            return self._read_camera(shot)
        pose = shot.T_world_camera if self._read_pose is None else self._read_pose(shot)
        return self._K if shot.K is None else shot.K, pose
