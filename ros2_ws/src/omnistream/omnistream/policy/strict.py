# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses from JSON data, strictly: what is unknown, missing or mistyped is refused by name."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, TypeVar

from omnistream.errors import ConfigError

T = TypeVar("T")


def build(cls: type[T], data: Any, where: str) -> T:
    """An instance of the dataclass `cls`, nested ones included. `where` names the data in errors (ConfigError)."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is {data!r}; expected a mapping")
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ConfigError(f"{where} has unknown field(s) {', '.join(unknown)}; known: {', '.join(known)}")
    missing = [
        name for name, f in known.items() if name not in data and f.default is f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where} lacks field(s) {', '.join(missing)}")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in data.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} is {value!r}; expected a list")
        inner = [options[0]] * len(value) if options[-1] is Ellipsis else list(options)
        if len(inner) != len(value):
            raise ConfigError(f"{where} is {value!r}; expected {len(inner)} values")
        return tuple(_value(o, v, f"{where}[{i}]") for i, (o, v) in enumerate(zip(inner, value, strict=True)))
    if options and type(None) in options:
        return None if value is None else _value(next(o for o in options if o is not type(None)), value, where)
    if hint is float and type(value) is int:
        return float(value)
    if hint in (int, float, bool, str) and type(value) is not hint:
        raise ConfigError(f"{where} is {value!r}; expected {hint.__name__}")
    return value
