# SPDX-License-Identifier: Apache-2.0
"""Where episodes begin: starts in which a task can be done, and chains of five that are possible one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omnistream.errors import ConfigError

from .env import GRASPABLE, HOME_TOOL
from .layout import BLOCK_SIZE, BLOCKS, DRAWER_TRAVEL, SLIDER_TRAVEL, Layout
from .situation import Situation, Spot
from .state import Pose, Start
from .tasks import KINDS, TASKS, Task

LENGTH = 5
"""Tasks of a chain."""
YAW = math.pi / 8
"""Blocks are turned by at most so much (CALVIN's)."""
TRIES = 2000


@dataclass(frozen=True)
class Beginning:
    """Where things are and what is to be done from there."""

    start: Start
    tasks: tuple[str, ...]


def draw_start(rng: np.random.Generator, layout: Layout | None = None) -> Start:
    """Blocks on the table, drawer open or closed, slider left or right, lamp on or off, the tool above the table."""
    layout = layout or Layout()
    low, high = np.array(layout.block_low), np.array(layout.block_high)
    placed: list[np.ndarray] = []
    while len(placed) < len(BLOCKS):
        placed = []
        for _ in range(200):
            xy = rng.uniform(low, high)
            if all(np.linalg.norm(xy - other) > GRASPABLE for other in placed):
                placed.append(xy)
            if len(placed) == len(BLOCKS):
                break
    yaws = rng.uniform(-YAW, YAW, len(BLOCKS))
    side = 1 if rng.random() < 0.5 else -1
    tool = np.array(HOME_TOOL) + rng.uniform(-1, 1, 3) * (0.03, 0.08, 0.04)
    return Start(
        blocks={
            str(name): Pose(
                (float(xy[0]), float(xy[1]), BLOCK_SIZE / 2),
                (0.0, 0.0, math.sin(float(yaw) / 2), math.cos(float(yaw) / 2)),
            )
            for name, xy, yaw in zip(rng.permutation(list(BLOCKS)), placed, yaws, strict=True)
        },
        drawer=float(rng.uniform(0.88, 1.0)) * DRAWER_TRAVEL if rng.random() < 0.5 else 0.0,
        slider=side * float(rng.uniform(0.6, 1.0)) * SLIDER_TRAVEL / 2,
        lamp=bool(rng.random() < 0.5),
        tool=(float(tool[0]), float(tool[1]), float(tool[2])),
    )


def situation_at(start: Start) -> Situation:
    """A start that `draw_start` made, in the words of tasks."""
    assert start.blocks is not None and start.drawer is not None
    assert start.slider is not None and start.lamp is not None
    spots = {name: Spot(pose.position[0], pose.position[1]) for name, pose in start.blocks.items()}
    return Situation(blocks=spots, drawer=start.drawer, slider=start.slider, lamp=start.lamp)


def possible_tasks(now: Situation) -> list[Task]:
    """All that can be done."""
    return [task for task in TASKS.values() if task.possible(now)]


def start_for(task: Task, seed: int, layout: Layout | None = None) -> Start:
    """A start from which the task can be done; the same seed gives the same."""
    rng = np.random.default_rng([seed, list(TASKS).index(task.name)])
    for _ in range(TRIES):
        start = draw_start(rng, layout)
        if task.possible(situation_at(start)):
            return start
    raise ConfigError(f"{task.name}: no start in {TRIES} tries; the layout leaves no room for it")


def start_of_kind(tasks: Sequence[Task], seed: int, layout: Layout | None = None) -> Beginning:
    """One of the tasks, every one equally often, and a start for it."""
    rng = np.random.default_rng([seed, len(TASKS)])
    task = tasks[int(rng.integers(len(tasks)))]
    return Beginning(start_for(task, seed, layout), (task.name,))


def chain(seed: int, length: int = LENGTH, layout: Layout | None = None) -> Beginning:
    """`length` tasks of different kinds, each possible once those before are done.

    Kinds are equally likely where they are possible, then the tasks of the kind. ConfigError for more tasks than kinds.
    """
    if not 1 <= length <= len(KINDS):
        raise ConfigError(f"chains of {length}; expected 1 to {len(KINDS)}, since all tasks are of different kinds")
    rng = np.random.default_rng([seed, len(TASKS) + 1])
    while True:
        start = draw_start(rng, layout)
        now, done = situation_at(start), list[Task]()
        while len(done) < length:
            left = [task for task in possible_tasks(now) if task.kind not in {t.kind for t in done}]
            kinds = sorted({task.kind for task in left})
            if not kinds:
                break
            kind = kinds[int(rng.integers(len(kinds)))]
            of_kind = [task for task in left if task.kind == kind]
            task = of_kind[int(rng.integers(len(of_kind)))]
            done.append(task)
            now = task.result(now)
        if len(done) == length:
            return Beginning(start, tuple(task.name for task in done))
