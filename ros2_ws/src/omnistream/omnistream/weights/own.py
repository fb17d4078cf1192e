# SPDX-License-Identifier: Apache-2.0
"""Our checkpoint: a directory with config.json and model.safetensors, and nothing else needed to run the model.

config.json
    format          "omnistream"
    format_version  1; a reader refuses a newer one
    model           ModelConfig as a mapping (sizes, heads, camera token, image size, mean, std, scale)
    outputs         what it can give: ["features"] or ["features", "depth", "rays", "pose"]
    weights_sha256  of model.safetensors, which is checked when it is read
    weights_dtype   float32, float16 or bfloat16 on disk; in memory always float32
    made_by         the command or function that wrote it
    made_with       {omnistream: version}
    parent          null, or {kind, name, files: {name: sha256}} of the checkpoint that it was made from
model.safetensors
    the state dict of OmniStream(model): "backbone.*" and, with heads, "heads.*"
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

import omnistream
from omnistream.errors import CheckpointError, ConfigError
from omnistream.model.config import ModelConfig, config_from_dict, config_to_dict
from omnistream.model.omnistream import OmniStream
from omnistream.weights.checkpoint import Checkpoint
from omnistream.weights.files import (
    check_replaceable,
    home_expanded,
    new_directory,
    read_json,
    sha256_of,
    write_tensors,
)
from omnistream.weights.keymap import KeyMap, listing
from omnistream.weights.shapes import model_shapes
from omnistream.weights.tensor_source import safetensors_file, torch_dtype

FORMAT = "omnistream"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "format_version": int,
    "model": dict,
    "outputs": list,
    "weights_sha256": str,
    "weights_dtype": str,
    "made_by": str,
    "made_with": dict,
    "parent": (dict, type(None)),
}


def save_model(
    model: OmniStream,
    directory: str | Path,
    *,
    dtype: str = "float32",
    made_by: str = "omnistream.weights.save_model",
    parent: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write `model` to `directory`, whole or not at all; returns the directory.

    dtype: on disk: float32, float16 or bfloat16. float32 is bit-exact.
    overwrite: replace an existing checkpoint of ours; anything else is never replaced.
    Raises `CheckpointError` if `directory` is taken or cannot be written, or if a value is not finite as `dtype`.
    """
    return write_checkpoint(
        model.config, model.state_dict(), directory, dtype=dtype, made_by=made_by, parent=parent, overwrite=overwrite
    )


def write_checkpoint(
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    directory: str | Path,
    *,
    dtype: str,
    made_by: str,
    parent: Mapping[str, Any] | None,
    overwrite: bool,
) -> Path:
    """As `save_model`, from a state dict of `OmniStream(config)`."""
    target = home_expanded(directory)
    check_replaceable(target, overwrite, CONFIG_FILE, FORMAT, "an omnistream checkpoint")
    stored = _to_disk_dtype(config, tensors, torch_dtype(dtype), dtype)
    try:
        with new_directory(target, replace=overwrite) as partial:
            write_tensors(partial / WEIGHTS_FILE, stored)
            data = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "model": config_to_dict(config),
                "outputs": list(config.outputs),
                "weights_sha256": sha256_of(partial / WEIGHTS_FILE),
                "weights_dtype": dtype,
                "made_by": made_by,
                "made_with": {"omnistream": omnistream.__version__},
                "parent": parent,
            }
            (partial / CONFIG_FILE).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{target} cannot be written: {error}") from error
    return target


def open_own(directory: Path) -> Checkpoint:
    """Read and check config.json and the header of the weights."""
    path = directory / CONFIG_FILE
    data = read_json(path)
    _check_fields(path, data)
    try:
        config = config_from_dict(data["model"])
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if data["outputs"] != list(config.outputs):
        raise CheckpointError(f"{path}: outputs are {data['outputs']}; this model gives {list(config.outputs)}")
    if not (directory / WEIGHTS_FILE).is_file():
        raise CheckpointError(f"{directory} has no {WEIGHTS_FILE}")
    mapping = KeyMap()
    for name, shape in model_shapes(config).items():
        mapping.copy(name, shape, name)
    source = safetensors_file(directory / WEIGHTS_FILE)
    return Checkpoint(directory, FORMAT, config, source, mapping, data["weights_sha256"], data)


def _check_fields(path: Path, data: dict[str, Any]) -> None:
    if data.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format is {data.get('format')!r}; expected {FORMAT!r}")
    version = data.get("format_version")
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{path}: format_version is {version!r}; expected an integer from 1 to {FORMAT_VERSION}")
    # Before anything else: what a newer format means by its fields is unknown here.
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version {version} is newer than this version of omnistream reads ({FORMAT_VERSION}); "
            "update omnistream"
        )
    missing = [name for name in FIELDS if name not in data]
    if missing:
        raise CheckpointError(f"{path} lacks {listing('fields', missing)}")
    unknown = sorted(set(data) - set(FIELDS))
    if unknown:
        raise CheckpointError(f"{path} has unknown {listing('fields', unknown)}")
    for name, kind in FIELDS.items():
        if not isinstance(data[name], kind):
            expected = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            raise CheckpointError(f"{path}: {name} is {data[name]!r}; expected a value of type {expected}")


def _to_disk_dtype(
    config: ModelConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype, dtype_name: str
) -> dict[str, Tensor]:
    expected = model_shapes(config)
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if found != expected:
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise CheckpointError(f"the state dict does not fit its configuration: {listing('tensors', wrong)}")
    stored = {name: t.detach().to("cpu", dtype).contiguous() for name, t in tensors.items()}
    bad = [name for name, t in stored.items() if not bool(torch.isfinite(t).all())]
    if bad:
        raise CheckpointError(f"not saved: values are not finite as {dtype_name}: {listing('tensors', bad)}")
    return stored
