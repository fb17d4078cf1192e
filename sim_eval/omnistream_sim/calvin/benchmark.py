# SPDX-License-Identifier: Apache-2.0
"""CALVIN as a benchmark of the evaluator: chains of five as published, or single tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from omnistream.contract import Dimension
from omnistream.errors import ConfigError
from omnistream_sim.evaluation.convention import Convention
from omnistream_sim.evaluation.protocols import Benchmark, Episode, Rules

from .chains import TOTAL, Chain, official_chains
from .checkout import PINNED, PINNED_ENV, find_checkout
from .environment import CalvinEnvironment, Renderer
from .scripted import METRES, RADIANS
from .tasks import TASKS

RULES = Rules(
    max_steps=360,  # EP_LEN
    source="mees/calvin, calvin_models/calvin_agent/evaluation/evaluate_policy.py",
)
STATE = (
    *(Dimension(f"tcp_{axis}", "m") for axis in "xyz"),
    *(Dimension(f"tcp_{angle}", "rad") for angle in ("roll", "pitch", "yaw")),
    Dimension("gripper_width", "m"),
    *(Dimension(f"joint_{number}", "rad") for number in range(1, 8)),
    Dimension("gripper_action", "1"),
)
"""robot_obs, as the reader of CALVIN's data names it."""
CONVENTION = Convention(rate=30.0, metres=METRES, radians=RADIANS, frame="world", state=STATE)


def calvin_benchmark(
    *,
    chains: int = TOTAL,
    tasks: Sequence[str] = (),
    max_steps: int = RULES.max_steps,
    root: Path | None = None,
    dataset: Path | None = None,
    renderer: Renderer = "tiny",
) -> Benchmark:
    """The first `chains` of the official 1000; or, where tasks are named, so many official starts of each task.

    dataset: a folder of CALVIN's data, whose validation configuration is used as in the original.

    Raises:
        NoCalvin: CALVIN is not on this machine.
        ConfigError: an unknown task, or a number of chains outside 1..1000.
    """
    checkout = find_checkout(root)
    dataset = None if dataset is None else dataset.expanduser().absolute()
    episodes = single_tasks(tasks, chains) if tasks else chain_episodes(chains)
    deviations = []
    if tasks:
        deviations.append(f"single tasks ({', '.join(tasks)}) from official starts, not chains of five")
    elif chains != TOTAL:
        deviations.append(f"the first {chains} of the official {TOTAL} chains")
    if max_steps != RULES.max_steps:
        deviations.append(f"{max_steps} steps per task; official: {RULES.max_steps}")
    if renderer != "egl":
        name = {"tiny": "Bullet's software renderer", "none": "no renderer: pictures are black"}[renderer]
        deviations.append(f"{name}; published numbers: OpenGL (--renderer egl)")
    if dataset is None:
        deviations.append("cameras and scene as in calvin_env's repository; official: as in the data set (--dataset)")
    commits = checkout.commits()
    for name, official in (("calvin", PINNED), ("calvin_env", PINNED_ENV)):
        if commits[name] != official:
            deviations.append(f"{name} at {commits[name][:9]}; official: {official[:9]}")
    deviations.append("the scene is loaded anew for every chain, so that a chain does not depend on those before")
    return Benchmark(
        name="CALVIN" if not tasks else "CALVIN, single tasks",
        rules=Rules(max_steps=max_steps, source=RULES.source),
        episodes=episodes,
        environment=partial(CalvinEnvironment, checkout.root, renderer=renderer, dataset=dataset),
        convention=CONVENTION,
        deviations=tuple(deviations),
        settings={"tasks": list(tasks), "renderer": renderer, "dataset": None if dataset is None else str(dataset)},
    )


def chain_episodes(count: int) -> list[Episode]:
    """The first official chains; an episode's index is the chain's number."""
    return [
        Episode(index=chain.number, tasks=chain.tasks, state=chain.scene, seed=chain.number)
        for chain in official_chains(count)
    ]


def single_tasks(tasks: Sequence[str], count: int) -> list[Episode]:
    """`count` episodes of each task, from the first official starts in which the task can be done.

    The index is 1000 times the task's position among the 34, and the chain's number. ConfigError for an unknown task,
    or one that no official start allows (such as placing a block, which has to be held first).
    """
    names = list(TASKS)
    if unknown := [task for task in tasks if task not in TASKS]:
        raise ConfigError(f"task {unknown[0]!r} is unknown; expected some of {', '.join(names)}")
    episodes = []
    # Shares of starts differ by task: look at more and more chains, since those not needed are not drawn.
    for task in tasks:
        chains: list[Chain] = []
        looked = 2 * count
        while len(chains) < count:
            looked = min(2 * looked, TOTAL)
            chains = [chain for chain in official_chains(looked) if TASKS[task].result(chain.scene) is not None][:count]
            if looked == TOTAL and len(chains) < count:
                raise ConfigError(f"{task} can be done in {len(chains)} of the official starts; asked for {count}")
        for chain in chains:
            index = 1000 * names.index(task) + chain.number
            episodes.append(Episode(index=index, tasks=(task,), state=chain.scene, seed=index))
    return episodes
