# SPDX-License-Identifier: Apache-2.0
"""CALVIN's 34 tasks: what each needs of a scene, what it changes, and which tasks count as the same kind.

A symbolic scene is eight words: led and lightbulb (0, 1), slider (right, left), drawer (closed, open), where each block
is (table, slider_right, slider_left, drawer, grasped, stacked_top, stacked_bottom), grasped (0, 1). The facts are those
of calvin_agent/evaluation/multistep_sequences.py (mees/calvin, MIT); the order of the tasks is part of the protocol,
since chains are drawn by position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations, product

Scene = dict[str, int | str]
COLOURS = ("red", "blue", "pink")
IN_SLIDER = ("slider_right", "slider_left")


@dataclass(frozen=True)
class Transition:
    """One way to do a task: what must hold before, what is different afterwards."""

    needs: Mapping[str, int | str | tuple[str, ...]]
    """A tuple lists alternatives."""
    changes: Mapping[str, int | str]

    def applies(self, scene: Scene) -> bool:
        """Whether it can be done in this scene."""
        return all(
            scene[key] in value if isinstance(value, tuple) else scene[key] == value
            for key, value in self.needs.items()
        )

    def after(self, scene: Scene) -> Scene:
        """The scene afterwards."""
        return {**scene, **self.changes}


@dataclass(frozen=True)
class Task:
    """A task as the chain generator sees it."""

    name: str
    kind: int
    """A chain has at most one task of each kind."""
    transitions: tuple[Transition, ...]

    def result(self, scene: Scene) -> Scene | None:
        """The scene after the task; None unless there is exactly one way to do it."""
        ways = [transition for transition in self.transitions if transition.applies(scene)]
        return ways[0].after(scene) if len(ways) == 1 else None


def _free(needs: Mapping[str, int | str | tuple[str, ...]], changes: Mapping[str, int | str]) -> Transition:
    """Done with an empty hand."""
    return Transition({**needs, "grasped": 0}, changes)


def _lift(colour: str, place: str) -> tuple[Transition, ...]:
    block = f"{colour}_block"
    held: dict[str, int | str] = {block: "grasped", "grasped": 1}
    if place == "table":
        return (_free({block: "table"}, held),)
    if place == "drawer":
        return (_free({block: "drawer", "drawer": "open"}, held),)
    # A block in the cabinet can be reached while the door is on the other side.
    return tuple(_free({block: f"slider_{at}", "slider": door}, held) for at, door in (_SIDES, _SIDES[::-1]))


_SIDES = ("left", "right")


def _place_in_slider() -> tuple[Transition, ...]:
    return tuple(
        Transition(
            {f"{colour}_block": "grasped", "slider": side, "grasped": 1},
            {f"{colour}_block": f"slider_{side}", "grasped": 0},
        )
        for colour, side in product(COLOURS, ("right", "left"))
    )


def _place_in_drawer() -> tuple[Transition, ...]:
    return tuple(
        Transition(
            {f"{colour}_block": "grasped", "drawer": "open", "grasped": 1},
            {f"{colour}_block": "drawer", "grasped": 0},
        )
        for colour in COLOURS
    )


def _stack() -> tuple[Transition, ...]:
    return tuple(
        Transition(
            {f"{top}_block": "grasped", f"{bottom}_block": "table", "grasped": 1},
            {f"{top}_block": "stacked_top", f"{bottom}_block": "stacked_bottom", "grasped": 0},
        )
        for top, bottom in permutations(COLOURS, 2)
    )


def _unstack() -> tuple[Transition, ...]:
    return tuple(
        _free(
            {f"{top}_block": "stacked_top", f"{bottom}_block": "stacked_bottom"},
            {f"{top}_block": "table", f"{bottom}_block": "table"},
        )
        for top, bottom in permutations(COLOURS, 2)
    )


def _push_into_drawer() -> tuple[Transition, ...]:
    """The other two blocks are out of the way, in the cabinet."""
    return tuple(
        _free(
            {f"{other}_block": "table" if other == colour else IN_SLIDER for other in COLOURS} | {"drawer": "open"},
            {f"{colour}_block": "drawer", "grasped": 0},
        )
        for colour in COLOURS
    )


def _switch(name: str, key: str, before: int | str, after: int | str, kind: int) -> Task:
    return Task(name, kind, (_free({key: before}, {key: after}),))


def _all_tasks() -> list[Task]:
    tasks = []
    for verb, colour, side in product(("rotate", "push"), COLOURS, ("right", "left")):
        stays = _free({f"{colour}_block": "table"}, {f"{colour}_block": "table"})
        tasks.append(Task(f"{verb}_{colour}_block_{side}", 1, (stays,)))
    tasks += [
        _switch("move_slider_left", "slider", "right", "left", 2),
        _switch("move_slider_right", "slider", "left", "right", 2),
        _switch("open_drawer", "drawer", "closed", "open", 3),
        _switch("close_drawer", "drawer", "open", "closed", 3),
    ]
    for colour, (kind, place) in product(COLOURS, enumerate(("table", "slider", "drawer"), 4)):
        tasks.append(Task(f"lift_{colour}_block_{place}", kind, _lift(colour, place)))
    tasks += [
        Task("place_in_slider", 7, _place_in_slider()),
        Task("place_in_drawer", 7, _place_in_drawer()),
        Task("stack_block", 10, _stack()),
        Task("unstack_block", 11, _unstack()),
        _switch("turn_on_lightbulb", "lightbulb", 0, 1, 8),
        _switch("turn_off_lightbulb", "lightbulb", 1, 0, 8),
        _switch("turn_on_led", "led", 0, 1, 8),
        _switch("turn_off_led", "led", 1, 0, 8),
        Task("push_into_drawer", 9, _push_into_drawer()),
    ]
    return tasks


TASKS: dict[str, Task] = {task.name: task for task in _all_tasks()}
"""By name, in the protocol's order."""
