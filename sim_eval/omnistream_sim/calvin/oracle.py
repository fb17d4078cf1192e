# SPDX-License-Identifier: Apache-2.0
"""Was a task done between two moments? Rules and thresholds of calvin_env's envs/tasks.py and new_playtable_tasks.yaml.

Both moments are what PlayTableSimEnv.get_info() returns:

    robot_info  uid, contacts
    scene_info  movable_objects: {block_red: {uid, current_pos, current_orn (xyzw), contacts, current_lin_vel, ...}}
                fixed_objects:   {table: {uid, links: {name: number}}}
                doors:           {base__slide: {current_state}}
                lights:          {led: {logical_state}}

A contact is a tuple of PyBullet's getContactPoints: [2] the other body, [4] the other body's link.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Info = Mapping[str, Any]
Rule = Callable[["Change"], bool]


@dataclass(frozen=True)
class Thresholds:
    """How much of a change counts."""

    turned_degrees: float = 60.0
    turned_at_most: float = 180.0
    tilted_degrees: float = 30.0
    turned_while_moved_m: float = 0.1
    pushed_m: float = 0.1
    slider_m: float = 0.15
    drawer_m: float = 0.12
    lifted_m: float = 0.05
    lifted_from_slider_m: float = 0.03
    """There is less room in the cabinet."""
    still: float = 1.0
    """Highest speed of a stacked block, m/s and rad/s."""


LIMITS = Thresholds()


@dataclass(frozen=True)
class Change:
    """Two moments, and questions about them."""

    start: Info
    end: Info

    @property
    def robot(self) -> int:
        """The robot's body number."""
        return self.start["robot_info"]["uid"]

    def block(self, name: str) -> tuple[Info, Info]:
        """A block at the start and at the end."""
        return self.start["scene_info"]["movable_objects"][name], self.end["scene_info"]["movable_objects"][name]

    def moved(self, name: str) -> NDArray[np.float64]:
        """[3] m."""
        start, end = self.block(name)
        return np.subtract(end["current_pos"], start["current_pos"])

    def link(self, name: str) -> tuple[int, int]:
        """Body and link number of a part of the table."""
        table = self.start["scene_info"]["fixed_objects"]["table"]
        return table["uid"], table["links"][name]


def touched_bodies(thing: Info) -> set[int]:
    """Bodies that a block or the robot touches."""
    return {contact[2] for contact in thing["contacts"]}


def touched_links(thing: Info) -> set[tuple[int, int]]:
    """The same with link numbers."""
    return {(contact[2], contact[4]) for contact in thing["contacts"]}


def rotated(change: Change, block: str, sign: int) -> bool:
    """Turned by 60 to 180 degrees (sign +1: to the left), hardly tilted or moved, and not held in the air."""
    start, end = change.block(block)
    x, y, z = turn_degrees(start["current_orn"], end["current_orn"])
    in_place = bool(np.linalg.norm(change.moved(block)) <= LIMITS.turned_while_moved_m)
    on_something = bool(touched_bodies(end) - {change.robot})
    upright = abs(x) < LIMITS.tilted_degrees and abs(y) < LIMITS.tilted_degrees
    return in_place and on_something and upright and LIMITS.turned_degrees < sign * z < LIMITS.turned_at_most


def pushed(change: Change, block: str, sign: int) -> bool:
    """Moved more than 10 cm along x (sign +1: to the right), on all that it lay on before."""
    start, end = change.block(block)
    before, after = ({link for link in touched_links(b) if link[0] != change.robot} for b in (start, end))
    return bool(before) and before <= after and bool(sign * change.moved(block)[0] > LIMITS.pushed_m)


def door_moved(change: Change, door: str, distance: float) -> bool:
    """Opened (distance > 0) or closed by more than that."""
    before, after = (info["scene_info"]["doors"][door]["current_state"] for info in (change.start, change.end))
    return bool((after - before) * np.sign(distance) > abs(distance))


def lifted(change: Change, block: str, link: str, height: float) -> bool:
    """Lay on a part of the table; now it is higher, and the robot is all that it touches."""
    start, end = change.block(block)
    return (
        bool(change.moved(block)[2] > height)
        and touched_bodies(end) == {change.robot}
        and change.link(link) in touched_links(start)
    )


def placed(change: Change, link: str) -> bool:
    """The robot held one block in the air; now it has let go, and the block touches a part of the table."""
    held = touched_bodies(change.start["robot_info"])
    if len(held) != 1 or held & touched_bodies(change.end["robot_info"]):
        return False
    blocks = change.start["scene_info"]["movable_objects"]
    names = [name for name, block in blocks.items() if block["uid"] in held]
    if len(names) != 1:
        return False
    start, end = change.block(names[0])
    return touched_bodies(start) == {change.robot} and change.link(link) in touched_links(end)


def pushed_into(change: Change, source: str, target: str) -> bool:
    """Any block that lay on one part of the table, and on nothing else, now touches another part.

    The original's condition on the robot compares a body with pairs of body and link, and so never fails.
    """
    for name in change.start["scene_info"]["movable_objects"]:
        start, end = change.block(name)
        if touched_links(start) == {change.link(source)} and change.link(target) in touched_links(end):
            return True
    return False


def light_switched(change: Change, light: str, after: int) -> bool:
    """Was the opposite, is `after` (0 or 1)."""
    states = [info["scene_info"]["lights"][light]["logical_state"] for info in (change.start, change.end)]
    return states == [1 - after, after]


def stacked(change: Change) -> bool:
    """A block that touched no other block now rests on blocks alone."""
    return any(
        not _on_blocks(change, start)[0] and all(_on_blocks(change, end)) and _still(end)
        for start, end in map(change.block, change.start["scene_info"]["movable_objects"])
    )


def unstacked(change: Change) -> bool:
    """A block that rested on blocks alone now touches none."""
    return any(
        all(_on_blocks(change, start)) and not _on_blocks(change, end)[0] and _still(start)
        for start, end in map(change.block, change.start["scene_info"]["movable_objects"])
    )


def _on_blocks(change: Change, block: Info) -> tuple[bool, bool]:
    """Whether it touches a block; whether it touches nothing but blocks."""
    blocks = {other["uid"] for other in change.start["scene_info"]["movable_objects"].values()}
    touched = touched_bodies(block)
    return bool(touched & blocks), touched <= blocks


def _still(block: Info) -> bool:
    speeds = np.abs([*block["current_lin_vel"], *block["current_ang_vel"]])
    return bool((speeds < LIMITS.still).all())


def turn_degrees(start: ArrayLike, end: ArrayLike) -> tuple[float, float, float]:
    """Fixed-axis x, y, z angles (rotate about x first) of the turn from one orientation (xyzw) to another, degrees."""
    x, y, z, w = _product(np.asarray(end, float), np.asarray(start, float) * (-1, -1, -1, 1))
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return tuple(float(angle) for angle in np.degrees((roll, pitch, yaw)))  # type: ignore[return-value]


def _product(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hamilton product of unit quaternions xyzw, of unit length again."""
    vector = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    result = np.array([*vector, a[3] * b[3] - a[:3] @ b[:3]])
    return result / np.linalg.norm(result)


def _rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {
        "move_slider_left": partial(door_moved, door="base__slide", distance=LIMITS.slider_m),
        "move_slider_right": partial(door_moved, door="base__slide", distance=-LIMITS.slider_m),
        "open_drawer": partial(door_moved, door="base__drawer", distance=LIMITS.drawer_m),
        "close_drawer": partial(door_moved, door="base__drawer", distance=-LIMITS.drawer_m),
        "place_in_slider": partial(placed, link="plank_link"),
        "place_in_drawer": partial(placed, link="drawer_link"),
        "stack_block": stacked,
        "unstack_block": unstacked,
        "push_into_drawer": partial(pushed_into, source="base_link", target="drawer_link"),
    }
    for light in ("lightbulb", "led"):
        rules[f"turn_on_{light}"] = partial(light_switched, light=light, after=1)
        rules[f"turn_off_{light}"] = partial(light_switched, light=light, after=0)
    surfaces = {
        "table": ("base_link", LIMITS.lifted_m),
        "slider": ("plank_link", LIMITS.lifted_from_slider_m),
        "drawer": ("drawer_link", LIMITS.lifted_m),
    }
    for colour in ("red", "blue", "pink"):
        block = f"block_{colour}"
        for side, sign in (("right", 1), ("left", -1)):
            rules[f"rotate_{colour}_block_{side}"] = partial(rotated, block=block, sign=-sign)
            rules[f"push_{colour}_block_{side}"] = partial(pushed, block=block, sign=sign)
        for place, (link, height) in surfaces.items():
            rules[f"lift_{colour}_block_{place}"] = partial(lifted, block=block, link=link, height=height)
    return rules


RULES = _rules()
"""By task."""


def solved(task: str, start: Info, end: Info) -> bool:
    """Whether a task was done between two moments."""
    return RULES[task](Change(start, end))
