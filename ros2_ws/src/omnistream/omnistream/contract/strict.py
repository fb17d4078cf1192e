# SPDX-License-Identifier: Apache-2.0
"""Dataclasses from YAML and JSON, read strictly: what is unknown, missing or of the wrong type is named."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from omnistream.errors import ContractError

LARGEST_FILE = 4 * 2**20
"""Bytes; a contract of a thousand dimensions has a tenth of it."""


def load_mapping(path: str | Path) -> dict[str, Any]:
    """A YAML file, or JSON where the name ends in .json, that holds a mapping. ContractError names the file."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ContractError(f"{path}: {size} bytes; expected at most {LARGEST_FILE}")
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except ContractError:
        raise
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ContractError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ContractError(f"{path}: holds a {type(data).__name__}; expected a mapping")
    return data


def check_version(data: Mapping[str, Any], format_: str, version: int) -> None:
    """ContractError unless `data` says format: format_ and a version from 1 to `version`."""
    if data.get("format") != format_:
        raise ContractError(f"format is {data.get('format')!r}; expected {format_!r}")
    found = data.get("version")
    if type(found) is not int or found < 1:
        raise ContractError(f"version is {found!r}; expected an integer from 1 to {version}")
    if found > version:
        raise ContractError(f"version {found} is newer than this omnistream reads ({version}); update omnistream")


def build(kind: Any, data: Any, where: str = "") -> Any:
    """A value of the annotated type `kind` from plain data; fields with a default may be left out.

    Knows dataclasses, tuples of one type, X | None, float, int, str and bool. `where` is the path, for messages.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, data, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        if data is None and type(None) in arguments:
            return None
        return build(next(a for a in arguments if a is not type(None)), data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise ContractError(f"{where} is {data!r}; expected a list")
        return tuple(build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise ContractError(f"{where} is {data!r}; expected a value of type {kind.__name__}")
    return data


def _dataclass(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ContractError(f"{where or kind.__name__} is {data!r}; expected a mapping")
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(map(str, set(data) - set(known)))
    if unknown:
        raise ContractError(f"unknown field {_at(where, unknown[0])}; expected {', '.join(known)}")
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ContractError(f"field {_at(where, name)} is missing")
    hints = typing.get_type_hints(kind)
    return kind(**{name: build(hints[name], data[name], _at(where, name)) for name in known if name in data})


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
