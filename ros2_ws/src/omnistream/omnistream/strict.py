# SPDX-License-Identifier: Apache-2.0
"""Dataclasses from plain data (JSON, YAML), strictly: what is unknown, missing or of the wrong type is named."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from omnistream.errors import ConfigError, OmniStreamError

T = TypeVar("T")


def build(cls: type[T], data: Any, where: str, error: type[OmniStreamError] = ConfigError) -> T:
    """An instance of the dataclass `cls`, nested ones included; fields with a default may be left out.

    Checks dataclasses, tuples, X | None, float (an int will do), int, str and bool; values of any other annotation are
    taken as they are, for `cls` itself to check.

    Args:
        data: a mapping of plain values.
        where: names the data in errors: "policy" gives "policy.head.widths[2] is ...".
        error: what is raised.
    """
    if not isinstance(data, Mapping):
        raise error(f"{where} is {data!r}; expected a mapping")
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(map(str, set(data) - set(known)))
    if unknown:
        raise error(f"{where} has unknown field(s) {', '.join(unknown)}; known: {', '.join(known)}")
    missing = [
        name for name, f in known.items() if name not in data and f.default is f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise error(f"{where} lacks field(s) {', '.join(missing)}")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _value(hints[name], value, f"{where}.{name}", error) for name, value in data.items()})


def _value(hint: Any, value: Any, where: str, error: type[OmniStreamError]) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where, error)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise error(f"{where} is {value!r}; expected a list")
        inner = [options[0]] * len(value) if options[-1] is Ellipsis else list(options)
        if len(inner) != len(value):
            raise error(f"{where} is {value!r}; expected {len(inner)} values")
        return tuple(_value(o, v, f"{where}[{i}]", error) for i, (o, v) in enumerate(zip(inner, value, strict=True)))
    if type(None) in options:
        return None if value is None else _value(next(o for o in options if o is not type(None)), value, where, error)
    if hint is float and type(value) is int:
        return float(value)
    if hint in (int, float, bool, str) and type(value) is not hint:
        raise error(f"{where} is {value!r}; expected {hint.__name__}")
    return value
