# SPDX-License-Identifier: Apache-2.0
"""Start or go on with a run in a directory: configuration, device, threads, signals, time limit."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from omnistream.errors import ConfigError
from omnistream_training.budget import fit_to, seconds_per_step
from omnistream_training.config import TrainConfig
from omnistream_training.config_file import load_config, save_config
from omnistream_training.geometry import GeometryTrainer
from omnistream_training.journal import duration

CONFIG = "config.yaml"


@dataclass(frozen=True, kw_only=True)
class Where:
    """What a run may differ in from one start to the next without becoming another run."""

    device: str = "auto"
    """cpu, cuda, or auto: a GPU if there is one."""
    threads: int | None = None
    """CPU threads; None: torch's choice."""
    stop_after: float | None = None
    """Minutes; then save and stop. The run goes on where it stopped when it is started again."""
    tensorboard: bool = False
    """Write TensorBoard files beside log.jsonl."""

    def deadline(self, start: float) -> float | None:
        """Of a run that started at `start`; both as `time.monotonic()`."""
        return None if self.stop_after is None else start + 60 * self.stop_after


def run_geometry(
    config: TrainConfig, run: Path, where: Where, *, fit_minutes: float | None = None, made_by: str = ""
) -> bool:
    """Train in `run` until the end, the time limit, or SIGINT / SIGTERM; returns whether it is finished.

    config: for a new run. A run that exists keeps its own (`config.yaml`), and another one is refused (ConfigError).
    fit_minutes: scale a new run's stages to so many minutes on this machine.
    """
    start = time.monotonic()
    device = resolve_device(where.device)
    if where.threads:
        torch.set_num_threads(where.threads)
    new = not (run / CONFIG).exists()
    if not new:
        config = resumed_config(run, config, fit_minutes is not None)
    elif fit_minutes is not None:
        seconds = seconds_per_step(config, device)
        config = fit_to(config, fit_minutes - (time.monotonic() - start) / 60, seconds)
    trainer = GeometryTrainer(config, run, device=device, tensorboard=where.tensorboard, made_by=made_by)
    if new:  # only now: data and options are known to fit
        save_config(config, run / CONFIG)
    parameters = sum(p.numel() for p in trainer.learner.model.parameters())
    trainer.journal.say(
        f"{trainer.feed.description}; {parameters / 1e6:.1f} M parameters on {device}; "
        f"step {trainer.progress.step} of {config.steps}; everything is in {run}"
    )
    return train(trainer, where, start)


def train(trainer: GeometryTrainer, where: Where, start: float) -> bool:
    """Until the end, the time limit since `start`, or a signal; says which, and returns whether it is the end."""
    with StopSignals() as stop:
        finished = trainer.train(deadline=where.deadline(start), stop=stop)
    took = duration(time.monotonic() - start)
    trainer.journal.say(f"{outcome(finished, trainer.progress.step)} ({took}); weights in {trainer.run / 'weights'}")
    return finished


def outcome(finished: bool, step: int) -> str:
    """For the last line of a run's journal."""
    return "finished" if finished else f"stopped at step {step}; start it again to go on"


def require_same(run: Path, wanted: Any) -> None:
    """ConfigError, with the fields that differ, if there is a run in `run` with another configuration than `wanted`."""
    if (run / CONFIG).exists():
        # On the defaults: a field that is newer than the run has the value that it had before there was a choice.
        _refuse_change(run, load_config(run / CONFIG, type(wanted)()), wanted)


def resumed_config(run: Path, wanted: TrainConfig | None, fitted: bool = False) -> TrainConfig:
    """The stored configuration of `run`. ConfigError if `wanted` differs (its stages may, where they were fitted)."""
    stored = load_config(run / CONFIG, TrainConfig())
    if wanted is not None:
        same = wanted
        if fitted:
            same = dataclasses.replace(
                wanted,
                stages=stored.stages,
                optim=dataclasses.replace(wanted.optim, warmup=stored.optim.warmup),
                eval_every=stored.eval_every,
                save_every=stored.save_every,
            )
        _refuse_change(run, stored, same)
    return stored


def _refuse_change(run: Path, stored: Any, wanted: Any) -> None:
    names = [f.name for f in dataclasses.fields(stored) if getattr(stored, f.name) != getattr(wanted, f.name)]
    if names:
        raise ConfigError(
            f"{run} holds a run with another configuration (differs in {', '.join(names)}); choose another "
            "directory, or go on with it by the words that began it or by its folder alone"
        )


def resolve_device(name: str) -> str:
    """`auto` becomes cuda where there is a GPU. ConfigError for a device that is not here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r} but torch {torch.__version__} sees no GPU; use cpu or auto")
    return name


class StopSignals:
    """SIGINT and SIGTERM ask the run to stop after the step in progress; a second one ends it at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(number, self._before[number])
