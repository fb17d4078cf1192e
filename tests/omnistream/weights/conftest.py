# SPDX-License-Identifier: Apache-2.0
"""Tools to build, change and break checkpoint directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnistream.errors import CheckpointError
from omnistream.weights import load_model

Directory = Callable[[dict[str, Any], dict[str, Tensor]], Path]


@pytest.fixture
def write_directory(tmp_path: Path) -> Callable[..., Path]:
    """write_directory(config, tensors, shards=1) -> a directory as others write it: config.json and safetensors."""

    def write(config: dict[str, Any], tensors: dict[str, Tensor], shards: int = 1) -> Path:
        directory = tmp_path / "checkpoint"
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps(config))
        if shards == 1:
            save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
            return directory
        names = sorted(tensors)
        weight_map = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
        for shard in set(weight_map.values()):
            save_file({n: tensors[n] for n in names if weight_map[n] == shard}, directory / shard)
        index = {"metadata": {}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        return directory

    return write


@pytest.fixture
def edit_config() -> Callable[..., None]:
    """edit_config(directory, field=value, ...): change fields of config.json; None stays, `...` removes the field."""

    def edit(directory: Path, **fields: Any) -> None:
        path = directory / "config.json"
        data = json.loads(path.read_text())
        for name, value in fields.items():
            if value is ...:
                del data[name]
            else:
                data[name] = value
        path.write_text(json.dumps(data))

    return edit


@pytest.fixture
def edit_tensors() -> Callable[[Path, Callable[[dict[str, Tensor]], None]], None]:
    """edit_tensors(directory, change): `change` edits the dict of tensors in model.safetensors in place."""

    def edit(directory: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors")

    return edit


@pytest.fixture
def refused() -> Callable[..., str]:
    """refused(path, *parts): loading fails with a CheckpointError whose message has every part; returns the message."""

    def check(path: Path, *parts: str, load: Callable[[Path], Any] = load_model) -> str:
        with pytest.raises(CheckpointError) as caught:
            load(path)
        message = str(caught.value)
        for part in parts:
            assert part in message, message
        return message

    return check


@pytest.fixture
def sharp() -> Callable[[dict[str, Tensor], int], dict[str, Tensor]]:
    """sharp(tensors, seed) -> the same names and shapes with values that make attention sharp and nothing vanish."""

    def values(tensors: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        result = {}
        for name, tensor in tensors.items():
            noise = torch.randn(tensor.shape, generator=generator)
            if "gamma" in name or "lambda1" in name:
                result[name] = 0.6 + 0.1 * noise
            elif "norm" in name and name.endswith("weight"):
                result[name] = 1 + 0.1 * noise
            elif "token" in name:
                result[name] = noise
            elif tensor.ndim == 1:
                result[name] = 0.1 * noise
            else:
                gain = 1.5 if any(part in name for part in ("qkv", "q_proj", "k_proj")) else 1.0
                result[name] = gain * noise / tensor[0].numel() ** 0.5
        return result

    return values
