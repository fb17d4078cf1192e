# SPDX-License-Identifier: Apache-2.0
"""Scripted motion on top of `TabletopEnv`: waypoints of the tool, and those of the elementary skills.

    script = Script(pick(env.state(), "red"))
    while (action := script.action(env.state())) is not None:
        env.step(action)

A script looks at the state before every action, so it goes on correctly when something else disturbs the arm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .env import STEP, TURN
from .layout import BLOCK_SIZE, CABINET_HEIGHT
from .state import Pose, State

OPEN, CLOSE = 1.0, -1.0
TRAVEL_HEIGHT = 0.24
"""Of the tool on its way: clear of everything, a carried block included."""
HOVER = 0.09
"""Of the tool above what it is about to take."""
GRIP_STEPS = 6
"""Control periods until the fingers have closed or opened."""
_QUARTER = math.pi / 2
_KNOB_TO_FRONT = 0.055
_ABOVE_DRAWER = 0.09


@dataclass(frozen=True)
class Waypoint:
    """A place for the tool, which points down."""

    position: tuple[float, float, float]
    yaw: float = 0.0
    gripper: float = OPEN
    wait: int = 0
    """Control periods to stay, once there."""
    speed: float = 1.0
    """Largest action: 1 is 0.02 m per control period."""
    tolerance: float = 0.004
    """Metres; of the tool from the place."""


def towards(state: State, position: ArrayLike, yaw: float = 0.0, gripper: float = OPEN, speed: float = 1.0) -> NDArray:
    """The action [7] that sends the tool nearer to a place, on a straight line, pointing down."""
    move = (np.asarray(position, float) - state.target) / STEP
    move *= min(1.0, speed / max(float(np.abs(move).max()), 1e-9))
    turn = np.array([math.pi, 0.0, yaw]) - state.target_euler
    return np.concatenate([move, np.clip(turn / TURN, -speed, speed), [gripper]])


class Script:
    """Waypoints, one after the other."""

    def __init__(self, waypoints: Sequence[Waypoint], patience: int = 60) -> None:
        """patience: control periods after which a waypoint that cannot be reached is given up."""
        self._waypoints, self._patience = list(waypoints), patience
        self._index = self._waited = self._spent = 0

    @property
    def left(self) -> list[Waypoint]:
        """The waypoints from the present one on."""
        return self._waypoints[self._index :]

    def action(self, state: State) -> NDArray[np.float64] | None:
        """What to do now; None: all is done."""
        while self._index < len(self._waypoints):
            point = self._waypoints[self._index]
            there = (
                float(np.linalg.norm(state.tool - point.position)) < point.tolerance
                and abs(state.target_euler[2] - point.yaw) < 0.03
            )
            if not there and not self._waited and self._spent < self._patience:
                self._spent += 1
            elif self._waited < point.wait:
                self._waited += 1
            else:
                self._index, self._waited, self._spent = self._index + 1, 0, 0
                continue
            return towards(state, point.position, point.yaw, point.gripper, point.speed)
        return None


def grasp_yaw(block: Pose, near: float = 0.0) -> float:
    """A yaw for which the fingers close on two faces of a block: of the four, the one nearest to `near`."""
    return block.yaw + _QUARTER * round((near - block.yaw) / _QUARTER)


def pick(state: State, block: str, yaw: float | None = None) -> list[Waypoint]:
    """Take a block and lift it; `yaw` of the tool, where the default would touch a neighbour."""
    x, y, z = state.blocks[block].position
    yaw = grasp_yaw(state.blocks[block]) if yaw is None else yaw
    low = max(z - 0.004, 0.014)
    return [
        *_over(state, x, y, z + HOVER, yaw, OPEN),
        Waypoint((x, y, low), yaw, OPEN, wait=1, speed=0.6),
        Waypoint((x, y, low), yaw, CLOSE, wait=GRIP_STEPS),
        Waypoint((x, y, max(z + 0.12, TRAVEL_HEIGHT)), yaw, CLOSE),
    ]


def place(state: State, at: tuple[float, float], on: float = 0.0, yaw: float | None = None) -> list[Waypoint]:
    """Put what is held down at (x, y) on a surface of height `on`, and let go."""
    yaw = float(state.target_euler[2]) if yaw is None else yaw
    x, y = at
    z = on + BLOCK_SIZE / 2 - 0.002
    return [
        *_over(state, x, y, z + HOVER, yaw, CLOSE),
        Waypoint((x, y, z), yaw, CLOSE, wait=2, speed=0.5),
        Waypoint((x, y, z), yaw, OPEN, wait=GRIP_STEPS),
        Waypoint((x, y, z + 0.12), yaw, OPEN, speed=0.8),
    ]


def stack(state: State, base: str) -> list[Waypoint]:
    """Put what is held on another block, edges along edges."""
    x, y, z = state.blocks[base].position
    yaw = grasp_yaw(state.blocks[base], near=float(state.target_euler[2]))
    return place(state, (x, y), z + BLOCK_SIZE / 2, yaw)


def move_drawer(state: State, opening: float) -> list[Waypoint]:
    """Take the drawer's knob and pull or push it until the drawer is open so far (metres)."""
    x, y, z = state.handle
    z += 0.012
    end = (x - (opening - state.drawer), y, z)
    return [
        *_over(state, x, y, z + HOVER, 0.0, OPEN),
        Waypoint((x, y, z), 0.0, OPEN, wait=1, speed=0.6),
        Waypoint((x, y, z), 0.0, CLOSE, wait=GRIP_STEPS),
        Waypoint(end, 0.0, CLOSE, wait=2, speed=0.5),
        Waypoint(end, 0.0, OPEN, wait=GRIP_STEPS),
        Waypoint((end[0], end[1], TRAVEL_HEIGHT), 0.0, OPEN),
    ]


def put_in_drawer(state: State) -> list[Waypoint]:
    """Let what is held fall into the opened drawer, from where the hand does not touch its front."""
    x, y = float(state.handle[0]) + _KNOB_TO_FRONT + state.drawer / 2, float(state.handle[1])
    return [
        *_over(state, x, y, _ABOVE_DRAWER + 0.04, 0.0, CLOSE),
        Waypoint((x, y, _ABOVE_DRAWER), 0.0, CLOSE, wait=2, speed=0.5),
        Waypoint((x, y, _ABOVE_DRAWER), 0.0, OPEN, wait=GRIP_STEPS),
        Waypoint((x, y, TRAVEL_HEIGHT), 0.0, OPEN),
    ]


def move_slider(state: State, to: float) -> list[Waypoint]:
    """Take the slider's knob and bring it so far from the middle of its rail (metres along world y)."""
    x, y, z = state.knob
    end = (x, y + (to - state.slider), z)
    return [
        *_over(state, x, y, z + HOVER, 0.0, OPEN),
        Waypoint((x, y, z), 0.0, OPEN, wait=1, speed=0.6),
        Waypoint((x, y, z), 0.0, CLOSE, wait=GRIP_STEPS),
        Waypoint(end, 0.0, CLOSE, wait=2, speed=0.5),
        Waypoint(end, 0.0, OPEN, wait=GRIP_STEPS),
        Waypoint((*end[:2], end[2] + HOVER), 0.0, OPEN),
    ]


def press_button(state: State) -> list[Waypoint]:
    """Press the button with closed fingers, once."""
    x, y, z = state.button_top
    return [
        *_over(state, x, y, z + HOVER, 0.0, CLOSE),
        Waypoint((x, y, z + 0.02), 0.0, CLOSE, wait=2),
        Waypoint((x, y, z - 0.006), 0.0, CLOSE, wait=2, speed=0.3, tolerance=0.003),
        Waypoint((x, y, z + HOVER), 0.0, CLOSE),
    ]


def _over(state: State, x: float, y: float, z: float, yaw: float, gripper: float) -> list[Waypoint]:
    """Up, across, and down to z: over whatever stands in between."""
    high = max(TRAVEL_HEIGHT, z, CABINET_HEIGHT + 0.09)
    far = math.hypot(x - state.tool[0], y - state.tool[1]) > 0.03
    start = Waypoint((state.tool[0], state.tool[1], high), float(state.target_euler[2]), gripper, tolerance=0.02)
    return [
        *([start] if far and state.tool[2] < high - 0.02 else []),
        Waypoint((x, y, high), yaw, gripper, tolerance=0.015),
        Waypoint((x, y, z), yaw, gripper, tolerance=0.008),
    ]
