# SPDX-License-Identifier: Apache-2.0
"""What the options of a training command change: a preset, a file's fields in it, or what a run already has."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from omnistream_training.config_file import load_config
from omnistream_training.running import CONFIG

T = TypeVar("T")


def starting_point(arguments: Sequence[str], preset: Callable[[str], T], default: str) -> tuple[str, T]:
    """Name of the preset, and the configuration that the command line's options are applied to.

    It is looked for before the options are parsed, as it decides their defaults. Where a word names a run, and neither
    --preset nor --config is given, it is that run's own, so that only what is said on the command line can differ. With
    one of them it is as for a new run: the words that began a run go on with it, and others are refused.

    Args:
        arguments: of the command.
        preset: configuration by name, raises ConfigError for one that is unknown.
        default: name without --preset.

    Raises:
        ConfigError: the preset is unknown; the file of --config, or the run's, cannot be read.
    """
    given, file = peek(arguments, "--preset"), peek(arguments, "--config")
    name = given or default
    base = preset(name)
    if file is not None:
        base = load_config(Path(file).expanduser(), base)
    if (given or file) and peek(arguments, "--fit") is None:  # a fitted run differs from what was asked for
        return name, base
    words = (Path(word).expanduser() / CONFIG for word in arguments if not word.startswith("-"))
    stored = next((path for path in words if path.is_file()), None)
    return name, base if stored is None else load_config(stored, type(base)())


def command_line(command: str, arguments: Sequence[str], run: Path) -> str:
    """What was typed, for the provenance of weights, with RUN in place of the run's folder."""
    return shlex.join([*command.split(), *("RUN" if Path(word) == run else word for word in arguments)])


def peek(arguments: Sequence[str], name: str) -> str | None:
    """Value of an option that decides the defaults of the others."""
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(name + "="):
            return argument.split("=", 1)[1]
    return None
