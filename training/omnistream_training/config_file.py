# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses from and to YAML, strictly: an unknown or mistyped field is an error that names it."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from omnistream.errors import ConfigError

T = TypeVar("T")


def config_to_dict(config: Any) -> dict[str, Any]:
    """Plain YAML data; tuples become lists."""
    return yaml.safe_load(yaml.safe_dump(_plain(dataclasses.asdict(config))))


def merge(default: T, data: dict[str, Any], where: str = "config") -> T:
    """`default` with the fields that `data` names replaced, nested dataclasses field by field.

    A tuple of dataclasses (the stages) is replaced as a whole. Raises ConfigError.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is {data!r}; expected a mapping")
    hints = typing.get_type_hints(type(default))
    known = {f.name for f in dataclasses.fields(default)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - known)
    if unknown:
        raise ConfigError(f"{where} has unknown field(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    changes = {k: _value(hints[k], v, getattr(default, k), f"{where}.{k}") for k, v in data.items()}
    return dataclasses.replace(default, **changes)  # type: ignore[type-var]


def load_config(path: Path, default: T) -> T:
    """`merge` with the content of a YAML file. ConfigError names the file."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return merge(default, data or {}, str(path))


def same_config(stored: dict[str, Any], config: Any) -> bool:
    """Whether `config_to_dict` of this or an older release made `stored` of an equal configuration.

    A field that is newer than `stored` has its default there: what it was before there was a choice.
    """
    try:
        return config_to_dict(merge(type(config)(), stored)) == config_to_dict(config)
    except ConfigError:  # a field that is no longer there
        return False


def save_config(config: Any, path: Path) -> None:
    """Every field, in the order of the dataclass."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config_to_dict(config), sort_keys=False), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _value(hint: Any, value: Any, default: Any, where: str) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return merge(default, value, where) if dataclasses.is_dataclass(default) else _build(hint, value, where)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        inner = next(o for o in options if o is not type(None))
        return _value(inner, value, default, where)
    if origin is typing.Literal:
        if value not in options:
            raise ConfigError(f"{where} is {value!r}; expected one of {', '.join(map(repr, options))}")
        return value
    if origin is tuple:
        return _tuple(options, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}; expected a mapping")
        return {
            _value(options[0], k, None, where): _value(options[1], v, None, f"{where}.{k}") for k, v in value.items()
        }
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as a string
        except ValueError:
            raise ConfigError(f"{where} is {value!r}; expected a number") from None
    if hint in (int, float, str, bool) and (type(value) is not hint):
        raise ConfigError(f"{where} is {value!r}; expected {hint.__name__}")
    return value


def _tuple(options: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} is {value!r}; expected a list")
    if len(options) == 2 and options[1] is Ellipsis:
        return tuple(_value(options[0], item, None, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(options):
        raise ConfigError(f"{where} is {value!r}; expected {len(options)} values")
    pairs = zip(options, value, strict=True)
    return tuple(_value(option, item, None, f"{where}[{i}]") for i, (option, item) in enumerate(pairs))


def _build(cls: Any, data: Any, where: str) -> Any:
    """A dataclass without a default to start from, as in a list."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is {data!r}; expected a mapping")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(fields))
    missing = [n for n, f in fields.items() if n not in data and f.default is f.default_factory is dataclasses.MISSING]
    if unknown or missing:
        raise ConfigError(f"{where}: unknown field(s) {unknown}, missing {missing}; known: {', '.join(fields)}")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _value(hints[name], value, None, f"{where}.{name}") for name, value in data.items()})
