# SPDX-License-Identifier: Apache-2.0
"""Who can do every task: plans from what it finds, looks again when a plan is through, goes on until it is solved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import control
from .control import CLOSE, GRIP_STEPS, HOVER, OPEN, TRAVEL_HEIGHT, Script, Waypoint
from .layout import BLOCK_SIZE, DRAWER_TRAVEL, SLIDER_TRAVEL, Layout
from .situation import DRAWER, situation_of
from .state import State
from .tasks import PUSH, SIDES, Task

PLANS = 4
"""It gives up after so many."""
SHUT, WIDE = 0.01, 0.07
"""Between the fingers: nothing fits in, and they hold nothing."""


class Expert:
    """Does one task. Looks at the state before every action, so that disturbances are met."""

    def __init__(self, task: Task, layout: Layout | None = None) -> None:
        self.task = task
        self._layout = layout or Layout()
        self._plans = 0
        self._script: Script | None = None

    @property
    def left(self) -> list[Waypoint]:
        """Of its plan, the waypoints from the one on that the last action went to."""
        return self._script.left if self._script else []

    def action(self, state: State) -> NDArray[np.float64] | None:
        """[7] in -1 .. 1; None: it gives up."""
        while True:
            action = self._script.action(state) if self._script else None
            if action is not None:
                return action
            if self._plans == PLANS:
                return None
            self._plans += 1
            self._script = Script(plan(self.task, state, self._layout))


def plan(task: Task, state: State, layout: Layout) -> list[Waypoint]:
    """The next part of the task, as far as it can be foreseen: a block is taken first and, once held, put somewhere."""
    if task.kind in ("place", "stack", "lift") and state.grasped(task.block):
        if task.kind != "lift":
            return put(task, state, layout)
        x, y, _ = state.tool
        return [Waypoint((x, y, TRAVEL_HEIGHT), float(state.target_euler[2]), CLOSE)]
    start = _let_go(state)
    if task.kind in ("lift", "place", "stack"):
        return start + control.pick(state, task.block)
    if task.kind == "push":
        return start + _push(state, task.block, SIDES[task.goal])
    if task.kind == "drawer":
        return start + control.move_drawer(state, DRAWER_TRAVEL - 0.005 if task.goal == "open" else 0.0)
    if task.kind == "slider":
        return start + control.move_slider(state, SIDES[task.goal] * (SLIDER_TRAVEL / 2 - 0.005))
    return start + control.press_button(state)


def put(task: Task, state: State, layout: Layout) -> list[Waypoint]:
    """The second part of placing and stacking: the block is held."""
    if task.kind == "stack":
        return control.stack(state, task.base)
    return control.place(state, _place_in_drawer(task, state, layout), on=0.014)


def _let_go(state: State) -> list[Waypoint]:
    """Free the fingers from what they touch, or have only just let go of, and rise above it."""
    x, y, z = (float(v) for v in state.tool)
    yaw = float(state.target_euler[2])
    shut, partly = state.opening < SHUT, SHUT <= state.opening < WIDE
    points = []
    if partly:
        points.append(Waypoint((x, y, z), yaw, OPEN, wait=GRIP_STEPS))
    if partly or z < HOVER + BLOCK_SIZE:
        points.append(Waypoint((x, y, z + HOVER), yaw, CLOSE if shut else OPEN, tolerance=0.02))
    return points


def _push(state: State, block: str, sign: float) -> list[Waypoint]:
    """From behind, with closed fingers."""
    x, y, z = state.blocks[block].position
    behind, end = y - sign * (BLOCK_SIZE / 2 + 0.035), y + sign * (PUSH - BLOCK_SIZE / 2 - 0.010)
    return [
        Waypoint((x, behind, max(TRAVEL_HEIGHT, z)), 0.0, CLOSE, tolerance=0.015),
        Waypoint((x, behind, 0.022), 0.0, CLOSE, tolerance=0.008),
        Waypoint((x, end, 0.022), 0.0, CLOSE, speed=0.6),
        Waypoint((x, end, 0.022 + HOVER), 0.0, CLOSE),
    ]


def _place_in_drawer(task: Task, state: State, layout: Layout) -> tuple[float, float]:
    """A free place in the open drawer, far enough from the cabinet's front for the hand."""
    front, y = layout.drawer_xy
    x = front - state.drawer + 0.05
    taken = [spot for name, spot in situation_of(state).blocks.items() if spot.on == DRAWER and name != task.block]
    offsets = (0.0, 0.07, -0.07)
    free = [d for d in offsets if all(abs(spot.y - (y + d)) > 0.06 for spot in taken)]
    return x, y + (free or [0.0])[0]
