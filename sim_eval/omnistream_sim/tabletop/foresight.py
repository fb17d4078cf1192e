# SPDX-License-Identifier: Apache-2.0
"""What an expert would do next, told this task or another one: labels that need neither physics nor pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from omnistream.episodes.plans import Plans

from .control import CLOSE, OPEN, Script, Waypoint
from .env import STEP, TURN
from .expert import SHUT, WIDE, Expert, plan, put
from .layout import Layout
from .situation import situation_of
from .starts import possible_tasks
from .state import State
from .task_env import instruction
from .tasks import TASKS, Task

GOAL = ("tool_x", "tool_y", "tool_z", "tool_yaw")
"""What a keyframe says of the tool, by the names of the demonstrations' state."""
KEYFRAMES = 2
HORIZON = 10
"""Actions that are imagined."""
_OVER, _TURNED = 0.02, 0.15
"""Metres beside and radians about what it is to take, within which the hand only has to come down."""
_CLOSING = 0.012
"""Metres above or below where it closes."""


def keyframes(task: Task, left: Sequence[Waypoint], state: State, layout: Layout) -> NDArray[np.float32]:
    """[KEYFRAMES, 4] where the gripper switches next and after that; beyond the last switch, where it all ends.

    left: the waypoints from here on. What has to be foreseen beyond them is where a block that is taken will be put.
    Opening the hand in order to close it on something, or closing it to push with it, is getting ready: no keyframe.
    """
    points = list(left)
    if task.kind in ("place", "stack") and points[-1].gripper == CLOSE:
        euler = np.array([*state.target_euler[:2], points[-1].yaw])
        points += put(task, replace(state, target_euler=euler), layout)
    switches = [b for a, b in pairwise(points) if a.gripper != b.gripper]
    if task.kind in ("push", "button"):
        switches = []
    elif len(switches) > 1 and switches[0].gripper == OPEN:
        del switches[0]
    chosen = (switches + [points[-1]] * KEYFRAMES)[:KEYFRAMES]
    return np.array([[*point.position, point.yaw] for point in chosen], np.float32)


def imagined(left: Sequence[Waypoint], state: State, steps: int = HORIZON) -> NDArray[np.float64]:
    """[n, 7] the actions along waypoints, if the tool goes where it is sent; n < `steps` where they are through."""
    script, actions = Script(left), []
    for _ in range(steps):
        action = script.action(state)
        if action is None:
            break
        actions.append(action)
        target, euler = state.target + action[:3] * STEP, state.target_euler + action[3:6] * TURN
        state = replace(state, tool=target, tool_euler=euler, target=target, target_euler=euler)
    return np.array(actions).reshape(-1, 7)


def other_tasks(task: Task, state: State, count: int, rng: np.random.Generator) -> list[Task]:
    """At most `count` others that are possible now; kinds are equally likely, then the tasks of a kind."""
    left = [other for other in possible_tasks(situation_of(state)) if other != task]
    chosen: list[Task] = []
    while left and len(chosen) < count:
        kinds = sorted({other.kind for other in left})
        kind = kinds[int(rng.integers(len(kinds)))]
        mine = [other for other in left if other.kind == kind]
        chosen.append(mine[int(rng.integers(len(mine)))])
        left.remove(chosen[-1])
    return chosen


def under_way(task: Task, points: Sequence[Waypoint], state: State, layout: Layout, gripper: float) -> list[Waypoint]:
    """A plan from here, without what somebody in the middle of it has behind him. gripper: what it is told now.

    Plans begin with rising and come from above. Where the hand is over, or at, what it is to take or to let go of, that
    contradicts demonstrations that go on from the same place: a policy that learnt both went up and down there.
    """
    x, y, _, yaw = keyframes(task, points, state, layout)[0]
    at = [math.dist(point.position[:2], (x, y)) < 1e-3 for point in points]
    switch = next((i for i, (a, b) in enumerate(pairwise(points), 1) if a.gripper != b.gripper and at[i]), None)
    if switch is None or math.dist(state.tool[:2], (x, y)) > _OVER or abs(state.target_euler[2] - yaw) > _TURNED:
        return list(points)
    if points[switch].gripper == CLOSE and (gripper == CLOSE or state.opening < WIDE):
        there = state.opening > SHUT and abs(state.tool[2] - points[switch].position[2]) < _CLOSING
        return list(points[switch if there and gripper == CLOSE else 0 :])
    below = (i for i, point in enumerate(points) if at[i] and point.position[2] <= state.tool[2] + 0.01)
    return list(points[min(next(below, switch - 1), switch - 1) :])


def told_otherwise(
    task: Task, state: State, layout: Layout, gripper: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Keyframes [KEYFRAMES, 4] and actions [n, 7] of an expert that is told this task in this state, in which the
    gripper is told to open or close for the present one."""
    left = under_way(task, plan(task, state, layout), state, layout, gripper)
    return keyframes(task, left, state, layout), imagined(left, state)


class Foresight:
    """Plans from the frames of an episode: where its own is going, and what others would be, in `seen` sentences."""

    def __init__(self, task: Task, told: str, others: int, seed: int) -> None:
        self._task, self._told, self._others, self._seed = task, told, others, seed
        # Of its own, so that the episode is the same with and without.
        self._rng = np.random.default_rng([seed, len(TASKS) + 2])
        self._rows: list[tuple[int, str, NDArray[np.float32], NDArray[np.float64]]] = []
        self._frames = 0

    def add(self, state: State, expert: Expert) -> None:
        """The next frame's."""
        frame, layout = self._frames, Layout()
        self._frames += 1
        own = keyframes(self._task, expert.left, state, layout)
        self._rows.append((frame, self._told, own, np.zeros((0, 7))))
        for task in other_tasks(self._task, state, self._others, self._rng):
            told = instruction(task, "seen", self._seed, int(self._rng.integers(1 << 31)))
            self._rows.append((frame, told, *told_otherwise(task, state, layout, expert.left[0].gripper)))

    def plans(self, units: NDArray[np.float64]) -> Plans:
        """All of them, of episode 0. units: [7], from the environment's actions to the contract's."""
        actions = np.zeros((len(self._rows), HORIZON, 7), np.float32)
        for row, (_, _, _, known) in zip(actions, self._rows, strict=True):
            row[: len(known)] = known * units
        return Plans(
            GOAL,
            np.zeros(len(self._rows), np.int64),
            np.array([frame for frame, *_ in self._rows], np.int64),
            [told for _, told, _, _ in self._rows],
            np.array([row[2] for row in self._rows], np.float32).reshape(-1, KEYFRAMES, len(GOAL)),
            actions,
            np.array([len(row[3]) for row in self._rows], np.int64),
        )
