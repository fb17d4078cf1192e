# SPDX-License-Identifier: Apache-2.0
"""Tabletop clips as a data set on disk."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import ClassVar

from omnistream_sim.dataset import DatasetOptions
from omnistream_sim.worlds.clips import clip_seed
from omnistream_sim.worlds.rendering import Clip

from .clips import Tabletop
from .config import TabletopConfig


@dataclass(frozen=True, kw_only=True)
class TabletopDataset(DatasetOptions):
    """Clips of a camera that flies about the tabletop. Processes render them: PyBullet holds Python's lock."""

    NAME: ClassVar[str] = "tabletop"
    BATCH: ClassVar[int] = 1
    PROCESSES: ClassVar[bool] = True
    tabletop: TabletopConfig = field(default_factory=TabletopConfig)

    def render(self, numbers: list[int]) -> Clip:
        """The clips of these numbers."""
        return _renderer(self.tabletop).clips(
            [clip_seed(self.seed, n) for n in numbers],
            frames=self.frames,
            size=self.size,
            rate=self.rate,
            want=("rgb", "depth", "text"),
        )


@functools.cache
def _renderer(config: TabletopConfig) -> Tabletop:
    """One physics client per process and configuration."""
    return Tabletop(config)
