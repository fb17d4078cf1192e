# SPDX-License-Identifier: Apache-2.0
"""What every source of episodes looks like, whatever format it is stored in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Contract
from omnistream.errors import InputError

U8 = NDArray[np.uint8]


FrameReader = Callable[[str, int, int], Iterator[U8]]
"""read(camera, start, stop): pictures [start, stop) of one camera of one episode, in order."""


@dataclass(frozen=True)
class EpisodeInfo:
    """An episode's line in the table of contents; known without reading the episode."""

    index: int
    """Position in the data set, from 0."""
    length: int
    """Control periods."""
    instruction: str
    """Empty where the data has none."""
    success: bool | None = None
    """None: not recorded."""
    source: str = ""
    """Where it came from: a bag and the seconds in it, the number in a foreign set, ..."""
    number: int | None = None
    """In the files of the data set, where episodes before it were lost; None: as `index`."""


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode. Row t of `action` is what was commanded after seeing row t of `state` and picture t."""

    info: EpisodeInfo
    state: NDArray[np.float32]
    """[T, S]; S may be 0."""
    action: NDArray[np.float32]
    """[T, A]."""
    stamps: NDArray[np.float64]
    """[T] s, increasing."""
    cameras: tuple[str, ...]
    read: FrameReader

    def __post_init__(self) -> None:
        n = self.info.length
        if self.state.ndim != 2 or self.action.ndim != 2 or not len(self.state) == len(self.action) == n:
            shapes = f"state {list(self.state.shape)}, action {list(self.action.shape)}"
            raise InputError(f"episode {self.info.index}: {shapes}; expected {n} rows of each")
        if self.stamps.shape != (n,) or not np.isfinite(self.stamps).all() or not (np.diff(self.stamps) > 0).all():
            raise InputError(f"episode {self.info.index}: stamps are not {n} increasing finite numbers")

    def __len__(self) -> int:
        return self.info.length

    @property
    def instruction(self) -> str:
        """What the robot was told."""
        return self.info.instruction

    @property
    def success(self) -> bool | None:
        """Whether it was done; None: not recorded."""
        return self.info.success

    def frames(self, camera: str, start: int = 0, stop: int | None = None) -> Iterator[U8]:
        """Pictures [start, stop) of a camera in order, u8 [H, W, 3] RGB; read in order they cost one decoding each.

        InputError for a camera that is not there, a range outside the episode, or a picture that cannot be decoded.
        """
        stop = len(self) if stop is None else stop
        if camera not in self.cameras:
            raise InputError(f"episode {self.info.index} has no camera {camera!r}; there are {list(self.cameras)}")
        if not 0 <= start <= stop <= len(self):
            raise InputError(f"episode {self.info.index}: frames {start} to {stop} asked for; it has {len(self)}")
        return self.read(camera, start, stop)

    def frame(self, camera: str, t: int) -> U8:
        """Picture t alone; for many in a row `frames` is faster."""
        for image in self.frames(camera, t, t + 1):
            return image
        raise InputError(f"episode {self.info.index}: picture {t} of {camera!r} is missing")


class EpisodeDataset(ABC):
    """A sequence of episodes and their contract. Iterating reads one episode at a time."""

    path: str
    contract: Contract
    description: str
    """One line for people: format, numbers, cameras."""
    infos: Sequence[EpisodeInfo]
    lost: tuple[str, ...] = ()
    """What could not be read when the set was opened, one sentence each."""

    def __len__(self) -> int:
        return len(self.infos)

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < len(self):
            raise IndexError(f"episode {index}; {self.path} has {len(self)}")
        return self.read_episode(self.infos[index])

    def __iter__(self) -> Iterator[Episode]:
        return (self.read_episode(info) for info in self.infos)

    @property
    def frames(self) -> int:
        """Control periods of all episodes together."""
        return sum(info.length for info in self.infos)

    @abstractmethod
    def read_episode(self, info: EpisodeInfo) -> Episode:
        """Read one of `infos`: states and actions now, pictures when they are asked for. InputError names the file."""
