# SPDX-License-Identifier: Apache-2.0
"""The policy node's parameters without ROS: from a parameter file, a run log, and the defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from omnistream.errors import ConfigError, InputError
from omnistream.policy.settings import DEFAULTS


def read_parameter_file(path: Path, node: str) -> dict[str, Any]:
    """What a ROS 2 parameter file says to `node` (fully qualified); names of nested ones have dots.

    InputError where it is no such file; ConfigError, with the nodes that it has, where it says nothing to this one.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as a parameter file: {error}") from error
    sections = dict(_sections(data, "")) if isinstance(data, dict) else {}
    if not sections:
        raise InputError(f"{path} is no ROS 2 parameter file; expected NODE: ros__parameters: {{...}}")
    mine = [name for name in sections if _matches(name, node)]
    if not mine:
        raise ConfigError(f"{path} says nothing to {node}; it has {', '.join(sections)}: choose one with --node")
    found: dict[str, Any] = {}
    for name in sorted(mine, key=lambda name: "*" not in name):
        found |= dict(_flat(sections[name], ""))
    return found


def complete(*given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults, and over them what was given, the last most. ConfigError for a value of another type."""
    values: dict[str, Any] = {"policy": ""} | DEFAULTS
    for one in given:
        values |= one
    for name, default in DEFAULTS.items():
        value = values[name]
        if value is None and isinstance(default, list):
            values[name] = value = []
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            values[name] = value = float(value)
        if not isinstance(value, type(default)):
            raise ConfigError(f"parameter {name} is {value!r}; expected {type(default).__name__}")
    return values


def _matches(pattern: str, node: str) -> bool:
    """`*` stands for one part of a name, `**` for any number of them, as in ROS 2."""
    parts = {"**": "(/[^/]+)*", "*": "/[^/]+"}
    expression = "".join(parts.get(part, "/" + re.escape(part)) for part in pattern.strip("/").split("/"))
    return re.fullmatch(expression, node) is not None


def _sections(data: Mapping[Any, Any], prefix: str) -> Any:
    for key, value in data.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, dict):
            if isinstance(value.get("ros__parameters"), dict):
                yield name, value["ros__parameters"]
            else:
                yield from _sections(value, name)


def _flat(values: Mapping[Any, Any], prefix: str) -> Any:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
