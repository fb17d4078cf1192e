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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from omnistream.contract.contract import Contract
from omnistream.contract.reading import check_version, load_mapping
from omnistream.errors import ContractError
from omnistream.io.files import write_bytes
from omnistream.strict import build

FORMAT = "omnistream-contract"
VERSION = 1


def load_contract(path: str | Path) -> Contract:
    """Read a contract file. ContractError names the file, the field, the value found and what was expected."""
    data = load_mapping(path)
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
    check_version(data, FORMAT, VERSION)
    rest = {key: value for key, value in data.items() if key not in ("format", "version")}
    return build(Contract, rest, "contract", ContractError)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
