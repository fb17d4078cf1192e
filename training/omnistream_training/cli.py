# SPDX-License-Identifier: Apache-2.0
"""`omnistream-train`: geometry, heads, pre-training and policies.

    omnistream-train geometry RUN --preset default-cpu --optim.lr 5e-4
    omnistream-train heads RUN --model.start CHECKPOINT --data.live None --data.folders my_recordings
    omnistream-train pretrain RUN --preset tabletop_tiny
    omnistream-train policy RUN --data.folders my_data_set

RUN is the run's directory. Given a run that exists, it goes on. Every field of the configuration is an option.

exit codes: 0 finished; 1 stopped before the end (start it again to go on); 2 wrong usage; 3 data cannot be read;
4 a checkpoint cannot be used; 7 a loss was not finite (the message names the step)
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from omnistream.errors import CheckpointError, ConfigError, ContractError, InputError
from omnistream_training.config import TrainConfig
from omnistream_training.config_file import load_config
from omnistream_training.geometry import NotFiniteError
from omnistream_training.presets import preset
from omnistream_training.running import CONFIG, Where, run_geometry

FINISHED, STOPPED, USAGE, DATA, CHECKPOINT, NOT_FINITE = 0, 1, 2, 3, 4, 7
COMMANDS = {"geometry": "default-cpu", "heads": "heads"}
"""Command and its preset."""
POLICY, PRETRAIN = "policy", "pretrain"
"""Commands with a configuration of their own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return FINISHED if arguments else USAGE
    command, rest = arguments[0], arguments[1:]
    if command not in (*COMMANDS, PRETRAIN, POLICY):
        known = ", ".join((*COMMANDS, PRETRAIN, POLICY))
        print(f"omnistream-train: unknown command {command!r}; expected one of {known}", file=sys.stderr)
        return USAGE
    try:
        if command == PRETRAIN:
            return _pretrain(rest)
        return _policy(rest) if command == POLICY else _run(command, rest)
    except NotFiniteError as error:
        return _fail(error, NOT_FINITE)
    except CheckpointError as error:
        return _fail(error, CHECKPOINT)
    except (InputError, ContractError) as error:
        return _fail(error, DATA)
    except ConfigError as error:
        return _fail(error, USAGE)


def _fail(error: Exception, code: int) -> int:
    print(f"omnistream-train: {error}", file=sys.stderr)
    return code


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train in the directory RUN, or go on there. Every field of the configuration is an option."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    preset: str = "default-cpu"
    """Configuration to start from, by name (`omnistream_training.presets`)."""
    config: Path | None = None
    """YAML file with fields to change in it; options on the command line win."""
    fit: float | None = None
    """Scale a new run's stages to so many minutes on this machine."""
    where: Annotated[Where, tyro.conf.arg(name="")] = field(default_factory=Where)
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def _policy(arguments: list[str]) -> int:
    from omnistream_training.policy.command import run_command

    return FINISHED if run_command(arguments) else STOPPED


def _pretrain(arguments: list[str]) -> int:
    from omnistream_training.pretrain.command import run_command

    return FINISHED if run_command(arguments) else STOPPED


def _run(command: str, arguments: list[str]) -> int:
    name = _peek(arguments, "--preset") or COMMANDS[command]
    base = preset(name)
    config_file = _peek(arguments, "--config")
    if config_file is not None:
        base = load_config(Path(config_file).expanduser(), base)
    existing = [Path(a) / CONFIG for a in arguments if not a.startswith("-") and (Path(a) / CONFIG).is_file()]
    if existing:
        base = load_config(existing[0], base)  # so that only what is said on the command line can differ
    defaults = Options(run=tyro.MISSING, preset=name, train=base)
    options = tyro.cli(Options, default=defaults, args=arguments, prog=f"omnistream-train {command}")
    config = options.train
    if config.model.start == "-":
        raise ConfigError("model.start is missing: name the checkpoint to start from (--model.start PATH)")
    if command == "heads" and not config.model.freeze_backbone:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, freeze_backbone=True))
    made_by = f"omnistream-train {command} --preset {name}"
    finished = run_geometry(config, options.run.expanduser(), options.where, fit_minutes=options.fit, made_by=made_by)
    return FINISHED if finished else STOPPED


def _peek(arguments: list[str], name: str) -> str | None:
    """Value of an option that decides the defaults of the others."""
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(name + "="):
            return argument.split("=", 1)[1]
    return None


if __name__ == "__main__":
    sys.exit(main())
