# SPDX-License-Identifier: Apache-2.0
"""The tabletop as a benchmark: so many episodes of every kind of task, or chains of five, and its controls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from omnistream.errors import ConfigError
from omnistream_sim.evaluation.protocols import Benchmark, Episode, Rules
from omnistream_sim.evaluation.scores import Rate

from .starts import Beginning, chain, possible_tasks, situation_at, start_of_kind
from .state import Start
from .task_env import CONVENTION, TaskEnvironment, View
from .tasks import TASKS, Task, tasks_of

RULES = Rules(max_steps=160, source="docs/tabletop.md")
"""8 s; the slowest expert takes 4.3 s."""
FIRST_SEED = 1_000_000
"""Of evaluations; demonstrations have seeds below it."""
Told = Literal["unseen", "seen", "blank", "swapped"]
"""What the policy is told: a sentence it was not taught, one that it was, nothing, or another task that is possible."""


def tabletop_benchmark(
    *,
    episodes: int = 100,
    chains: int = 0,
    tasks: Sequence[str] = (),
    told: Told = "unseen",
    view: View | None = None,
    seed: int = 0,
    max_steps: int = RULES.max_steps,
) -> Benchmark:
    """`episodes` of every kind of task that `tasks` names (none: all seven), or `chains` of five tasks.

    seed: another one, other starts. ConfigError for an unknown task or wrong numbers.
    """
    if chains < 0 or episodes < 1 or seed < 0:
        raise ConfigError(
            f"episodes {episodes}, chains {chains}, seed {seed}; expected 1 or more, 0 or more, 0 or more"
        )
    if chains and (tasks or told == "swapped"):
        raise ConfigError("chains are of all tasks, and told what to do; expected no --tasks, and not --told swapped")
    first = FIRST_SEED * (1 + seed)
    if chains:
        chosen = [_episode(chain(first + i), first + i, i) for i in range(chains)]
    else:
        chosen = _singles(tasks_of(tuple(tasks)), episodes, first)
    if told == "swapped":
        chosen = [_swapped(episode, tasks_of(tuple(tasks))) for episode in chosen]
    words = told if told in ("seen", "blank") else "unseen"
    return Benchmark(
        name="tabletop, chains of five" if chains else "tabletop" + ("" if told == "unseen" else f", told {told}"),
        rules=Rules(max_steps=max_steps, source=RULES.source),
        episodes=chosen,
        environment=partial(TaskEnvironment, view or View(), words),
        convention=CONVENTION,
        settings={"tasks": list(tasks), "told": told, "seed": seed, "chains": bool(chains)},
    )


def _singles(tasks: Sequence[Task], episodes: int, first: int) -> list[Episode]:
    kinds = list(dict.fromkeys(task.kind for task in tasks))
    return [
        _episode(start_of_kind([task for task in tasks if task.kind == kind], first + i), first + i, 10 * i + number)
        for i in range(episodes)
        for number, kind in enumerate(kinds)
    ]


def _episode(beginning: Beginning, seed: int, index: int) -> Episode:
    return Episode(index=index, tasks=beginning.tasks, state={"start": beginning.start.plain()}, seed=seed)


def _swapped(episode: Episode, tasks: Sequence[Task]) -> Episode:
    """The same start, another one of the tasks that can be done in it; the one it was drawn for must stay undone."""
    meant = TASKS[episode.tasks[0]]
    now = situation_at(Start.from_plain(episode.state["start"]))
    others = [task for task in tasks if task != meant and task.possible(now)]
    if not others:
        raise ConfigError(f"told swapped: {meant.name} is the only possible one of the tasks; name more (--tasks)")
    told = others[int(np.random.default_rng([episode.seed, 7]).integers(len(others)))]
    return Episode(
        index=episode.index, tasks=(told.name,), state=episode.state | {"instead": meant.name}, seed=episode.seed
    )


def by_kind(report: dict[str, Any]) -> dict[str, Rate]:
    """Success by kind of task from a report's `task_info`."""
    counts: dict[str, list[int]] = {}
    for name, row in report["task_info"].items():
        entry = counts.setdefault(TASKS[name].kind, [0, 0])
        entry[0] += row["success"]
        entry[1] += row["total"]
    return {kind: Rate(*counts[kind]) for kind in sorted(counts)}


def chance(benchmark: Benchmark) -> float:
    """Success of somebody who can do everything and does any task that is possible at the start, whatever is said."""
    shares = []
    for episode in benchmark.episodes:
        now = situation_at(Start.from_plain(episode.state["start"]))
        shares.append(1 / len(possible_tasks(now)))
    return float(np.mean(shares))


def kinds_table(report: dict[str, Any], benchmark: Benchmark) -> str:
    """Success by kind, as text, and that of picking at random."""
    lines = [f"{'kind of task':<34}{'rate':>8}   95 % interval    solved"]
    for kind, rate in by_kind(report).items():
        low, high = rate.interval
        share = f"{rate.success}/{rate.total}"
        lines.append(f"{kind:<34}{100 * rate.value:>7.1f}%   {100 * low:>5.1f} .. {100 * high:>5.1f}   {share:>6}")
    lines.append(f"{'expert that picks at random':<34}{100 * chance(benchmark):>7.1f}%")
    return "\n".join(lines)
