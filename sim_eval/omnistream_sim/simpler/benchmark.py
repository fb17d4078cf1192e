# SPDX-License-Identifier: Apache-2.0
"""SIMPLER's Bridge tasks as a benchmark of the evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from omnistream.errors import ConfigError
from omnistream_sim.evaluation.protocols import Benchmark, Episode, Rules

from .environment import CONVENTION, SimplerEnvironment, require_simpler
from .gripper import LateClose, WithGripper
from .tasks import BRIDGE, EPISODES, bridge_task

RULES = Rules(
    max_steps=60,  # eggplant: 120
    stop_at_success=False,
    source="simpler-env/SimplerEnv, simpler_env/evaluation/maniskill2_evaluator.py",
)


def simpler_benchmark(
    *,
    tasks: Sequence[str] = tuple(BRIDGE),
    episodes: int = EPISODES,
    render_backend: Literal["cpu", "gpu"] = "cpu",
    late_close: int = 0,
) -> Benchmark:
    """The first `episodes` of each task's 24 starts. An episode's index is 24 times the task's position, and the start.

    late_close: the gripper closes after so many wishes to close in a row (VLM4VLA: 2); 0: when it is told to.

    Raises:
        NoSimpler: the simulator is not on this machine.
        ConfigError: an unknown task, or a number of episodes outside 1..24.
    """
    if not 1 <= episodes <= EPISODES:
        raise ConfigError(f"{episodes} episodes; expected 1 to {EPISODES}")
    chosen = [bridge_task(name) for name in tasks]
    require_simpler(tasks)
    names = list(BRIDGE)
    deviations = ["ManiSkill 3 on SAPIEN 3; published numbers: ManiSkill 2 on SAPIEN 2, another simulator"]
    if set(tasks) != set(BRIDGE):
        deviations.append(f"{', '.join(tasks)} only; published means are over {', '.join(BRIDGE)}")
    if "eggplant" in tasks:
        deviations.append(
            "the eggplant starts in ManiSkill 3's resting orientations; original: dropped, turned about z"
        )
    if episodes != EPISODES:
        deviations.append(f"the first {episodes} of {EPISODES} starts")
    if late_close:
        deviations.append(f"the gripper closes only after {late_close} wishes in a row, as VLM4VLA's does")
    deviations.append("one run for each start; papers average a policy with randomness over its seeds")
    return Benchmark(
        name="SIMPLER, WidowX on Bridge",
        rules=RULES,
        episodes=[
            Episode(
                index=EPISODES * names.index(task.name) + number,
                tasks=(task.name,),
                state={"episode_id": number},
                seed=EPISODES * names.index(task.name) + number,
                max_steps=task.steps,
            )
            for task in chosen
            for number in range(episodes)
        ],
        environment=partial(SimplerEnvironment, render_backend=render_backend),
        convention=CONVENTION,
        wrap=partial(WithGripper, rule=LateClose(late_close)) if late_close else None,
        deviations=tuple(deviations),
        settings={"simulator": "ManiSkill 3", "render_backend": render_backend}
        | ({"late_close": late_close} if late_close else {}),
    )
