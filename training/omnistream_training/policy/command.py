# SPDX-License-Identifier: Apache-2.0
"""`omnistream-train policy`: a policy on frozen features.

    omnistream-train policy RUN --data.folders my_set                      # tabletop_tiny: from nothing, on a laptop
    omnistream-train policy RUN --preset calvin_abc --data.folders calvin --language-model DIR --backbone CHECKPOINT

RUN is the run's directory. Given a run that exists, it goes on. Features of the pictures are computed once and kept
(--cache). Every field of the configuration is an option. The policy is in RUN/best, errors beside their baselines in
RUN/report.json, predicted against recorded actions in RUN/overlay.png and overlay.mp4.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from omnistream_training.config_file import save_config
from omnistream_training.journal import duration
from omnistream_training.policy.building import prepare
from omnistream_training.policy.config import PolicyRunConfig
from omnistream_training.policy.fitting import fitted
from omnistream_training.policy.presets import preset
from omnistream_training.policy.trainer import PolicyTrainer
from omnistream_training.running import CONFIG, StopSignals, Where, outcome, require_same, resolve_device
from omnistream_training.starting import starting_point

DEFAULT_PRESET = "tabletop_tiny"


@dataclass(frozen=True, kw_only=True)
class PolicyWhere(Where):
    """What a run may differ in from one start to the next without becoming another run."""

    cache: Path = Path("~/.cache/omnistream/features")
    """Where features are kept, for all runs."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a policy in the directory RUN, or go on there. Every field of the configuration is an option."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    preset: str = DEFAULT_PRESET
    """Configuration to start from, by name: tabletop_tiny, tabletop, tabletop_default, calvin_small, calvin_abc,
    bridge."""
    config: Path | None = None
    """YAML file with fields to change in it; options on the command line win."""
    fit: float | None = None
    """Cut a new run's steps down to so many minutes of training on this machine; features come on top."""
    where: Annotated[PolicyWhere, tyro.conf.arg(name="")] = field(default_factory=PolicyWhere)
    train: Annotated[PolicyRunConfig, tyro.conf.arg(name="")] = field(default_factory=PolicyRunConfig)


def run_command(arguments: Sequence[str]) -> bool:
    """Parse and run; returns whether the run is finished. Raises the errors of this package."""
    name, base = starting_point(arguments, preset, DEFAULT_PRESET)
    defaults = Options(run=tyro.MISSING, preset=name, train=base)
    options = tyro.cli(Options, default=defaults, args=list(arguments), prog="omnistream-train policy")
    made_by = f"omnistream-train policy --preset {name}"
    return run_policy(options.train, options.run.expanduser(), options.where, fit_minutes=options.fit, made_by=made_by)


def run_policy(
    config: PolicyRunConfig,
    run: Path,
    where: PolicyWhere,
    *,
    fit_minutes: float | None = None,
    made_by: str = "omnistream-train policy",
) -> bool:
    """Train in `run` until the end, the time limit, or SIGINT / SIGTERM; returns whether it is finished.

    A run that exists keeps its configuration; another one is refused (ConfigError).
    fit_minutes: cut a new run's steps down to so many minutes on this machine; one that exists keeps its steps.
    """
    start, cpu = time.monotonic(), time.process_time()
    device = resolve_device(where.device)
    if where.threads:
        torch.set_num_threads(where.threads)
    require_same(run, config)
    deadline = where.deadline(start)
    with StopSignals() as stop:
        setup = prepare(
            config,
            where.cache.expanduser(),
            device,
            say=lambda text: print(text, flush=True),
            stop=lambda: stop() or (deadline is not None and time.monotonic() > deadline),
        )
        if setup is None:
            return False
        if not (run / CONFIG).exists():  # only now: data and options are known to fit
            if fit_minutes is not None:
                config = fitted(config, setup, device, fit_minutes)
            save_config(config, run / CONFIG)
        trainer = PolicyTrainer(
            config,
            run,
            setup,
            device=device,
            tensorboard=where.tensorboard,
            made_by=made_by,
        )
        trainer.journal.say(
            f"{setup.description}; on {device}; step {trainer.progress.step} of {config.steps}; everything is in {run}"
        )
        finished = trainer.train(deadline=deadline, stop=stop)
    if finished:
        trainer.report()
    took = f"{duration(time.monotonic() - start)}, {time.process_time() - cpu:.0f} CPU-s"
    kept = run / ("best" if finished else "last")
    trainer.journal.say(f"{outcome(finished, trainer.progress.step)} ({took}); policy in {kept}")
    return finished
