# SPDX-License-Identifier: Apache-2.0
"""The ONNX Runtime engine: exported graphs on any CPU, the cache written in place.

On CPUs without bfloat16 units it is the fastest there is here. Its graphs come from `omnistream-export onnx`, one set
per image size; `omnistream.engines.graphs` says what a set is and refuses one that does not fit.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from omnistream.engines.base import EngineSpec, StepOutputs
from omnistream.engines.bound_graph import BoundGraph, import_onnxruntime
from omnistream.engines.graph_io import cache_inputs, check_step, finish_step, step_inputs, step_outputs
from omnistream.engines.graphs import GROWING, GraphSet, Role, export_command, head_graphs
from omnistream.engines.growing_state import GrowingState
from omnistream.errors import EngineError
from omnistream.model.config import ModelConfig
from omnistream.stream.policy import CachePolicy
from omnistream.stream.state import StreamState

DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.float32}
"""Of the cache, by the dtype of the graphs."""


class OnnxRuntimeEngine:
    """See `Engine`. Graphs of a size are loaded when a stream of that size is first asked for."""

    def __init__(self, model: ModelConfig, sets: Iterable[GraphSet], *, num_threads: int | None = None) -> None:
        """sets: of one model and one dtype, one for each size. num_threads: default as torch has.

        Raises EngineError without ONNX Runtime, and for sets that do not belong together.
        """
        import_onnxruntime()
        self._sets = {graphs.size: graphs for graphs in sets}
        kinds = {(graphs.dtype, graphs.model_hash) for graphs in self._sets.values()}
        if len(kinds) != 1 or next(iter(kinds))[0] not in DTYPES:
            raise EngineError(f"graphs are of {sorted(kinds)}; expected one model, in one of {', '.join(DTYPES)}")
        self._dtype, model_hash = kinds.pop()
        self._threads = num_threads or torch.get_num_threads()
        self._loaded: dict[tuple[int, int, int], _LoadedSet] = {}
        linears = "int8" if self._dtype == "int8" else ""
        self.spec = EngineSpec("onnxruntime", "cpu", DTYPES[self._dtype], model, model_hash, linears)

    def new_state(self, policy: CachePolicy, batch: int, height: int, width: int, start_index: int = 0) -> StreamState:
        spec = self.spec.state_spec(policy, batch, height, width)
        spec.check(self.spec.model.backbone)
        self._graphs((batch, height, width), policy)
        return GrowingState(self.spec.model.backbone, spec, start_index=start_index)

    def cache_nbytes(self, policy: CachePolicy, batch: int, height: int, width: int) -> int:
        return self.spec.state_spec(policy, batch, height, width).nbytes(self.spec.model.backbone)

    def step(self, state: StreamState, frames: Tensor, times: Tensor | None, want: Collection[str]) -> StepOutputs:
        start = time.perf_counter()
        if not isinstance(state, GrowingState):
            raise EngineError(f"state is a {type(state).__name__}; make it with this engine's new_state")
        check_step(self.spec.model, state, frames, want)
        graphs = self._graphs((state.spec.batch, state.spec.height, state.spec.width), state.spec.policy)
        values = step_inputs(self.spec.model, state, frames, times, slot=state.make_room())
        out = graphs[GROWING].run(values | cache_inputs(state.kv))
        middle = time.perf_counter()
        heads: dict[str, Tensor] = {}
        for role in head_graphs(want):
            heads |= graphs[role].run(out)
        finish_step(state, out)
        return step_outputs(out, heads, want, (middle - start) * 1e3, (time.perf_counter() - middle) * 1e3)

    def close(self) -> None:
        self._loaded.clear()
        self._sets.clear()

    def _graphs(self, size: tuple[int, int, int], policy: CachePolicy) -> _LoadedSet:
        if size not in self._loaded:
            if size not in self._sets:
                batch, height, width = size
                found = ", ".join(f"{h}x{w} (batch {b})" for b, h, w in self._sets) or "none: the engine is closed"
                raise EngineError(
                    f"no graphs for frames of {height}x{width} (height x width, batch {batch}); found {found}. "
                    f"Export them: {export_command(height, width, policy, self._dtype)}"
                )
            self._loaded[size] = _LoadedSet(self._sets[size], self._threads)
        return self._loaded[size]


class _LoadedSet:
    """The graphs of one set: all files checked at once, each graph loaded when it is first run."""

    def __init__(self, graphs: GraphSet, threads: int) -> None:
        graphs.check_files()
        self._graphs, self._threads = graphs, threads
        self._loaded: dict[Role, BoundGraph] = {}
        self[GROWING]

    def __getitem__(self, role: Role) -> BoundGraph:
        if role not in self._loaded:
            self._loaded[role] = BoundGraph(self._graphs, role, self._threads)
        return self._loaded[role]
