# SPDX-License-Identifier: Apache-2.0
"""Where an episode is going, and what was to be done told something else: what training takes from plans.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.episodes import EpisodeDataset
from omnistream.episodes.plans import PLANS_FILE, Plans, read_plans
from omnistream.errors import ConfigError, InputError


def plans_by_episode(dataset: EpisodeDataset) -> dict[int, Plans]:
    """By `EpisodeInfo.index`; nothing of episodes that were lost. InputError for plans of others than these."""
    plans = read_plans(Path(dataset.path), dataset.contract)
    if plans is None or not len(plans):
        return {}
    order = np.argsort(plans.episode, kind="stable")
    numbers, starts = np.unique(plans.episode[order], return_index=True)
    told = {int(n): plans.rows(rows) for n, rows in zip(numbers, np.split(order, starts[1:]), strict=True)}
    found = {}
    for info in dataset.infos:
        number = info.index if info.number is None else info.number
        if number not in told:
            continue
        mine = found[info.index] = told.pop(number)
        where = f"{dataset.path}: {PLANS_FILE}, episode {number}"
        if mine.frame.min() < 0 or mine.frame.max() >= info.length:
            raise InputError(f"{where}: frames {mine.frame.min()} to {mine.frame.max()}; it has {info.length}")
        own = {mine.instruction[row] for row in np.flatnonzero(mine.steps == 0)}
        if own - {info.instruction}:
            raise InputError(f"{where}: its recorded actions are said to be for {own}; it is {info.instruction!r}")
    if told and not dataset.lost:
        raise InputError(f"{dataset.path}: {PLANS_FILE} has episode {min(told)}; the data set has {len(dataset)}")
    return found


def check_plans(plans: Plans, where: str, goal: Sequence[str], count: int) -> None:
    """ConfigError if they do not tell so many keyframes in the dimensions that a policy with this goal learns."""
    missing = [name for name in goal if name not in plans.goal]
    if missing:
        raise ConfigError(
            f"{where}: {PLANS_FILE} tells keyframes in {', '.join(plans.goal)}; policy.goal has {missing[0]!r}"
        )
    if goal and plans.keyframes.shape[1] < count:
        raise ConfigError(
            f"{where}: {PLANS_FILE} tells {plans.keyframes.shape[1]} keyframes; policy.keyframes is {count}"
        )


def keyframes_of(
    states: NDArray[np.float32],
    opened: NDArray[np.float32],
    plans: Plans | None,
    goal: Sequence[str],
    names: Sequence[str],
    count: int,
) -> NDArray[np.float32]:
    """[T, count, goal] of an episode: as planned where that is told, else where the recorded gripper switches.

    states: [T, S], of these names. opened: [T, grippers].
    """
    if not goal:
        return np.zeros((len(states), 0, 0), np.float32)
    which = [list(names).index(name) for name in goal]
    found: NDArray[np.float32] = states[keyframe_rows(opened, count)][..., which]
    if plans is not None:
        own = np.flatnonzero(plans.steps == 0)
        found[plans.frame[own]] = of_goal(plans, own, goal)[:, :count]
    return found


def keyframe_rows(opened: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """[T, count] for each frame the next ones at which another gripper command is given than before; then the last.

    opened: [T, G] recorded commands, 1 open, 0 closed.
    """
    last = len(opened) - 1
    switches = np.flatnonzero((np.diff(opened, axis=0) != 0).any(-1)) + 1
    after = np.searchsorted(switches, np.arange(len(opened)), side="right")
    return np.concatenate([switches, np.full(count, last)])[after[:, None] + np.arange(count)]


def of_goal(plans: Plans, rows: Any, goal: Sequence[str]) -> NDArray[np.float32]:
    """[..., K, goal] of these rows."""
    return plans.keyframes[rows][..., [plans.goal.index(name) for name in goal]]
