# SPDX-License-Identifier: Apache-2.0
"""One exported graph in ONNX Runtime, run on torch's memory. The package is imported when the first graph is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnistream.engines.graphs import CACHE_TOKENS, GraphSet, Role, TensorSpec
from omnistream.errors import EngineError

INSTALL = "pip install 'omnistream[onnxruntime]'"
ORT_TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int64": "tensor(int64)",
    "bool": "tensor(bool)",
}


def import_onnxruntime() -> Any:
    """The module; EngineError with the line that installs it."""
    try:
        import onnxruntime
    except Exception as error:  # a broken installation may throw anything
        raise EngineError(f"engine onnxruntime needs the package onnxruntime ({error}): {INSTALL}") from error
    return onnxruntime


class BoundGraph:
    """Inputs are read where they are, and an output that is an alias overwrites its input: no cache is ever copied."""

    def __init__(self, graphs: GraphSet, role: Role, threads: int) -> None:
        """Load the graph; its files have been checked (`GraphSet.check_files`). Raises EngineError."""
        ort = import_onnxruntime()
        path = graphs.path(role)
        self._spec = graphs.graphs[role]
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait by spinning take the processor from the rest of the robot: on a busy machine of two cores a
        # step took 2.2 times as long with it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes, one for each cause
            raise EngineError(f"onnxruntime {ort.__version__} cannot load {path}: {error}") from error
        for side, expected in (("inputs", self._spec.inputs), ("outputs", self._spec.outputs)):
            found = {v.name: (v.type, tuple(v.shape)) for v in getattr(self._session, f"get_{side}")()}
            if found != {t.name: (ORT_TYPES.get(t.dtype), t.shape) for t in expected}:
                raise EngineError(f"the {side} of {path} are not those that its sidecar lists; export again")

    def run(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs by name (more than needed is fine) -> outputs by name, freshly allocated, without the aliases."""
        binding = self._session.io_binding()
        bound = {tensor.name: _as_input(values[tensor.name], tensor) for tensor in self._spec.inputs}
        for name, value in bound.items():
            _bind(binding.bind_input, name, value)
        fresh: dict[str, Tensor] = {}
        for tensor in self._spec.outputs:
            if tensor.name in self._spec.aliases:
                _bind(binding.bind_output, tensor.name, bound[self._spec.aliases[tensor.name]])
            else:
                shape = tuple(int(side) for side in tensor.shape)
                fresh[tensor.name] = torch.empty(shape, dtype=getattr(torch, tensor.dtype))
                _bind(binding.bind_output, tensor.name, fresh[tensor.name])
        self._session.run_with_iobinding(binding)
        return fresh


def _as_input(value: Tensor, expected: TensorSpec) -> Tensor:
    """Contiguous and of the graph's dtype; what already is stays where it is, caches above all."""
    shape = tuple(n if side == CACHE_TOKENS else side for n, side in zip(value.shape, expected.shape, strict=True))
    if tuple(value.shape) != shape:
        raise EngineError(f"{expected.name} is {tuple(value.shape)}; the graph takes {expected.shape}")
    return value.to("cpu", getattr(torch, expected.dtype)).contiguous()


def _bind(bind: Any, name: str, value: Tensor) -> None:
    dtype = np.dtype(str(value.dtype).removeprefix("torch."))
    bind(name, "cpu", 0, dtype, tuple(value.shape), value.data_ptr())
