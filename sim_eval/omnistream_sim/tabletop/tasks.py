# SPDX-License-Identifier: Apache-2.0
"""34 tasks of seven kinds: what each needs, what it leaves behind, and when it is solved.

Solved is read off the state in which the task began and the state now, as CALVIN's oracle does, with the thresholds
below (CALVIN's in brackets, for a larger table). Left and right are the robot's: left is +y.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from omnistream.errors import ConfigError

from .layout import BLOCK_SIZE, BLOCKS, DRAWER_TRAVEL, SLIDER_TRAVEL
from .situation import DRAWER, DRAWER_CLOSED, DRAWER_OPEN, HAND, TABLE, Situation, Spot
from .state import State
from .wording import WORDINGS, Wording

KINDS = ("lift", "push", "place", "stack", "drawer", "button", "slider")
SIDES = {"left": 1.0, "right": -1.0}
"""Sign along y."""

LIFTED = 0.05
"""Metres that a block is raised (0.05)."""
PUSHED = 0.07
"""Metres that a block is moved to its side, on the table (0.1)."""
SLID = 0.08
"""Metres that the slider is moved (0.15)."""
STACKED = 0.03
"""Metres at most between the middles of two stacked blocks, seen from above."""

PUSH = 0.10
"""Metres that a push is planned for, and room that it needs."""
_EDGE = 0.33
"""|y| that a pushed block may come to."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing to do. `TASKS` has all."""

    name: str
    kind: str
    """One of `KINDS`."""
    goal: str = ""
    """What of the kind: left, right, open, close, on, off."""
    block: str = ""
    """The colour it is about."""
    base: str = ""
    """The colour that is stacked on."""

    @property
    def wording(self) -> Wording:
        """All sentences for it."""
        key = self.kind if self.kind in WORDINGS else self.goal
        return WORDINGS[key].fill({"block": self.block, "base": self.base, "side": self.goal})

    def possible(self, now: Situation) -> bool:
        """Whether it can be done from here and is not done already. A block in the hand has to be put somewhere first:
        then only placing and stacking it are possible."""
        if now.held is not None and not (self.kind in ("place", "stack") and now.held == self.block):
            return False
        if self.kind == "drawer":
            return now.drawer <= DRAWER_CLOSED if self.goal == "open" else now.drawer >= DRAWER_OPEN
        if self.kind == "button":
            return now.lamp == (self.goal == "off")
        if self.kind == "slider":
            room = SLIDER_TRAVEL / 2 - SIDES[self.goal] * now.slider
            return room > SLID + 0.02
        spot = now.blocks[self.block]
        if spot.on not in (TABLE, HAND) or not now.clear(self.block):
            return False
        if self.kind == "place":
            return now.drawer >= DRAWER_OPEN and sum(s.on == DRAWER for s in now.blocks.values()) < 2
        if self.kind == "stack":
            return now.blocks[self.base].on == TABLE and now.clear(self.base)
        return self.kind == "lift" or self._has_room(now, spot)

    def _has_room(self, now: Situation, spot: Spot) -> bool:
        """For the fingers behind the block, and for the block in front."""
        sign = SIDES[self.goal]
        ahead = [spot.y + sign * step for step in (0.04, 0.07, PUSH)]
        clear = all(now.nearest(spot.x, y, but=(self.block,)) > 0.065 for y in ahead)
        behind = now.nearest(spot.x, spot.y - sign * 0.06, but=(self.block,)) > 0.05
        return clear and behind and abs(spot.y + sign * PUSH) < _EDGE

    def result(self, now: Situation) -> Situation:
        """How things will be when it is done; for planning chains."""
        if self.kind == "drawer":
            return replace(now, drawer=DRAWER_TRAVEL if self.goal == "open" else 0.0)
        if self.kind == "button":
            return replace(now, lamp=self.goal == "on")
        if self.kind == "slider":
            return replace(now, slider=SIDES[self.goal] * (SLIDER_TRAVEL / 2 - 0.01))
        spot = now.blocks[self.block]
        if self.kind == "push":
            return now.moved(self.block, replace(spot, y=spot.y + SIDES[self.goal] * PUSH))
        if self.kind == "stack":
            base = now.blocks[self.base]
            return now.moved(self.block, Spot(base.x, base.y, self.base))
        return now.moved(self.block, replace(spot, on=HAND if self.kind == "lift" else DRAWER))

    def solved(self, start: State, now: State) -> bool:
        """Whether it has been done between the two."""
        if self.kind == "drawer":
            if self.goal == "open":
                return start.drawer < DRAWER_OPEN <= now.drawer
            return start.drawer > DRAWER_CLOSED >= now.drawer
        if self.kind == "button":
            return now.lamp == (self.goal == "on") and now.lamp != start.lamp
        if self.kind == "slider":
            return (now.slider - start.slider) * SIDES[self.goal] >= SLID
        return self._block_solved(start, now)

    def _block_solved(self, start: State, now: State) -> bool:
        before, after = start.blocks[self.block].position, now.blocks[self.block].position
        free = not (now.touch(self.block, "left_finger") or now.touch(self.block, "right_finger"))
        if self.kind == "lift":
            return now.grasped(self.block) and not now.touch(self.block, TABLE) and after[2] - before[2] >= LIFTED
        if self.kind == "push":
            along = (after[1] - before[1]) * SIDES[self.goal]
            across = abs(after[0] - before[0])
            return along >= PUSHED and across <= along and after[2] < BLOCK_SIZE and now.touch(self.block, TABLE)
        if self.kind == "place":
            return free and now.touch(self.block, DRAWER) and not start.touch(self.block, DRAWER) and after[2] < 0.06
        base = now.blocks[self.base].position
        above = 0.75 * BLOCK_SIZE < after[2] - base[2] < 1.25 * BLOCK_SIZE
        near = math.hypot(after[0] - base[0], after[1] - base[1]) < STACKED
        return free and above and near and now.touch(self.block, self.base)


def _all() -> Iterator[Task]:
    for block in BLOCKS:
        yield Task(name=f"lift_{block}", kind="lift", block=block)
    for block in BLOCKS:
        for side in SIDES:
            yield Task(name=f"push_{block}_{side}", kind="push", block=block, goal=side)
    for block in BLOCKS:
        yield Task(name=f"place_{block}_in_drawer", kind="place", block=block)
    for block in BLOCKS:
        for base in BLOCKS:
            if base != block:
                yield Task(name=f"stack_{block}_on_{base}", kind="stack", block=block, base=base)
    for goal in ("open", "close"):
        yield Task(name=f"{goal}_drawer", kind="drawer", goal=goal)
    for goal in ("on", "off"):
        yield Task(name=f"turn_{goal}_lamp", kind="button", goal=goal)
    for side in SIDES:
        yield Task(name=f"move_slider_{side}", kind="slider", goal=side)


TASKS: dict[str, Task] = {task.name: task for task in _all()}


def tasks_of(names: tuple[str, ...]) -> list[Task]:
    """Tasks by name, or all of a kind by the kind's name; nothing named: all. ConfigError for an unknown one."""
    chosen = []
    for name in names or KINDS:
        found = [task for task in TASKS.values() if name in (task.name, task.kind)]
        if not found:
            raise ConfigError(f"task {name!r} is unknown; expected a kind ({', '.join(KINDS)}) or one of {list(TASKS)}")
        chosen += [task for task in found if task not in chosen]
    return chosen
