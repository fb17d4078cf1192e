# SPDX-License-Identifier: Apache-2.0
"""`omnistream-train pretrain`: self-supervision, geometry and captions together.

    omnistream-train pretrain RUN                                          # tabletop_tiny: from nothing, on a laptop
    omnistream-train pretrain RUN --weights.caption 0                      # without a task
    omnistream-train pretrain RUN --preset paper_vitl_stage1 --model.start DINOV3 --caption.language-model QWEN3 \\
        --data.live None --data.folders RECORDINGS

    torchrun --standalone --nproc-per-node 2 -m omnistream_training.cli pretrain RUN --micro-batches 2

RUN is the run's directory. Given a run that exists, it goes on. Every field of the configuration is an option. The
weights are in RUN/weights, for every other command.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from omnistream.errors import ConfigError
from omnistream_training.config_file import save_config
from omnistream_training.distributed import Processes, exit_code, join
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.presets import preset
from omnistream_training.pretrain.trainer import PretrainTrainer
from omnistream_training.running import CONFIG, Where, require_same, resolve_device, train
from omnistream_training.starting import command_line, starting_point

DEFAULT_PRESET = "tabletop_tiny"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Pre-train in the directory RUN, or go on there. Every field of the configuration is an option."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    preset: str = DEFAULT_PRESET
    """Configuration to start from: tabletop_tiny, tabletop_small, paper_vitl_stage1, paper_vitl_stage2."""
    config: Path | None = None
    """YAML file with fields to change in it; options on the command line win."""
    where: Annotated[Where, tyro.conf.arg(name="")] = field(default_factory=Where)
    train: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)


def run_command(arguments: Sequence[str]) -> bool:
    """Parse and run; returns whether the run is finished. Raises the errors of this package."""
    name, base = starting_point(arguments, preset, DEFAULT_PRESET)
    defaults = Options(run=tyro.MISSING, preset=name, train=base)
    options = tyro.cli(Options, default=defaults, args=list(arguments), prog="omnistream-train pretrain")
    made_by = command_line("omnistream-train pretrain", arguments, options.run)
    return run_pretrain(options.train, options.run.expanduser(), options.where, made_by=made_by)


def run_pretrain(config: PretrainConfig, run: Path, where: Where, *, made_by: str = "") -> bool:
    """Train in `run` until the end, the time limit, or SIGINT / SIGTERM; returns whether it is finished.

    A run that exists keeps its configuration; another one is refused (ConfigError).
    """
    start = time.monotonic()
    processes = join(resolve_device(where.device))
    device = processes.device
    if where.threads:
        torch.set_num_threads(where.threads)
    if config.model.start == "-":
        raise ConfigError("model.start is missing: name the checkpoint to start from (--model.start PATH)")
    if config.caption.language_model == "-" and config.weights.caption:
        raise ConfigError("caption.language_model is missing: name a Qwen3's directory, or None for a random decoder")
    require_same(run, config)
    processes.wait()  # whoever is first writes the configuration that the others look for
    trainer = PretrainTrainer(
        config, run, device=device, tensorboard=where.tensorboard, made_by=made_by, processes=processes
    )
    if processes.first and not (run / CONFIG).exists():  # only now: data and options are known to fit
        save_config(config, run / CONFIG)
    learner = trainer.learner
    shipped, trained = (sum(p.numel() for p in m.parameters()) / 1e6 for m in (learner.model, learner.parts))
    trainer.journal.say(
        f"{trainer.feed.description}; {shipped:.1f} M parameters, and {trained - shipped:.1f} M for training only, on "
        f"{_machines(processes)}; step {trainer.progress.step} of {config.steps}; everything is in {run}"
    )
    finished = train(trainer, where, start)
    processes.leave(exit_code(finished))
    return finished


def _machines(processes: Processes) -> str:
    return processes.device if processes.world == 1 else f"{processes.world} processes, this one on {processes.device}"
