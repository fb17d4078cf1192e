# SPDX-License-Identifier: Apache-2.0
"""What a task needs to know before it begins: where the blocks lie, what is open. Read from a state, or foretold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .layout import BLOCK_SIZE, BLOCKS
from .state import State

TABLE, DRAWER, HAND = "table", "drawer", "hand"
DRAWER_OPEN, DRAWER_CLOSED = 0.10, 0.02
"""Metres: open is at least the one, closed at most the other."""


@dataclass(frozen=True)
class Spot:
    """Where a block is."""

    x: float
    y: float
    on: str = TABLE
    """`TABLE`, `DRAWER`, `HAND`, or the block that it stands on."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A state in the words of tasks."""

    blocks: Mapping[str, Spot]
    drawer: float
    """Metres open."""
    slider: float
    """Metres from the middle; above 0 is left as the robot sees it."""
    lamp: bool

    @property
    def held(self) -> str | None:
        """The block in the hand."""
        return next((name for name, spot in self.blocks.items() if spot.on == HAND), None)

    def clear(self, block: str) -> bool:
        """Whether no other block stands on it."""
        return all(spot.on != block for spot in self.blocks.values())

    def nearest(self, x: float, y: float, *, but: tuple[str, ...] = ()) -> float:
        """Metres from a point to the next block's middle, those in the drawer and the hand left out."""
        others = [s for name, s in self.blocks.items() if name not in but and s.on not in (DRAWER, HAND)]
        return min((math.hypot(s.x - x, s.y - y) for s in others), default=math.inf)

    def moved(self, block: str, spot: Spot) -> Situation:
        """With one block elsewhere."""
        return replace(self, blocks={**self.blocks, block: spot})


def situation_of(state: State) -> Situation:
    """What is the case now."""
    blocks = {}
    for name, pose in state.blocks.items():
        x, y, z = pose.position
        below = [
            other
            for other in BLOCKS
            if other != name
            and 0.5 * BLOCK_SIZE < z - state.blocks[other].position[2] < 1.5 * BLOCK_SIZE
            and math.hypot(x - state.blocks[other].position[0], y - state.blocks[other].position[1]) < BLOCK_SIZE
        ]
        if state.grasped(name):
            on = HAND
        elif state.touch(name, "drawer"):
            on = DRAWER
        else:
            on = below[0] if below else TABLE
        blocks[name] = Spot(x, y, on)
    return Situation(blocks=blocks, drawer=state.drawer, slider=state.slider, lamp=state.lamp)
