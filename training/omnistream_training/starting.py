# SPDX-License-Identifier: Apache-2.0
"""What the options of a training command change: a preset, a file's fields in it, or what a run already has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from omnistream_training.config_file import load_config
from omnistream_training.running import CONFIG

T = TypeVar("T")


def starting_point(arguments: Sequence[str], preset: Callable[[str], T], default: str) -> tuple[str, T]:
    """Name of the preset, and the configuration that the command line's options are applied to.

    It is looked for before the options are parsed, as it decides their defaults. Where a word names a run, it is that
    run's own, so that only what is said on the command line can differ.

    Args:
        arguments: of the command.
        preset: configuration by name, raises ConfigError for one that is unknown.
        default: name without --preset.

    Raises:
        ConfigError: the preset is unknown; the file of --config, or the run's, cannot be read.
    """
    name = peek(arguments, "--preset") or default
    base = preset(name)
    file = peek(arguments, "--config")
    if file is not None:
        base = load_config(Path(file).expanduser(), base)
    words = (Path(word).expanduser() / CONFIG for word in arguments if not word.startswith("-"))
    stored = next((path for path in words if path.is_file()), None)
    return name, base if stored is None else load_config(stored, type(base)())


def peek(arguments: Sequence[str], name: str) -> str | None:
    """Value of an option that decides the defaults of the others."""
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(name + "="):
            return argument.split("=", 1)[1]
    return None
