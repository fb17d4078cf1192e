# SPDX-License-Identifier: Apache-2.0
"""The commands of `omnistream-sim` that score a policy, and those that get their simulators."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from omnistream.errors import ConfigError
from omnistream_sim.command_line import resumable

from .protocols import Benchmark, EvaluationError


@dataclass(frozen=True, kw_only=True)
class How:
    """How a benchmark is run."""

    execute: int = 0
    """Steps of an action chunk that are carried out before the policy is asked again; 0: all. Changes the score."""
    workers: int = 1
    """Processes, each with a simulator and the policy. Does not change the score."""
    ray: bool = False
    """Spread the workers over a Ray cluster (RAY_ADDRESS), or Ray on this machine."""
    videos: int = 8
    """Films of the first so many episodes, and a contact sheet."""
    hang_s: float = 300.0
    """A worker that gives no sign of life for so long is replaced."""
    threads: int = 1
    """Of numerical libraries, per worker."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The policy."""

    policy: str
    """A checkpoint's folder, `default` (the shipped one), or module:name of any callable (observation, instruction) ->
    actions."""
    weights: str = ""
    """Of the backbone that a checkpoint was trained on; none: the default weights."""
    language_model: str = ""
    """Directory of the pre-trained language model, for a checkpoint that has one."""
    engine: str = "auto"
    """Of the stream: auto, torch, onnxruntime or tensorrt."""
    dtype: str = "float32"
    """Of the stream; the policy saw float32 features in training."""
    device: str = "auto"
    """auto, cpu or cuda."""
    options: tuple[str, ...] = ()
    """NAME=VALUE for what module:name makes a policy from."""

    def all_options(self) -> dict[str, Any]:
        """Those that the policy takes."""
        from .policies import is_checkpoint

        if is_checkpoint(self.policy):
            if self.options:
                raise ConfigError(f"option {self.options[0]!r} is for module:name; {self.policy} is a checkpoint")
            return {name: getattr(self, name) for name in CHECKPOINT_OPTIONS}
        pairs = [option.partition("=") for option in self.options]
        if bad := [name for name, equals, _ in pairs if not equals]:
            raise ConfigError(f"option {bad[0]!r}; expected NAME=VALUE")
        return {name: value for name, _, value in pairs}


CHECKPOINT_OPTIONS = ("weights", "language_model", "engine", "dtype", "device")
Flat = tyro.conf.OmitArgPrefixes


def run_benchmark(benchmark: Benchmark, scored: Scored, out: Path, how: How) -> None:
    """Run, print the table; EvaluationError at the end where episodes could not be run."""
    from .pool import PoolOptions
    from .report import table
    from .run import RunOptions, evaluate

    if os.getcwd() not in sys.path:  # module:name is looked up here first, as `python -m` does
        sys.path.insert(0, os.getcwd())
    options = RunOptions(
        out=out,
        execute=how.execute,
        videos=how.videos,
        where="ray" if how.ray else "processes",
        pool=PoolOptions(workers=how.workers, hang_s=how.hang_s, threads=how.threads),
    )
    with resumable():
        report = evaluate(benchmark, scored.policy, options, policy_options=scored.all_options())
    print(table(report))
    print(f"\n{out / 'results.json'}")
    if report["not_finished"]:
        raise EvaluationError(f"{len(report['not_finished'])} episodes could not be run; run it again to try them")


def calvin(
    scored: Annotated[Scored, Flat],
    how: Annotated[How, Flat] = How(),
    *,
    out: Path = Path("build/calvin"),
    chains: int = 1000,
    tasks: tuple[str, ...] = (),
    max_steps: int = 360,
    renderer: Literal["tiny", "egl", "none"] = "tiny",
    dataset: Path | None = None,
    root: Path | None = None,
) -> None:
    """Score a policy on CALVIN's long-horizon benchmark: chains of five tasks in scene D. A stopped run goes on.

    Args:
        out: Folder of the run: results.json, results.txt, videos, sheet.png, episodes.jsonl.
        chains: The first so many of the official 1000; with --tasks, starts per task.
        tasks: Single tasks instead of chains, such as lift_red_block_table.
        max_steps: Per task; official: 360.
        renderer: tiny (software), egl (OpenGL, as for published numbers) or none (black pictures, for scripts).
        dataset: Folder of CALVIN's data (task_ABC_D); its cameras and scene are used, as in the original.
        root: Checkout of CALVIN; else OMNISTREAM_CALVIN, else where `install calvin` put it.
    """
    from omnistream_sim.calvin.benchmark import calvin_benchmark

    benchmark = calvin_benchmark(
        chains=chains, tasks=tasks, max_steps=max_steps, renderer=renderer, dataset=dataset, root=root
    )
    run_benchmark(benchmark, scored, out, how)


def install_calvin(*, root: Path | None = None, run: bool = False) -> None:
    """Print what CALVIN needs here and what is missing.

    Args:
        root: Folder for the checkout; else OMNISTREAM_CALVIN, else a folder in the user's cache.
        run: Also do it.
    """
    from omnistream_sim.calvin.install import calvin_steps

    from .install import install

    if not install(calvin_steps(root), run=run):
        raise EvaluationError("not complete" if run else "not complete; with --run the commands above are executed")


def simpler(
    scored: Annotated[Scored, Flat],
    how: Annotated[How, Flat] = How(),
    *,
    out: Path = Path("build/simpler"),
    tasks: tuple[Literal["spoon", "carrot", "stack", "eggplant"], ...] = ("spoon", "carrot", "stack", "eggplant"),
    episodes: int = 24,
    render_backend: Literal["cpu", "gpu"] = "cpu",
    late_close: int = 0,
) -> None:
    """Score a policy on SIMPLER's WidowX tasks, in ManiSkill 3; success is read at the last step. Stopped, it goes on.

    Args:
        out: Folder of the run: results.json, results.txt, videos, sheet.png, episodes.jsonl.
        tasks: Which of the four.
        episodes: The first so many of each task's 24 starts.
        render_backend: cpu (Mesa's Vulkan driver) or gpu.
        late_close: Close the gripper only after so many wishes in a row, as some papers do (2); it moves scores.
    """
    from omnistream_sim.simpler.benchmark import simpler_benchmark

    benchmark = simpler_benchmark(tasks=tasks, episodes=episodes, render_backend=render_backend, late_close=late_close)
    run_benchmark(benchmark, scored, out, how)


def install_simpler(*, run: bool = False) -> None:
    """Print what SIMPLER needs here and what is missing.

    Args:
        run: Also do it, as far as it needs no administrator.
    """
    from omnistream_sim.simpler.install import simpler_steps

    from .install import install

    if not install(simpler_steps(), run=run):
        raise EvaluationError("not complete" if run else "not complete; with --run the commands above are executed")


COMMANDS: dict[str, Any] = {
    "calvin": calvin,
    "simpler": simpler,
    "install calvin": install_calvin,
    "install simpler": install_simpler,
}
