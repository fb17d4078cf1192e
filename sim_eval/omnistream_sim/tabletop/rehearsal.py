# SPDX-License-Identifier: Apache-2.0
"""How well the experts do: without them neither demonstrations nor scores mean anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from omnistream_sim.evaluation.protocols import Episode
from omnistream_sim.evaluation.scores import Rate

from .expert import Expert
from .task_env import TaskWorld, View
from .tasks import TASKS


@dataclass(frozen=True)
class Rehearsed:
    """What came of the episodes of one kind, or of the chains."""

    rate: Rate
    """Tasks done."""
    steps: tuple[float, float]
    """Control periods of those that were done: mean and largest."""
    failed: tuple[str, ...]
    """seed: task."""


def rehearse(episodes: Sequence[Episode], progress: Callable[[int, int], None]) -> dict[str, Rehearsed]:
    """Run the expert through episodes, by kind of task. A chain ends with its first failure, as a policy's does."""
    world = TaskWorld(View())
    steps: dict[str, list[int]] = {}
    failed: dict[str, list[str]] = {}
    for count, episode in enumerate(episodes):
        progress(count, len(episodes))
        world.reset(episode.state["start"], episode.seed)
        for name in episode.tasks:
            kind = TASKS[name].kind
            taken = _perform(world, name)
            if taken is None:
                failed.setdefault(kind, []).append(f"{episode.seed}: {name}")
                break
            steps.setdefault(kind, []).append(taken)
    progress(len(episodes), len(episodes))
    world.env.close()
    found = {}
    for kind in sorted(steps.keys() | failed.keys()):
        done, lost = steps.get(kind, []), failed.get(kind, [])
        rate = Rate(len(done), len(done) + len(lost))
        found[kind] = Rehearsed(rate, (float(np.mean(done or [0])), float(max(done, default=0))), tuple(lost))
    return found


def _perform(world: TaskWorld, name: str, limit: int = 360) -> int | None:
    """Control periods until the task was solved; None: it was not."""
    task, expert = TASKS[name], Expert(TASKS[name])
    begin = state = world.env.state()
    for step in range(1, limit + 1):
        action = expert.action(state)
        if action is None:
            return None
        world.step(action)
        state = world.env.state()
        if task.solved(begin, state):
            return step
    return None
