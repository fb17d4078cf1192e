# SPDX-License-Identifier: Apache-2.0
"""The static backbone run by ONNX Runtime: on any machine, what a TensorRT plan of it has to do.

Slower than `OnnxRuntimeEngine`, as it masks; so it is for checks, and no choice of users.
"""

from __future__ import annotations

import time
from collections.abc import Collection

import torch
from torch import Tensor

from omnistream.engines.base import EngineSpec, StepOutputs
from omnistream.engines.bound_graph import BoundGraph
from omnistream.engines.graph_io import cache_inputs, check_step, finish_step, key_mask, step_inputs, step_outputs
from omnistream.engines.graphs import STATIC, GraphSet, Role, export_command, head_graphs
from omnistream.engines.onnxruntime_engine import DTYPES
from omnistream.errors import EngineError
from omnistream.model.config import ModelConfig
from omnistream.stream.policy import CachePolicy
from omnistream.stream.state import StreamState


class StaticEngine:
    """See `Engine`. A policy with fewer slots than the graph has is fine: the mask hides the others."""

    def __init__(self, model: ModelConfig, graphs: GraphSet) -> None:
        graphs.check_files()
        self._graphs = graphs
        self._loaded: dict[Role, BoundGraph] = {STATIC: BoundGraph(graphs, STATIC, torch.get_num_threads())}
        self.spec = EngineSpec("static graph", "cpu", DTYPES[graphs.dtype], model, graphs.model_hash)

    def new_state(self, policy: CachePolicy, batch: int, height: int, width: int, start_index: int = 0) -> StreamState:
        graphs = self._graphs
        if (batch, height, width) != graphs.size or policy.slots > graphs.policy.slots:
            raise EngineError(
                f"a stream of batch {batch}, {height}x{width}, {policy.slots} slots does not fit {graphs}, "
                f"{graphs.policy.slots} slots; export it: {export_command(height, width, policy, graphs.dtype)}"
            )
        spec = self.spec.state_spec(policy, batch, height, width)
        return StreamState(self.spec.model.backbone, spec, start_index=start_index, slots=graphs.policy.slots)

    def cache_nbytes(self, policy: CachePolicy, batch: int, height: int, width: int) -> int:
        spec = self.spec.state_spec(policy, batch, height, width)
        return spec.nbytes(self.spec.model.backbone, self._graphs.policy.slots)

    def step(self, state: StreamState, frames: Tensor, times: Tensor | None, want: Collection[str]) -> StepOutputs:
        start = time.perf_counter()
        check_step(self.spec.model, state, frames, want)
        slot = state.spec.policy.slot(state.frames_seen)
        values = step_inputs(self.spec.model, state, frames, times, slot) | cache_inputs(state.kv)
        out = self._graph(STATIC).run(values | {"key_mask": key_mask(state)})
        middle = time.perf_counter()
        heads: dict[str, Tensor] = {}
        for role in head_graphs(want):
            heads |= self._graph(role).run(out)
        finish_step(state, out)
        return step_outputs(out, heads, want, (middle - start) * 1e3, (time.perf_counter() - middle) * 1e3)

    def close(self) -> None:
        self._loaded.clear()

    def _graph(self, role: Role) -> BoundGraph:
        if role not in self._loaded:
            self._loaded[role] = BoundGraph(self._graphs, role, torch.get_num_threads())
        return self._loaded[role]
