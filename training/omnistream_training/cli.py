# SPDX-License-Identifier: Apache-2.0
"""`omnistream-train`: geometry, heads, pre-training and policies, and what these take.

    omnistream-train geometry RUN --preset default-cpu --optim.lr 5e-4
    omnistream-train heads RUN --model.start CHECKPOINT --data.live None --data.folders my_recordings
    omnistream-train pretrain RUN --preset tabletop_tiny
    omnistream-train policy RUN --data.folders my_data_set
    omnistream-train ablation OUT --minutes 15           # pre-training without each of its tasks: what each is worth
    omnistream-train cost --preset paper_vitl_stage1     # arithmetic, days and memory of a pre-training run
    omnistream-train datasets                            # what the paper pre-trains on, and what of it can be read

RUN is the run's directory. Given a run that exists, it goes on. Every field of the configuration is an option.

exit codes: 0 finished; 1 stopped before the end (start it again to go on); 2 wrong usage; 3 data cannot be read;
4 a checkpoint cannot be used; 7 a loss was not finite (the message names the step). Under torchrun a run that was
stopped is 0 as well: all others are failures to it, which it reports, tries again (--max-restarts), and ends with 1
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from omnistream.errors import CheckpointError, ConfigError, ContractError, InputError
from omnistream_training.config import TrainConfig
from omnistream_training.distributed import exit_code
from omnistream_training.geometry import NotFiniteError
from omnistream_training.presets import preset
from omnistream_training.running import Where, run_geometry
from omnistream_training.starting import command_line, starting_point

FINISHED, USAGE, DATA, CHECKPOINT, NOT_FINITE = 0, 2, 3, 4, 7
COMMANDS = {"geometry": "default-cpu", "heads": "heads"}
"""Command and its preset."""
POLICY, PRETRAIN, ABLATION, COST, DATA_SETS = "policy", "pretrain", "ablation", "cost", "datasets"
"""Commands with options of their own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return FINISHED if arguments else USAGE
    command, rest = arguments[0], arguments[1:]
    own: dict[str, Callable[[list[str]], int]] = {
        PRETRAIN: _pretrain,
        POLICY: _policy,
        ABLATION: _ablation,
        COST: _cost,
        DATA_SETS: _data_sets,
    }
    if command not in (*COMMANDS, *own):
        known = ", ".join((*COMMANDS, *own))
        print(f"omnistream-train: unknown command {command!r}; expected one of {known}", file=sys.stderr)
        return USAGE
    try:
        return own[command](rest) if command in own else _run(command, rest)
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

    return exit_code(run_command(arguments))


def _pretrain(arguments: list[str]) -> int:
    from omnistream_training.pretrain.command import run_command

    return exit_code(run_command(arguments))


def _ablation(arguments: list[str]) -> int:
    from omnistream_training.ablation.command import run_command

    return exit_code(run_command(arguments))


def _cost(arguments: list[str]) -> int:
    from omnistream_training.pretrain.cost import run_command

    run_command(arguments)
    return FINISHED


def _data_sets(arguments: list[str]) -> int:
    """List the paper's data sets."""
    from omnistream_training.datasets import data_sets_page, data_sets_text

    def show(markdown: bool = False) -> None:
        """What the paper pre-trains on, by group: licences, and how a run reads each, or "not yet".

        Args:
            markdown: As the page docs/datasets.md.
        """
        print(data_sets_page() if markdown else "\n".join(data_sets_text()), end="" if markdown else "\n")

    tyro.cli(show, args=arguments, prog="omnistream-train datasets", config=(tyro.conf.FlagCreatePairsOff,))
    return FINISHED


def _run(command: str, arguments: list[str]) -> int:
    name, base = starting_point(arguments, preset, COMMANDS[command])
    defaults = Options(run=tyro.MISSING, preset=name, train=base)
    options = tyro.cli(Options, default=defaults, args=arguments, prog=f"omnistream-train {command}")
    config = options.train
    if config.model.start == "-":
        raise ConfigError("model.start is missing: name the checkpoint to start from (--model.start PATH)")
    if command == "heads" and not config.model.freeze_backbone:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, freeze_backbone=True))
    made_by = command_line(f"omnistream-train {command}", arguments, options.run)
    finished = run_geometry(config, options.run.expanduser(), options.where, fit_minutes=options.fit, made_by=made_by)
    return exit_code(finished)


if __name__ == "__main__":
    sys.exit(main())
