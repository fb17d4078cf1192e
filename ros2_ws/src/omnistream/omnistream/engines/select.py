# SPDX-License-Identifier: Apache-2.0
"""Which engine, device and dtype run here, and why the others do not.

    auto          GPU: torch. CPU with bfloat16 units: torch in bfloat16. Other CPUs: onnxruntime where graphs of this
                  model and image size are exported (in int8 rather than float32), else torch in float32.
    torch         the model itself.
    onnxruntime   graphs of `omnistream-export onnx`, on the CPU. They are looked for in the folder `graphs` beside the
                  checkpoint; `onnxruntime:DIR` names another place: one export, or a folder of several.
    tensorrt      plans of those graphs, built on the robot by `omnistream-export tensorrt`; `tensorrt:DIR` likewise.
                  Not yet run on a GPU (docs/tensorrt.md), so `auto` does not take it.

A choice is by what the machine has, never by a measurement at start: the same robot runs the same numbers every day.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from omnistream.engines.base import Engine
from omnistream.engines.bound_graph import INSTALL, import_onnxruntime
from omnistream.engines.graphs import FOLDER, GraphSet, export_command, find_graphs
from omnistream.engines.onnxruntime_engine import OnnxRuntimeEngine
from omnistream.engines.tensorrt_api import load_tensorrt, version
from omnistream.engines.tensorrt_engine import open_tensorrt
from omnistream.engines.torch_engine import DTYPES, TorchEngine
from omnistream.errors import EngineError
from omnistream.model.omnistream import OmniStream
from omnistream.weights.identity import model_hash

ENGINES = ("auto", "torch", "onnxruntime", "tensorrt")
FROM_GRAPHS = ("onnxruntime", "tensorrt")
INT8 = "int8"
NUMBER_FORMATS = ("auto", *DTYPES, INT8)
"""What a user may ask for; int8 is of linear layers, in graphs exported so."""
BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16")
WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of ONEDNN_MAX_CPU_ISA that forbid torch's library for matrix products to use those units."""

Size = tuple[int, int, int]
"""(batch, height, width) of the frames a stream will take."""


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags as Linux names them; empty where that file does not exist."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "").split())


def bfloat16_units() -> list[str]:
    """The CPU's units for bfloat16 that torch may use, as flags."""
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in WITHOUT_BFLOAT16:
        return []
    return [flag for flag in BFLOAT16_UNITS if flag in cpu_flags()]


def choose_device(name: str = "auto") -> torch.device:
    """`auto`: the first CUDA GPU, else the CPU. A named device that is not there is an EngineError."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EngineError(f"device {name!r} is not understood ({error}); expected auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise EngineError(f"device {name!r} is not supported; expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EngineError(f"device {name!r} was asked for, but torch sees no CUDA GPU; use device cpu or auto")
    return torch.device("cuda:0") if name == "cuda" else device


def choose_dtype(name: str, device: torch.device, engine: str = "auto") -> torch.dtype:
    """`auto`: bfloat16 on GPUs that have it and on CPUs with matrix units for it (AMX, AVX512-BF16), else float32.

    The engine onnxruntime has no bfloat16: float32 there. So is the cache of graphs whose linear layers are in int8.
    """
    if name == INT8:
        return torch.float32
    if name != "auto":
        if name not in DTYPES:
            raise EngineError(f"dtype {name!r} is unknown; expected one of {', '.join(NUMBER_FORMATS)}")
        return DTYPES[name]
    if engine.partition(":")[0] == "onnxruntime":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if bfloat16_units() else torch.float32


def make_engine(
    model: OmniStream, engine: str = "auto", device: str = "auto", dtype: str = "auto", size: Size | None = None
) -> Engine:
    """Build the engine by name; EngineError says what is missing.

    size: of the frames, where it is known already. `auto` may choose better then (see `depends_on_size`).
    """
    name, _, place = engine.partition(":")
    if name not in ENGINES or (place and name not in FROM_GRAPHS):
        places = ", ".join(f"{each}:DIR" for each in FROM_GRAPHS)
        raise EngineError(f"engine {engine!r} is unknown; expected one of {', '.join(ENGINES)}, {places}")
    if dtype == INT8 and name in ("torch", "tensorrt"):
        raise EngineError(f"dtype int8 is the engine onnxruntime's, on graphs exported so; {name} has none")
    if name == "auto" and dtype == INT8:
        name = "onnxruntime"
    if name == "tensorrt":
        load_tensorrt()  # the first thing that is missing on most machines
        folder = _folder(place) if place else _folder_of(model, name)
        return open_tensorrt(model.config, _graphs_of(model, folder, "float16" if dtype == "auto" else dtype), device)
    where = choose_device(device)
    if name == "onnxruntime":
        if where.type != "cpu" and device != "auto":
            raise EngineError(f"engine onnxruntime runs on the CPU, not on {where}; use engine torch there")
        sets = _graphs_of(model, _folder(place) if place else _folder_of(model), dtype)
        return OnnxRuntimeEngine(model.config, sets)
    if name == "auto" and size is not None and depends_on_size(model, engine, device, dtype):
        sets = [graphs for graphs in _graphs_for_auto(model, dtype) if graphs.size == size]
        if sets:
            return OnnxRuntimeEngine(model.config, [graphs for graphs in sets if graphs.dtype == sets[0].dtype])
    return TorchEngine(model, where, choose_dtype(dtype, where))


def depends_on_size(model: OmniStream, engine: str, device: str, dtype: str) -> bool:
    """Whether `make_engine` would choose by the size of the frames: on a CPU without bfloat16, beside graphs."""
    where = choose_device(device)
    if engine != "auto" or dtype == INT8 or where.type != "cpu" or choose_dtype(dtype, where) is not torch.float32:
        return False
    return bool(_graphs_for_auto(model, dtype))


def _graphs_for_auto(model: OmniStream, dtype: str) -> list[GraphSet]:
    """Graphs beside the checkpoint that `auto` may take on a CPU without bfloat16 units, those it prefers first."""
    if model.checkpoint is None or not _folder_of(model).is_dir():
        return []
    found = []
    for wanted in (INT8, "float32") if dtype == "auto" else (dtype,):
        try:
            import_onnxruntime()
            found += _graphs_of(model, _folder_of(model), wanted)
        except EngineError:  # `auto` takes what works; `onnxruntime` says why it does not
            continue
    return found


def _folder(place: str) -> Path:
    """A directory that the user named."""
    try:
        return Path(place).expanduser()
    except RuntimeError as error:  # ~somebody, who has no home here
        raise EngineError(f"{place} does not exist: {error}") from error


def _folder_of(model: OmniStream, engine: str = "onnxruntime") -> Path:
    """Where the graphs of `model` are looked for."""
    path = model.checkpoint
    if path is None:
        raise EngineError(
            f"engine {engine} looks for graphs beside the checkpoint, and this model comes from none; "
            f"name their directory: {engine}:DIR"
        )
    return (path if path.is_dir() else path.parent) / FOLDER


def _graphs_of(model: OmniStream, folder: Path, dtype: str) -> list[GraphSet]:
    """The graphs in `folder` that are of this model and dtype (`auto`: float32), one for each size."""
    sets = find_graphs(folder)
    height = width = model.config.image_size
    if not sets:
        raise EngineError(f"{folder} holds no graphs; export them: {export_command(height, width, 'window:16')}")
    wanted = "float32" if dtype == "auto" else dtype
    of_dtype = [graphs for graphs in sets if graphs.dtype == wanted]
    if not of_dtype:
        found = ", ".join(sorted({graphs.dtype for graphs in sets}))
        raise EngineError(f"{folder} holds graphs in {found}, none in {wanted}; choose that dtype or export again")
    digest = model_hash(model)
    of_model = [graphs for graphs in of_dtype if graphs.model_hash == digest]
    if not of_model:
        of_dtype[0].check_model(digest)
    return of_model


@dataclass(frozen=True)
class EngineStatus:
    """One line for `omnistream-info`: whether an engine can run here, and why (not)."""

    name: str
    available: bool
    reason: str

    def __str__(self) -> str:
        return f"{'yes' if self.available else 'no'}: {self.reason}"


def engine_report() -> list[EngineStatus]:
    """Every engine, and what `auto` comes to on this machine. Never raises."""
    device = choose_device("auto")
    dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
    units = bfloat16_units()
    if device.type == "cuda":
        auto = f"torch on {device} in {dtype}: {torch.cuda.get_device_name(device)}"
    elif units:
        auto = f"torch on cpu in {dtype}: the CPU has {' and '.join(units)}"
    else:
        auto = (
            f"torch on cpu in {dtype}, as the CPU has no bfloat16 units; "
            "onnxruntime where graphs are exported beside the checkpoint"
        )
    try:
        ort = import_onnxruntime()
        onnxruntime = EngineStatus("onnxruntime", True, f"{ort.__version__}; needs exported graphs")
    except EngineError:
        onnxruntime = EngineStatus("onnxruntime", False, f"not installed ({INSTALL})")
    try:
        found = version(load_tensorrt())
        tensorrt = EngineStatus("tensorrt", device.type == "cuda", f"{found}; needs a GPU and plans built on it")
    except EngineError as error:
        tensorrt = EngineStatus("tensorrt", False, str(error))
    return [
        EngineStatus("torch", True, torch.__version__),
        onnxruntime,
        tensorrt,
        EngineStatus("auto", True, auto),
    ]
