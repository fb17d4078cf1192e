# SPDX-License-Identifier: Apache-2.0
"""The part of TensorRT's Python API that we use, as protocols; the same in 10.15, 10.16 and 11.x.

TensorRT comes with the robot's JetPack or with NVIDIA's packages and is imported late. Our code is typed against these
protocols alone: `make verify-tensorrt-api` holds them against the real API of both major versions, and the stand-in of
the tests implements them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, SupportsInt, cast

from omnistream.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Hashable

MINIMUM = (10, 15)
"""First version that writes a KV cache in place (TensorScatter, aliased outputs)."""
INSTALL = "pip install 'omnistream[tensorrt]' (on a Jetson TensorRT is part of JetPack)"


def load_tensorrt() -> TensorRT:
    """The module `tensorrt`; EngineError with the line that installs it, or with the version that is too old."""
    try:
        import tensorrt
    except Exception as error:  # its loader throws many things when a shared library is missing
        raise EngineError(f"engine tensorrt needs NVIDIA's package tensorrt ({error}): {INSTALL}") from error
    module: TensorRT = tensorrt
    check_version(version(module))
    return module


def version(trt: TensorRT) -> str:
    """Such as 10.16.1.11. Plans are bound to all of it."""
    return str(cast(Any, trt).__version__)


def check_version(found: str) -> None:
    """EngineError below `MINIMUM`."""
    try:
        number = tuple(int(part) for part in found.split(".")[:2])
    except ValueError:
        number = (0, 0)
    if number < MINIMUM:
        raise EngineError(
            f"tensorrt is {found}; expected {MINIMUM[0]}.{MINIMUM[1]} or newer, the first that updates a cache in "
            "place (JetPack 6 has 10.3: use engine torch there)"
        )


class Dims(Protocol):
    """A shape."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class HostMemory(Protocol):
    """Bytes owned by TensorRT. It has the buffer protocol too, which the bindings do not state."""

    @property
    def nbytes(self) -> int: ...


class ExecutionContext(Protocol):
    """One set of addresses and of intermediate memory. A CUDA graph captured from it is its own for ever."""

    def set_tensor_address(self, name: str, memory: int, /) -> bool: ...
    def execute_async_v3(self, stream_handle: int, /) -> bool: ...


class CudaEngine(Protocol):
    """A plan, deserialised."""

    @property
    def num_io_tensors(self) -> int: ...
    def get_tensor_name(self, index: int, /) -> str: ...
    def get_tensor_mode(self, name: str, /) -> Hashable: ...
    def get_tensor_shape(self, name: str, /) -> Dims: ...
    def get_tensor_dtype(self, name: str, /) -> Hashable: ...
    def get_aliased_input_tensor(self, name: str, /) -> str | None: ...
    def create_execution_context(self) -> ExecutionContext | None: ...


class Runtime(Protocol):
    """Reads plans."""

    def deserialize_cuda_engine(self, serialized_engine: bytes, /) -> CudaEngine | None: ...


class ParserError(Protocol):
    """What the parser of ONNX did not understand."""

    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    """Fills a network from a file. (`get_error` returns a `ParserError`; the bindings do not state it.)"""

    @property
    def num_errors(self) -> int: ...
    def parse_from_file(self, model: str, /) -> bool: ...
    def get_error(self, index: int, /) -> Any: ...


class TimingCache(Protocol):
    """Kernel timings of one GPU: with it the second build takes seconds."""

    def serialize(self) -> HostMemory: ...


class BuilderConfig(Protocol):
    """How to build. `progress_monitor` takes an instance of a class made from `TensorRT.IProgressMonitor`."""

    progress_monitor: Any

    def set_memory_pool_limit(self, pool: Any, size: int, /) -> None: ...
    def clear_flag(self, flag: Any, /) -> None: ...
    def create_timing_cache(self, serialized: bytes, /) -> Any: ...
    def set_timing_cache(self, cache: Any, ignore_mismatch: bool, /) -> bool: ...
    def get_timing_cache(self) -> TimingCache: ...


class Builder(Protocol):
    """Makes networks, configurations and plans."""

    def create_network(self, flags: int, /) -> Any: ...
    def create_builder_config(self) -> Any: ...
    def build_serialized_network(self, network: Any, config: Any, /) -> HostMemory | None: ...


class DataTypes(Protocol):
    """Members of `tensorrt.DataType`."""

    @property
    def FLOAT(self) -> Hashable: ...
    @property
    def HALF(self) -> Hashable: ...
    @property
    def BF16(self) -> Hashable: ...
    @property
    def INT32(self) -> Hashable: ...
    @property
    def INT64(self) -> Hashable: ...
    @property
    def BOOL(self) -> Hashable: ...


class TensorIOModes(Protocol):
    """Members of `tensorrt.TensorIOMode`."""

    @property
    def INPUT(self) -> Hashable: ...
    @property
    def OUTPUT(self) -> Hashable: ...


class MemoryPoolTypes(Protocol):
    """Members of `tensorrt.MemoryPoolType`."""

    @property
    def WORKSPACE(self) -> Hashable: ...


class BuilderFlags(Protocol):
    """Members of `tensorrt.BuilderFlag`. Those of precision left with 11.0: precision is in the graph."""

    @property
    def TF32(self) -> Hashable: ...


class NetworkDefinitionCreationFlags(Protocol):
    """Members of `tensorrt.NetworkDefinitionCreationFlag`."""

    @property
    def STRONGLY_TYPED(self) -> SupportsInt: ...


class TensorRT(Protocol):
    """The module `tensorrt`. (It has `__version__` too, see `version`: mypy does not match such names of modules.)"""

    @property
    def DataType(self) -> DataTypes: ...
    @property
    def TensorIOMode(self) -> TensorIOModes: ...
    @property
    def MemoryPoolType(self) -> MemoryPoolTypes: ...
    @property
    def BuilderFlag(self) -> BuilderFlags: ...
    @property
    def NetworkDefinitionCreationFlag(self) -> NetworkDefinitionCreationFlags: ...
    @property
    def ILogger(self) -> type: ...
    @property
    def IProgressMonitor(self) -> type: ...

    def Runtime(self, logger: Any, /) -> Runtime: ...
    def Builder(self, logger: Any, /) -> Builder: ...
    def OnnxParser(self, network: Any, logger: Any, /) -> OnnxParser: ...
