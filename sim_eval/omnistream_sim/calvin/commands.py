# SPDX-License-Identifier: Apache-2.0
"""The command of `omnistream-sim` that makes demonstrations in CALVIN. Its evaluation is in `evaluation.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from omnistream_sim.command_line import Folder, resumable, to_stderr

Task = Literal["lift_red_block_table", "lift_blue_block_table", "lift_pink_block_table"]


def demos_calvin(
    out: Folder,
    /,
    *,
    episodes: int,
    tasks: tuple[Task, ...] = ("lift_red_block_table",),
    seed: int = 0,
    noise: float = 0.35,
    disturbed: float = 0.5,
    elsewhere: float = 0.5,
    spread: float = 0.05,
    max_steps: int = 120,
    renderer: Literal["tiny", "egl"] = "tiny",
    validation: float = 0.1,
    workers: int = 1,
    root: Path | None = None,
) -> None:
    """Write demonstrations of a script, recorded in the real CALVIN, in CALVIN's own format. A stopped run goes on.

    Args:
        out: The folder to write, with the splits training and validation.
        episodes: How many. Those at which the script fails are counted, left out and replaced.
        tasks: They take turns.
        seed: Data sets of different seeds have no start in common.
        noise: Disturbance of the arm: standard deviation, where 1 is 0.02 m. Recorded is the undisturbed action.
        disturbed: Share of the control periods that are disturbed.
        elsewhere: Share of the demonstrations that begin with the hand anywhere over the table, open or closed.
        spread: How far blocks may lie from the two places of the evaluation's starts, in m along each axis.
        max_steps: A demonstration that takes longer is a failed one.
        renderer: tiny (software) or egl (OpenGL); what is trained on one is evaluated on the same.
        validation: Share in the split validation, at least one.
        workers: Processes.
        root: Checkout of CALVIN; else OMNISTREAM_CALVIN, else where `install calvin` put it.
    """
    from omnistream_sim.dataset import Progress

    from .demos import DemoOptions, make_demos

    options = DemoOptions(
        episodes=episodes,
        tasks=tasks,
        seed=seed,
        noise=noise,
        disturbed=disturbed,
        elsewhere=elsewhere,
        spread=spread,
        max_steps=max_steps,
        renderer=renderer,
        validation=validation,
    )
    with resumable():
        told = make_demos(out, options, root=root, workers=workers, progress=Progress(to_stderr, "episodes"))
    print(
        f"{out}: {told['episodes']} episodes ({told['validation_episodes']} of them for validation), "
        f"{told['frames']} frames; {told['failed']} attempts failed"
    )


COMMANDS: dict[str, Any] = {"demos calvin": demos_calvin}
