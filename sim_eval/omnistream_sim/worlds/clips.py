# SPDX-License-Identifier: Apache-2.0
"""Worlds as an endless source of clips: for a training loop, and under the name `worlds` for any program that looks up
the entry points of the group `omnistream.clips`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .config import WorldConfig
from .rendering import Clip, render
from .sample import sample_scenes

RGBD = ("rgb", "depth")


class Worlds:
    """Renders the clip of any seed."""

    def __init__(self, config: WorldConfig | None = None) -> None:
        self.config = config or WorldConfig()

    def clips(
        self,
        seeds: Sequence[int],
        *,
        frames: int,
        size: tuple[int, int],
        rate: float,
        device: str = "cpu",
        want: Iterable[str] = RGBD,
    ) -> Clip:
        """A clip of `frames` pictures of `size` (height, width), taken at `rate` Hz, for every seed (0 .. 2^63 - 1).

        The same arguments give the same clips, whatever else was rendered before.

        Raises:
            ValueError: an argument out of its range.
        """
        scenes = sample_scenes(self.config, seeds, frames=frames, rate=rate, device=device)
        return render(scenes, size, want=want, quality=self.config.quality)


class WorldStream:
    """Iterates over clips that have never been seen before: clip n of stream `seed` is the same in every run."""

    def __init__(
        self,
        config: WorldConfig | None = None,
        seed: int = 0,
        *,
        batch: int = 16,
        frames: int = 8,
        size: tuple[int, int] = (128, 128),
        rate: float = 10.0,
        device: str = "cpu",
        want: Iterable[str] = RGBD,
        start: int = 0,
    ) -> None:
        """start: number of the first clip, to go on where an earlier stream stopped."""
        self.position = start
        self._worlds = Worlds(config)
        self._seed = seed
        self._batch = batch
        self._arguments = {"frames": frames, "size": size, "rate": rate, "device": device, "want": tuple(want)}

    def __iter__(self) -> Iterator[Clip]:
        return self

    def __next__(self) -> Clip:
        numbers = range(self.position, self.position + self._batch)
        clip = self._worlds.clips([clip_seed(self._seed, n) for n in numbers], **self._arguments)  # type: ignore[arg-type]
        self.position += self._batch
        return clip


def clip_seed(seed: int, number: int) -> int:
    """Seed of clip `number` of a stream or data set: streams with different seeds share no clip (of the first 2^32).

    Raises:
        ValueError: a number or seed that does not fit.
    """
    if not 0 <= seed < 1 << 31 or not 0 <= number < 1 << 32:
        raise ValueError(f"seed {seed}, number {number}; expected 0 .. 2^31 - 1 and 0 .. 2^32 - 1")
    return (seed << 32) | number


def open_clips(**options: object) -> Worlds:
    """What the entry point `worlds` names. options: fields of `WorldConfig`, as values or as text.

    Raises:
        ValueError: an unknown field or a bad value.
    """
    return Worlds(WorldConfig.from_options(options))
