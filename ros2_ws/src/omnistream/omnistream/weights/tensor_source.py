# SPDX-License-Identifier: Apache-2.0
"""Named tensors on disk, described without reading them and read one at a time.

A safetensors file is an 8-byte little-endian length, a JSON header {name: {dtype, shape, data_offsets}}, and the bytes.
The header alone tells whether the file is whole and whether it fits a model, so gigabytes are read only when they do.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from omnistream.errors import CheckpointError
from omnistream.weights.files import read_json

Shape = tuple[int, ...]

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself; a larger length means that the file is not safetensors."""

FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
TORCH_DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor; `dtype` is safetensors' name for it (F32, F16, BF16, ...)."""

    dtype: str
    shape: Shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TensorSource:
    """A set of named tensors in one or several files."""

    where: str
    """How errors name it: the file, or the index of a sharded set."""
    files: tuple[Path, ...]
    tensors: dict[str, TensorInfo]
    _read: Callable[[str], Tensor] = field(repr=False)

    def read(self, name: str) -> Tensor:
        """The tensor in float32, contiguous, in memory of its own (a later change of the file cannot reach it)."""
        return self._read(name).to(torch.float32, copy=True).contiguous()

    def renamed(self, names: dict[str, str]) -> TensorSource:
        """The same tensors under other names; `names` maps old to new and must name every tensor."""
        old = {new: previous for previous, new in names.items()}
        if len(old) < len(names):
            twice = [name for name, new in names.items() if old[new] != name]
            raise CheckpointError(f"{self.where} holds {twice[0]!r} in two namings")
        infos = {names[name]: info for name, info in self.tensors.items()}
        return TensorSource(self.where, self.files, infos, lambda name: self._read(old[name]))


def safetensors_file(path: Path) -> TensorSource:
    """One safetensors file. Raises `CheckpointError` when it is not one, or is truncated."""
    return _safetensors_set(str(path), {path: read_header(path)})


def safetensors_directory(directory: Path) -> TensorSource:
    """`model.safetensors` in `directory`, or the shards that `model.safetensors.index.json` lists there."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        return safetensors_file(single)
    if index.is_file():
        return _sharded(directory, index)
    others = sorted(p.name for p in directory.iterdir() if p.suffix in (".bin", ".pth", ".pt", ".safetensors"))
    found = f"; found {', '.join(others[:8])}" if others else ""
    raise CheckpointError(f"{directory} has no model.safetensors and no model.safetensors.index.json{found}")


def pth_file(path: Path) -> TensorSource:
    """A flat state dict saved by `torch.save`, read by torch's weights-only loader: no code in it can run."""
    try:
        data: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is refused by the weights-only loader: {_pickle_reason(error)}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}; expected a flat dict of tensors")
    foreign = [f"{key!r} ({type(value).__name__})" for key, value in data.items() if not isinstance(value, Tensor)]
    foreign += [repr(key) for key, value in data.items() if isinstance(value, Tensor) and not isinstance(key, str)]
    if foreign or not data:
        shown = ", ".join(foreign[:8]) or "nothing"
        raise CheckpointError(f"{path} holds {shown} at its top level; expected a flat dict of tensors")
    infos = {
        name: TensorInfo(TORCH_DTYPE_NAMES.get(t.dtype, str(t.dtype).removeprefix("torch.")), tuple(t.shape))
        for name, t in data.items()
    }
    return TensorSource(str(path), (path,), infos, lambda name: data[name].detach())


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Names, dtypes and shapes in a safetensors file; checks that every byte that the header promises is there."""
    try:
        actual = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise CheckpointError(f"{path} has {actual} bytes; too short for a safetensors file (truncated?)")
            (length,) = struct.unpack("<Q", start)
            if length > MAX_HEADER_BYTES:
                raise CheckpointError(f"{path} is not a safetensors file (its header would have {length} bytes)")
            if 8 + length > actual:
                raise CheckpointError(f"{path} is truncated: its header needs {8 + length} bytes, it has {actual}")
            header = _parse_header(path, file.read(length))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    end = 0
    infos = {}
    for name, entry in header.items():
        infos[name], stop = _parse_entry(path, name, entry)
        end = max(end, stop)
    if 8 + length + end != actual:
        kind = "truncated" if actual < 8 + length + end else "followed by foreign bytes"
        raise CheckpointError(f"{path} is {kind}: its header describes {8 + length + end} bytes, the file has {actual}")
    return infos


def _parse_header(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a safetensors file (its header is not JSON)") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is not a safetensors file (its header is a {type(header).__name__})")
    header.pop("__metadata__", None)
    return header


def _parse_entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int]:
    try:
        dtype, shape, (begin, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
        good = all(type(n) is int and n >= 0 for n in (*shape, begin, end)) and begin <= end
    except (TypeError, KeyError, ValueError):
        good = False
    if not good:
        raise CheckpointError(f"{path}: the header entry of {name!r} is damaged: {str(entry)[:120]}")
    info = TensorInfo(dtype, shape)
    if dtype in FLOAT_BYTES and end - begin != FLOAT_BYTES[dtype] * info.size:
        raise CheckpointError(f"{path}: {name!r} is {dtype} {shape} but has {end - begin} bytes")
    return info, end


def _sharded(directory: Path, index: Path) -> TensorSource:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index} has no 'weight_map' from tensor names to file names")
    shards: dict[Path, dict[str, TensorInfo]] = {}
    for shard in sorted(set(weight_map.values())):
        # An index may come from anywhere: it names files beside itself, never paths.
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(f"{index} names the shard {shard!r}; expected a .safetensors file beside the index")
        if not (directory / shard).is_file():
            raise CheckpointError(f"{index} names the shard {shard!r}, which is missing in {directory}")
        shards[directory / shard] = read_header(directory / shard)
    for name, shard in weight_map.items():
        if name not in shards[directory / shard]:
            raise CheckpointError(f"{index} places {name!r} in {shard}, which does not hold it")
    for path, infos in shards.items():
        for name in infos:
            if weight_map.get(name) != path.name:
                raise CheckpointError(f"{path} holds {name!r}, which {index.name} does not place there")
    return _safetensors_set(str(index), shards)


def _safetensors_set(where: str, files: dict[Path, dict[str, TensorInfo]]) -> TensorSource:
    holder = {name: path for path, infos in files.items() for name in infos}
    infos = {name: info for part in files.values() for name, info in part.items()}

    def read(name: str) -> Tensor:
        try:
            with safe_open(holder[name], framework="pt") as file:
                return file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{holder[name]}: {name!r} cannot be read: {error}") from error

    return TensorSource(where, tuple(files), infos, read)


def _pickle_reason(error: Exception) -> str:
    """What is wrong with the file. Torch's own text is mostly about how to switch its protection off."""
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it asks for {named[1]}, and a file of plain tensors needs no such thing"
    if isinstance(error, pickle.UnpicklingError | EOFError):
        return "it is not a file of plain tensors saved by torch.save"
    return str(error).partition(". ")[0].strip() or type(error).__name__


def torch_dtype(name: str) -> torch.dtype:
    """`float32`, `float16` or `bfloat16` as torch's dtype."""
    known: Sequence[str] = ("float32", "float16", "bfloat16")
    if name not in known:
        raise CheckpointError(f"dtype {name!r} is unknown; expected one of {', '.join(known)}")
    return getattr(torch, name)
