# SPDX-License-Identifier: Apache-2.0
"""The contract as a YAML or JSON file: versioned, read strictly.

format: omnistream-contract
version: 1
rate: 10.0
cameras: [{name: front, height: 224, width: 224}]
state: [{name: joint_1, unit: rad}]
action:
  dimensions: [{name: x, unit: m}, {name: gripper, unit: "1"}]
  mode: delta
  frame: base_link
  grippers: [{index: 1, open: 1.0, closed: -1.0}]
state_statistics: null
action_statistics: {count: 100, minimum: [..], maximum: [..], mean: [..], std: [..], q01: [..], q99: [..]}
backbone: null
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from omnistream.contract.contract import Contract
from omnistream.errors import ContractError
from omnistream.io.files import write_bytes

FORMAT = "omnistream-contract"
VERSION = 1
LARGEST_FILE = 16 * 2**20
"""Bytes; a contract of a thousand dimensions has a hundredth of it."""


def load_contract(path: str | Path) -> Contract:
    """Read a contract file. ContractError names the file, the field, the value found and what was expected."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ContractError(f"{path}: {path.stat().st_size} bytes; a contract has at most {LARGEST_FILE}")
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        if isinstance(error, ContractError):
            raise
        raise ContractError(f"{path}: cannot be read as a contract: {' '.join(str(error).split())}") from error
    try:
        return contract_from_dict(data)
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from error


def save_contract(path: str | Path, contract: Contract) -> None:
    """Write a contract as YAML, or as JSON where the name ends in .json; atomically."""
    path = Path(path)
    data = contract_to_dict(contract)
    if path.suffix == ".json":
        text = json.dumps(data, indent=2) + "\n"
    else:
        text = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120)
    write_bytes(path, text.encode())


def contract_to_dict(contract: Contract) -> dict[str, Any]:
    """Plain lists, numbers and text."""
    return {"format": FORMAT, "version": VERSION} | _plain(dataclasses.asdict(contract))


def contract_from_dict(data: Any) -> Contract:
    """Inverse of `contract_to_dict`. ContractError for unknown or missing fields, wrong types, a newer version."""
    if not isinstance(data, Mapping):
        raise ContractError(f"contract is a {type(data).__name__}; expected a mapping")
    if data.get("format") != FORMAT:
        raise ContractError(f"format is {data.get('format')!r}; expected {FORMAT!r}")
    version = data.get("version")
    if type(version) is not int or version < 1:
        raise ContractError(f"version is {version!r}; expected an integer from 1 to {VERSION}")
    if version > VERSION:
        raise ContractError(f"version {version} is newer than this omnistream reads ({VERSION}); update omnistream")
    rest = {key: value for key, value in data.items() if key not in ("format", "version")}
    return _build(Contract, rest, "")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _build(kind: Any, data: Any, where: str) -> Any:
    """A value of the annotated type `kind` from plain data; `where` is the path to it, for messages."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(data, Mapping):
            raise ContractError(f"{where or 'contract'} is {data!r}; expected a mapping")
        known = {field.name: field for field in dataclasses.fields(kind)}
        unknown = sorted(map(str, set(data) - set(known)))
        if unknown:
            raise ContractError(f"unknown field {_at(where, unknown[0])}; expected {', '.join(known)}")
        missing = [name for name in known if name not in data]
        if missing:
            raise ContractError(f"field {_at(where, missing[0])} is missing")
        hints = typing.get_type_hints(kind)
        return kind(**{name: _build(hints[name], data[name], _at(where, name)) for name in known})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        if data is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise ContractError(f"{where} is {data!r}; expected a list")
        return tuple(_build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise ContractError(f"{where} is {data!r}; expected a value of type {kind.__name__}")
    return data


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
