# SPDX-License-Identifier: Apache-2.0
"""Which engine, device and dtype run here, and why the others do not."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from omnistream.engines.base import Engine
from omnistream.engines.torch_engine import DTYPES, TorchEngine
from omnistream.errors import EngineError
from omnistream.model.omnistream import OmniStream

ENGINES = ("auto", "torch")


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags as Linux names them; empty where that file does not exist."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "").split())


def choose_device(name: str = "auto") -> torch.device:
    """`auto`: the first CUDA GPU, else the CPU. A named device that is not there is an EngineError."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EngineError(f"device {name!r} is not understood ({error}); expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EngineError(f"device {name!r} was asked for, but torch sees no CUDA GPU; use device cpu or auto")
    return torch.device("cuda:0") if name == "cuda" else device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 on GPUs that have it and on CPUs with matrix units for it (AMX, AVX512-BF16), else float32."""
    if name != "auto":
        if name not in DTYPES:
            raise EngineError(f"dtype {name!r} is unknown; expected auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if cpu_flags() & {"amx_bf16", "avx512_bf16"} else torch.float32


def make_engine(model: OmniStream, engine: str = "auto", device: str = "auto", dtype: str = "auto") -> Engine:
    """Build the engine by name; EngineError says what is missing."""
    if engine not in ENGINES:
        raise EngineError(f"engine {engine!r} is unknown; expected one of {', '.join(ENGINES)}")
    where = choose_device(device)
    return TorchEngine(model, where, choose_dtype(dtype, where))
