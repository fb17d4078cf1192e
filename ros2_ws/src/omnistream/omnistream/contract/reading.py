# SPDX-License-Identifier: Apache-2.0
"""A YAML or JSON file with a format and a version, as plain data."""

from __future__ import annotations

import json
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
