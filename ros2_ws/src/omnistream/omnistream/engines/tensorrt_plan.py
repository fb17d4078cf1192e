# SPDX-License-Identifier: Apache-2.0
"""A plan, loaded and checked; and a plan bound to memory: all addresses are set once and never change.

TensorRT updates a KV cache in place only if the cache's output has the very address of its input, and a CUDA graph
remembers addresses. So every stream has a context of its own on its own memory, and only the bytes change.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor

from omnistream.engines.cuda_device import Device
from omnistream.engines.graphs import GraphSpec, TensorSpec
from omnistream.engines.tensorrt_api import Runtime, TensorRT
from omnistream.engines.tensorrt_log import MessageLog
from omnistream.errors import EngineError


class LoadedPlan:
    """A plan that has exactly the inputs, outputs and aliases which its graph's sidecar lists."""

    def __init__(self, trt: TensorRT, runtime: Runtime, log: MessageLog, data: bytes, spec: GraphSpec, name: str):
        """data: of the plan; deserialising executes it, so it has been checked. name: for messages."""
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise EngineError(f"TensorRT cannot load {name}: {log.reasons()}. Build it again")
        self.engine, self.spec, self.name, self.log = engine, spec, name, log
        self._check_tensors(trt)
        self._check_aliases()

    def _check_tensors(self, trt: TensorRT) -> None:
        names = dtype_names(trt)
        found: dict[bool, set[TensorSpec]] = {True: set(), False: set()}
        for i in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(i)
            shape = self.engine.get_tensor_shape(name)
            dtype = names.get(self.engine.get_tensor_dtype(name), "unknown")
            is_input = self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            found[is_input].add(TensorSpec(name, dtype, tuple(int(shape[axis]) for axis in range(len(shape)))))
        for side, has, expected in (
            ("inputs", found[True], set(self.spec.inputs)),
            ("outputs", found[False], set(self.spec.outputs)),
        ):
            if has != expected:
                wrong = ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in sorted(has - expected, key=_name))
                missing = ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in sorted(expected - has, key=_name))
                raise EngineError(
                    f"{self.name}: {side} are not those of its graph (found {wrong or 'none more'}; expected "
                    f"{missing or 'none more'}). Build it again"
                )

    def _check_aliases(self) -> None:
        for tensor in self.spec.outputs:
            found, expected = self.engine.get_aliased_input_tensor(tensor.name), self.spec.aliases.get(tensor.name)
            if (found or None) != expected:
                raise EngineError(
                    f"{self.name}: output {tensor.name} shares memory with {found or 'no input'}; expected "
                    f"{expected or 'none'}. Build it again with TensorRT 10.15 or newer"
                )


class BoundPlan:
    """A context of a plan and all memory that it reads and writes, by name in `tensors`."""

    def __init__(self, plan: LoadedPlan, device: Device, given: Mapping[str, Tensor], cuda_graph: bool) -> None:
        """given: memory for some tensors, of the exact shape and dtype and contiguous; the rest is allocated."""
        context = plan.engine.create_execution_context()
        if context is None:
            raise EngineError(f"no execution context of {plan.name}: {plan.log.reasons()}")
        self._plan, self._device, self._context = plan, device, context
        self._cuda_graph, self._executed = cuda_graph, False
        self._replay: Callable[[], None] | None = None
        spec = plan.spec
        self.tensors: dict[str, Tensor] = {}
        for tensor in (*spec.inputs, *spec.outputs):
            if tensor.name in spec.aliases:
                self.tensors[tensor.name] = self.tensors[spec.aliases[tensor.name]]
            elif tensor.name in given:
                self.tensors[tensor.name] = _checked(given[tensor.name], tensor)
            else:
                self.tensors[tensor.name] = device.zeros(_shape(tensor), _dtype(tensor))
        self._staging: dict[str, Tensor] = {}
        for name, memory in self.tensors.items():
            if not context.set_tensor_address(name, memory.data_ptr()):
                raise EngineError(f"{plan.name} refuses the address of {name}: {plan.log.reasons()}")

    @property
    def outputs(self) -> frozenset[str]:
        """Names, without those that share an input's memory."""
        spec = self._plan.spec
        return frozenset(tensor.name for tensor in spec.outputs) - set(spec.aliases)

    def write(self, name: str, value: Tensor) -> None:
        """Set an input, on the device's stream. `value` may change once the stream was waited for."""
        memory = self.tensors[name]
        if value.device.type == "cpu":
            if name not in self._staging:
                self._staging[name] = self._device.staging(tuple(memory.shape), memory.dtype)
            value = self._staging[name].copy_(value)
        memory.copy_(value, non_blocking=True)

    def launch(self) -> None:
        """Execute once, on the device's stream, without waiting. EngineError if TensorRT refuses.

        TensorRT prepares a context when it first executes it, which a capture must not record: the first frame runs as
        it is, the second is captured and replayed like all that follow.
        """
        if self._replay is None and self._executed and self._cuda_graph:
            self._replay = self._device.capture(self._execute)
            self._cuda_graph = self._replay is not None
        if self._replay is not None:
            self._replay()
        else:
            self._execute()
        self._executed = True

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            raise EngineError(f"TensorRT did not execute {self._plan.name}: {self._plan.log.reasons()}")


def dtype_names(trt: TensorRT) -> dict[Hashable, str]:
    """Names of torch's dtypes by TensorRT's."""
    types = trt.DataType
    return {
        types.FLOAT: "float32",
        types.HALF: "float16",
        types.BF16: "bfloat16",
        types.INT32: "int32",
        types.INT64: "int64",
        types.BOOL: "bool",
    }


def _checked(memory: Tensor, expected: TensorSpec) -> Tensor:
    fits = tuple(memory.shape) == expected.shape and memory.dtype is _dtype(expected) and memory.is_contiguous()
    if not fits:
        raise EngineError(
            f"{expected.name} is {memory.dtype} {tuple(memory.shape)}, contiguous: {memory.is_contiguous()}; the plan "
            f"takes {expected.dtype} {expected.shape}, contiguous"
        )
    return memory


def _shape(tensor: TensorSpec) -> tuple[int, ...]:
    return tuple(int(side) for side in tensor.shape)


def _dtype(tensor: TensorSpec) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, tensor.dtype)
    return dtype


def _name(tensor: TensorSpec) -> str:
    return tensor.name
