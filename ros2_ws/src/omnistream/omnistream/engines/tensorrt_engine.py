# SPDX-License-Identifier: Apache-2.0
"""The TensorRT engine: plans on a GPU, caches written in place, every step one launch of a CUDA graph.

Plans come from `omnistream-export tensorrt` (on the robot); `omnistream.engines.plans` says which may be run. Written
against NVIDIA's API and rules, run on a stand-in that enforces them: see docs/tensorrt.md for what that proves.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from omnistream.engines import tensorrt_api
from omnistream.engines.base import TAPS, EngineSpec, StepOutputs
from omnistream.engines.cuda_device import CudaDevice, Device
from omnistream.engines.graph_io import cache_inputs, check_step, finish_step, step_inputs, step_outputs, tap_names
from omnistream.engines.graphs import STATIC, GraphSet, Role, export_command, head_graphs
from omnistream.engines.plans import PlanSet, build_command, has_plans, read_plans
from omnistream.engines.tensorrt_api import TensorRT
from omnistream.engines.tensorrt_log import make_logger
from omnistream.engines.tensorrt_plan import BoundPlan, LoadedPlan
from omnistream.engines.tensorrt_state import TensorRTState
from omnistream.errors import EngineError
from omnistream.model.config import ModelConfig
from omnistream.stream.policy import CachePolicy
from omnistream.stream.state import StreamState

DTYPES = {"float32": torch.float32, "float16": torch.float16}


class TensorRTEngine:
    """See `Engine`. Loads the plans of a size when a stream of it first asks, and those of heads when one is wanted."""

    def __init__(
        self,
        model: ModelConfig,
        sets: Iterable[PlanSet],
        *,
        cuda_graph: bool = True,
        trt: TensorRT | None = None,
        device: Device | None = None,
    ) -> None:
        """sets: of one model and one dtype; of several for one size, a stream gets the least that holds its policy.

        trt, device: for tests.

        Raises EngineError without TensorRT or GPU, and for plans that are stale or do not belong together.
        """
        self._trt = trt or tensorrt_api.load_tensorrt()
        self._device = device or CudaDevice()
        self._cuda_graph = cuda_graph
        self._sets = sorted(sets, key=lambda plans: plans.graphs.policy.slots)
        kinds = {(plans.graphs.dtype, plans.graphs.model_hash) for plans in self._sets}
        if len(kinds) != 1 or next(iter(kinds))[0] not in DTYPES:
            raise EngineError(f"plans are of {sorted(kinds)}; expected one model, in one of {', '.join(DTYPES)}")
        for plans in self._sets:
            plans.check(tensorrt_api.version(self._trt), self._device.gpu)
        self._dtype, model_hash = kinds.pop()
        self._log = make_logger(self._trt)
        self._runtime = self._trt.Runtime(self._log)
        self._loaded: dict[tuple[Path, Role], LoadedPlan] = {}
        self._states: weakref.WeakSet[TensorRTState] = weakref.WeakSet()
        self.spec = EngineSpec("tensorrt", self._device.name, DTYPES[self._dtype], model, model_hash)

    def new_state(self, policy: CachePolicy, batch: int, height: int, width: int, start_index: int = 0) -> StreamState:
        spec = self.spec.state_spec(policy, batch, height, width)
        spec.check(self.spec.model.backbone)
        plans = self._plans_of((batch, height, width), policy)
        slots = plans.graphs.policy.slots
        plan = self._load(plans, STATIC)
        with self._device.on_stream():
            state = TensorRTState(self.spec.model.backbone, spec, slots, self._device, start_index=start_index)
            state.bound[STATIC] = BoundPlan(plan, self._device, cache_inputs(state.kv), self._cuda_graph)
        self._device.synchronize()
        self._states.add(state)
        return state

    def cache_nbytes(self, policy: CachePolicy, batch: int, height: int, width: int) -> int:
        slots = self._plans_of((batch, height, width), policy).graphs.policy.slots
        return self.spec.state_spec(policy, batch, height, width).nbytes(self.spec.model.backbone, slots)

    def step(self, state: StreamState, frames: Tensor, times: Tensor | None, want: Collection[str]) -> StepOutputs:
        start = time.perf_counter()
        if not isinstance(state, TensorRTState) or state not in self._states:
            raise EngineError(f"state is a {type(state).__name__} of another engine; make it with this one's new_state")
        check_step(self.spec.model, state, frames, want)
        # A write outside the cache would be ignored without a word; a policy's slots are all inside (see `_plans_of`).
        slot = state.spec.policy.slot(state.frames_seen)
        values = step_inputs(self.spec.model, state, frames, times, slot)
        heads = [self._head(state, role) for role in head_graphs(want)]

        backbone = state.bound[STATIC]
        taps = tap_names(backbone.outputs) if TAPS in want else ()  # heads read them where they are
        with self._device.on_stream():
            for name, value in values.items():
                backbone.write(name, value)
            state.show(backbone.tensors["key_mask"])
            backbone.launch()
            out = self._results(backbone, ("patches", "cls", "camera_token", *taps))
        self._device.synchronize()
        middle = time.perf_counter()
        found: dict[str, Tensor] = {}
        if heads:
            with self._device.on_stream():
                for head in heads:
                    head.launch()
                    found |= self._results(head, head.outputs)
            self._device.synchronize()
        finish_step(state, out)
        return step_outputs(out, found, want, (middle - start) * 1e3, (time.perf_counter() - middle) * 1e3)

    def close(self) -> None:
        for state in self._states:
            state.bound.clear()
        self._states.clear()
        self._loaded.clear()
        self._sets.clear()

    def _results(self, plan: BoundPlan, names: Iterable[str]) -> dict[str, Tensor]:
        """Copies, because the next step overwrites the plan's own."""
        return {name: self._device.hand_over(plan.tensors[name]) for name in names if name in plan.outputs}

    def _head(self, state: TensorRTState, role: Role) -> BoundPlan:
        """A plan of heads, reading what the backbone's plan writes."""
        if role not in state.bound:
            spec = state.spec
            plan = self._load(self._plans_of((spec.batch, spec.height, spec.width), spec.policy), role)
            with self._device.on_stream():
                state.bound[role] = BoundPlan(plan, self._device, state.bound[STATIC].tensors, self._cuda_graph)
        return state.bound[role]

    def _load(self, plans: PlanSet, role: Role) -> LoadedPlan:
        key = (plans.directory, role)
        if key not in self._loaded:
            name = f"the {role} plan of {plans.directory}"
            data = plans.read(role)
            with self._device.on_stream():
                spec = plans.graphs.graphs[role]
                self._loaded[key] = LoadedPlan(self._trt, self._runtime, self._log, data, spec, name)
        return self._loaded[key]

    def _plans_of(self, size: tuple[int, int, int], policy: CachePolicy) -> PlanSet:
        batch, height, width = size
        export = export_command(height, width, policy, self._dtype)
        of_size = [plans for plans in self._sets if plans.graphs.size == size]
        if not of_size:
            sizes = dict.fromkeys(plans.graphs.size for plans in self._sets)
            found = ", ".join(f"{h}x{w} (batch {b})" for b, h, w in sizes) or "none; the engine is closed"
            raise EngineError(
                f"no TensorRT plans for frames of {height}x{width} (height x width, batch {batch}); found {found}. "
                f"Build them: {export} && {build_command('OUT')}"
            )
        plans = next((plans for plans in of_size if plans.graphs.policy.slots >= policy.slots), of_size[-1])
        if policy.slots > plans.graphs.policy.slots:
            raise EngineError(
                f"policy {policy} needs {policy.slots} slots; the plans in {plans.directory} have "
                f"{plans.graphs.policy.slots} ({plans.graphs.policy}). Build larger ones: {export} && "
                f"{build_command('OUT')}"
            )
        return plans


def open_tensorrt(model: ModelConfig, exported: Sequence[GraphSet], device: str = "auto") -> TensorRTEngine:
    """The engine on those of `exported` (at least one) that have plans.

    Raises EngineError without TensorRT, without a GPU, and with the command that builds the plans if there are none.
    """
    trt = tensorrt_api.load_tensorrt()
    gpu = CudaDevice("cuda:0" if device == "auto" else device)
    sets = [read_plans(graphs) for graphs in exported if has_plans(graphs)] or [read_plans(exported[0])]
    return TensorRTEngine(model, sets, trt=trt, device=gpu)
