# SPDX-License-Identifier: Apache-2.0
"""The four Bridge tasks and their 24 starts each.

The facts are those of ManiSkill2_real2sim's put_on_in_scene.py (simpler-env, Apache-2.0). An episode's number n means:
placement n // rotations, rotation n % rotations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product

from omnistream.errors import ConfigError

Point = tuple[float, float]
EPISODES = 24
CENTRE = (-0.16, 0.0)
"""Of the square on the table at whose corners things are placed, m."""


@dataclass(frozen=True)
class Placement:
    """Where an episode starts."""

    source: Point
    """Of what is to be moved: x, y in m."""
    target: Point
    yaw: float
    """Of the source, rad; the target is never turned."""


@dataclass(frozen=True)
class BridgeTask:
    """One task."""

    name: str
    environment: str
    """Registered name in ManiSkill 2 (-v0) and 3 (-v1), without the version."""
    instruction: str
    steps: int
    places: Callable[[], tuple[tuple[Point, Point], ...]]
    yaws: tuple[float, ...]
    rests: tuple[int, ...] = ()
    """Which of ManiSkill 3's resting orientations stands for each yaw; empty: its starts are numbered as here."""
    resting: int = 0
    """How many of those there are."""

    def placements(self) -> list[Placement]:
        """The 24 starts, by episode number."""
        return [Placement(source, target, yaw) for (source, target), yaw in product(self.places(), self.yaws)]

    def maniskill_number(self, number: int) -> int:
        """Which of ManiSkill 3's starts is the 24 starts' `number`."""
        if not self.rests:
            return number
        place, turn = divmod(number, len(self.yaws))
        return place * self.resting + self.rests[turn]


def corners(half_edge: float) -> tuple[tuple[Point, Point], ...]:
    """All ordered pairs of two different corners of a square: 12."""
    signs = ((-1, -1), (-1, 1), (1, -1), (1, 1))
    points = [(CENTRE[0] + half_edge * x, CENTRE[1] + half_edge * y) for x, y in signs]
    return tuple(permutations(points, 2))


def _sink() -> tuple[tuple[Point, Point], ...]:
    """Eight places in the sink; the basket stands still."""
    return tuple(
        ((-0.105 + dx, 0.206 + dy), (-0.125, 0.025))
        for dx, dy in product((-0.01, 0.01), (-0.015, -0.005, 0.005, 0.015))
    )


BRIDGE: dict[str, BridgeTask] = {
    task.name: task
    for task in (
        BridgeTask(
            "spoon",
            "PutSpoonOnTableClothInScene",
            "put the spoon on the towel",
            60,
            lambda: corners(0.075),
            (0.0, math.pi / 2),
        ),
        BridgeTask(
            "carrot",
            "PutCarrotOnPlateInScene",
            "put carrot on plate",
            60,
            lambda: corners(0.075),
            (math.pi, -math.pi / 2),
        ),
        BridgeTask(
            "stack",
            "StackGreenCubeOnYellowCubeBakedTexInScene",
            "stack the green block on the yellow block",
            60,
            lambda: (*corners(0.05), *corners(0.1)),
            (0.0,),
        ),
        BridgeTask(
            "eggplant",
            "PutEggplantInBasketScene",
            "put eggplant into yellow basket",
            120,
            _sink,
            (0.0, math.pi / 4, -math.pi / 4),
            rests=(1, 2, 0),
            resting=8,
        ),
    )
}
"""In the order of the paper's scripts."""


def bridge_task(name: str) -> BridgeTask:
    """By name; ConfigError for an unknown one."""
    if name not in BRIDGE:
        raise ConfigError(f"task {name!r} is unknown; expected some of {', '.join(BRIDGE)}")
    return BRIDGE[name]
