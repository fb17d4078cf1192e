# SPDX-License-Identifier: Apache-2.0
"""Worlds as a data set on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from omnistream_sim.dataset import DatasetOptions

from .clips import Worlds, clip_seed
from .config import WorldConfig
from .rendering import Clip


@dataclass(frozen=True, kw_only=True)
class WorldsDataset(DatasetOptions):
    """Clips of random worlds. Threads render them: the native renderer does not hold Python's lock."""

    NAME: ClassVar[str] = "worlds"
    LABELS: ClassVar[tuple[str, ...]] = ("normals", "ids", "scene_flow", "flow")
    worlds: WorldConfig = field(default_factory=WorldConfig)

    def render(self, numbers: list[int]) -> Clip:
        """The clips of these numbers."""
        return Worlds(self.worlds).clips(
            [clip_seed(self.seed, n) for n in numbers],
            frames=self.frames,
            size=self.size,
            rate=self.rate,
            want=("rgb", "depth", "text", *self.labels),
        )
