# SPDX-License-Identifier: Apache-2.0
"""A stand-in for TensorRT and its GPU: plans run on ONNX Runtime over host memory, under TensorRT's rules.

What TensorRT demands and a CPU would forgive is enforced here: nothing executes with an address missing or of memory
that was not allocated, in another dtype, or with a cache's output elsewhere than its input; a write beyond the cache is
ignored without a word; a context is executed once before it is captured; plans load only in the version and on the
GPU that built them; the builder takes strongly typed networks of static shapes only.
It says nothing on speed, on numbers of the GPU's kernels, or on which graphs TensorRT can build.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto
from torch import Tensor

from omnistream_export.lint import lint

MAGIC = b"STANDIN1"
STREAM = 0x51


class Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class DataType(Enum):
    FLOAT = TensorProto.FLOAT
    HALF = TensorProto.FLOAT16
    BF16 = TensorProto.BFLOAT16
    INT32 = TensorProto.INT32
    INT64 = TensorProto.INT64
    BOOL = TensorProto.BOOL


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class HostMemory(bytes):
    """Bytes with TensorRT's name for their length."""

    @property
    def nbytes(self) -> int:
        return len(self)


class HostDevice:
    """`omnistream.engines.cuda_device.Device` over host memory. Knows every allocation, and records captures."""

    name, gpu, stream = "cpu", "Stand-in GPU", STREAM

    def __init__(self) -> None:
        self.memory: list[Tensor] = []
        self.recording: list[Callable[[], None]] | None = None
        self.working = False
        self.captures = self.replays = self.waits = self.copies = 0

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        self.memory.append(torch.zeros(shape, dtype=dtype))
        return self.memory[-1]

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        assert not self.working, "the stream is entered twice"
        self.working = True
        try:
            yield
        finally:
            self.working = False

    def hand_over(self, value: Tensor) -> Tensor:
        assert self.working, "copied outside the stream, which a later step may overtake"
        self.copies += 1
        return value.to(torch.float32, copy=True)

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        self.recording = recorded = []
        try:
            launch()
        finally:
            self.recording = None
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            for run in recorded:
                run()

        return replay

    def synchronize(self) -> None:
        assert not self.working, "waited for the stream from within"
        self.waits += 1

    def holds(self, address: int, nbytes: int, dtype: torch.dtype) -> bool:
        """Whether one allocation of that dtype has these bytes."""
        return any(
            t.dtype is dtype and t.data_ptr() <= address and address + nbytes <= t.data_ptr() + t.nbytes
            for t in self.memory
        )


class Engine:
    """A plan, deserialised."""

    def __init__(self, model: bytes, device: HostDevice, log: Any) -> None:
        graph = onnx.load_from_string(model).graph
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.device, self.log = device, log
        self.inputs, self.outputs = ([v.name for v in side] for side in (graph.input, graph.output))
        self.values = {v.name: v.type.tensor_type for v in [*graph.input, *graph.output]}
        scatters = [node for node in graph.node if node.op_type == "TensorScatter"]
        self.aliases = {node.output[0]: node.input[0] for node in scatters}
        self.write_index = scatters[0].input[2] if scatters else None

    @property
    def num_io_tensors(self) -> int:
        return len(self.values)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(side.dim_value for side in self.values[name].shape.dim)

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(self.values[name].elem_type)

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.aliases.get(name)

    def create_execution_context(self) -> Context:
        return Context(self)

    def numpy_dtype(self, name: str) -> np.dtype:
        return onnx.helper.tensor_dtype_to_np_dtype(self.values[name].elem_type)


class Context:
    """Addresses, and their execution."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.executed = False

    def set_tensor_address(self, name: str, address: int) -> bool:
        engine = self.engine
        if name not in engine.values:
            return self._refuse(f"{name} is no input or output")
        dtype = engine.numpy_dtype(name)
        nbytes = int(np.prod(engine.get_tensor_shape(name))) * dtype.itemsize
        if not engine.device.holds(address, nbytes, getattr(torch, dtype.name)):
            return self._refuse(f"{name}: no allocation of {nbytes} bytes of {dtype} at {address:#x}")
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine = self.engine
        missing = sorted(set(engine.values) - set(self.addresses))
        moved = [
            name for name, source in engine.aliases.items() if self.addresses.get(name) != self.addresses.get(source)
        ]
        if stream != STREAM or not engine.device.working:
            return self._refuse(f"stream {stream:#x} is not the one that the caller works on")
        if missing:
            return self._refuse(f"address of {missing[0]} is not set")
        if moved:
            return self._refuse(f"{moved[0]} is not at the address of {engine.aliases[moved[0]]}")
        if engine.device.recording is not None:
            assert self.executed, "captured before it was executed once"
            addresses = dict(self.addresses)
            engine.device.recording.append(lambda: self._run(addresses))
        else:
            self._run(self.addresses)
        self.executed = True
        return True

    def _run(self, addresses: dict[str, int]) -> None:
        engine = self.engine
        kept = {} if self._inside(addresses) else self._caches(addresses)
        for cache in kept.values():  # a write outside is ignored; what comes out then is anything
            cache.copied = cache.array.copy()
        if kept:
            self._view(addresses, engine.write_index or "")[:] = 0
        binding = engine.session.io_binding()
        for bind, names in ((binding.bind_input, engine.inputs), (binding.bind_output, engine.outputs)):
            for name in names:
                shape = engine.get_tensor_shape(name)
                bind(name, "cpu", 0, engine.numpy_dtype(name), shape, addresses[name])
        engine.session.run_with_iobinding(binding)
        for cache in kept.values():
            cache.array[:] = cache.copied

    def _inside(self, addresses: dict[str, int]) -> bool:
        engine = self.engine
        if engine.write_index is None:
            return True
        tokens = engine.get_tensor_shape("rope_cos")[2]
        index = self._view(addresses, engine.write_index)
        return bool((index >= 0).all() and (index + tokens <= engine.get_tensor_shape("key_cache_0")[2]).all())

    def _caches(self, addresses: dict[str, int]) -> dict[str, SimpleNamespace]:
        return {name: SimpleNamespace(array=self._view(addresses, name)) for name in self.engine.aliases.values()}

    def _view(self, addresses: dict[str, int], name: str) -> np.ndarray:
        """The tensor at its address."""
        for memory in self.engine.device.memory:
            offset = addresses[name] - memory.data_ptr()
            if 0 <= offset < memory.nbytes:
                shape = self.engine.get_tensor_shape(name)
                start = offset // memory.element_size()
                return memory.view(-1)[start : start + int(np.prod(shape))].view(shape).numpy()
        raise AssertionError(f"{name} has no memory")

    def _refuse(self, reason: str) -> bool:
        self.engine.log.log(Severity.ERROR, reason)
        return False


class FakeTensorRT:
    """The module `tensorrt` (see `omnistream.engines.tensorrt_api.TensorRT`), on one `HostDevice`."""

    DataType, TensorIOMode = DataType, TensorIOMode
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    BuilderFlag = SimpleNamespace(TF32="tf32")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    class ILogger:
        pass

    class IProgressMonitor:
        pass

    def __init__(self, device: HostDevice, version: str = "10.16.1.11") -> None:
        self.device, self.__version__ = device, version

    def Runtime(self, logger: Any) -> SimpleNamespace:
        def deserialize(data: bytes) -> Engine | None:
            header, _, model = bytes(data).removeprefix(MAGIC).partition(b"\n")
            try:
                made_for = json.loads(header)
            except ValueError:
                made_for = {}
            here = self._header(model)
            if not data.startswith(MAGIC) or made_for != here:
                logger.log(Severity.ERROR, f"plan is for {made_for}; expected {here}")
                return None
            return Engine(model, self.device, logger)

        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    def OnnxParser(self, network: SimpleNamespace, logger: Any) -> SimpleNamespace:
        errors: list[SimpleNamespace] = []

        def parse(path: str) -> bool:
            network.model = onnx.load(path) if Path(path).is_file() else None
            reasons = ["cannot open the file"] if network.model is None else lint(network.model)
            for reason in reasons:
                call = {"desc": reason, "node_name": "node_7", "node_operator": "Attention"}
                errors.append(SimpleNamespace(**{k: lambda v=v: v for k, v in call.items()}))
            parser.num_errors = len(errors)
            return not errors

        parser = SimpleNamespace(parse_from_file=parse, num_errors=0, get_error=errors.__getitem__)
        return parser

    def Builder(self, logger: Any) -> SimpleNamespace:
        def create_network(flags: int) -> SimpleNamespace:
            assert flags == 1 << 1, "the network is not strongly typed"
            return SimpleNamespace(model=None)

        def build(network: SimpleNamespace, config: Config) -> HostMemory | None:
            monitor = config.progress_monitor
            monitor.phase_start("Building Engine", None, 3)
            monitor.phase_start("Choosing kernels", "Building Engine", 2)
            steps = [monitor.step_complete("Choosing kernels", step) for step in range(2)]
            monitor.phase_finish("Choosing kernels")
            monitor.phase_finish("Building Engine")
            if not all(steps):
                return None
            config.cache.data += b"+"
            model = network.model.SerializeToString()
            return HostMemory(MAGIC + json.dumps(self._header(model)).encode() + b"\n" + model)

        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=lambda: Config(self.__version__),
            build_serialized_network=build,
        )

    def _header(self, model: bytes) -> dict[str, str]:
        return {"version": self.__version__, "gpu": self.device.gpu, "sha256": hashlib.sha256(model).hexdigest()}


class Config:
    """Builder configuration. A timing cache is its version and one plus sign for each build that used it."""

    def __init__(self, version: str) -> None:
        self.version = version.encode()
        self.progress_monitor: Any = None
        self.flags = {"tf32"}
        self.limits: dict[str, int] = {}
        self.cache: SimpleNamespace | None = None

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits[pool] = size

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def create_timing_cache(self, data: bytes) -> SimpleNamespace:
        return SimpleNamespace(data=bytes(data) or self.version)

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
        if not cache.data.startswith(self.version):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> SimpleNamespace:
        assert self.cache is not None
        data = HostMemory(self.cache.data)
        return SimpleNamespace(serialize=lambda: data)
