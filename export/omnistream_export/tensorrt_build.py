# SPDX-License-Identifier: Apache-2.0
"""Builds the TensorRT plans of a directory of graphs, on the machine that will run them.

Networks are strongly typed: precision is what the graph says, so the same code builds with 10.15 and 11.x, where the
flags of precision are gone. Kernel timings are kept in a file beside the graph directories: with it, plans of new
weights or of another window build in a fraction of the time.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from omnistream.cli.interrupt import Interrupt
from omnistream.engines import tensorrt_api
from omnistream.engines.cuda_device import CudaDevice, Device
from omnistream.engines.graphs import GROWING, STATIC, GraphSet, Role
from omnistream.engines.plans import FOLDER, SIDECAR, PlanSet, PlanSpec, made_from, read_owned
from omnistream.engines.tensorrt_api import BuilderConfig, HostMemory, TensorRT
from omnistream.engines.tensorrt_log import MessageLog, make_logger
from omnistream.errors import ConfigError, EngineError
from omnistream.weights.files import new_directory

from .build_progress import BuildProgress, make_monitor

WORKSPACE_BYTES = 4 << 30
"""Scratch memory that a kernel may ask for; an upper limit, not an allocation."""
TIMING_CACHE = "tensorrt_timing.cache"
PRIVATE = 0o600
"""A plan is executed by whoever loads it: written by its owner only, whatever the umask."""


def build_plans(
    graphs: GraphSet,
    *,
    workspace: int = WORKSPACE_BYTES,
    tf32: bool = False,
    timing_cache: Path | None = None,
    made_by: str = "omnistream_export.tensorrt_build.build_plans",
    trt: TensorRT | None = None,
    device: Device | None = None,
) -> PlanSet:
    """Build a plan of every graph that TensorRT can run, into `graphs.directory`/tensorrt: all of them, or nothing.

    workspace: bytes. tf32: let float32 products (the heads; all of a float32 export) round to 10 bits.
    timing_cache: file of kernel timings; default: beside `graphs.directory`, for all sizes and weights.
    Raises EngineError without TensorRT or a GPU, for damaged graphs, for graphs that TensorRT does not take, and when
    interrupted. Plans that were there are replaced when all is built.
    """
    trt = trt or tensorrt_api.load_tensorrt()
    device = device or CudaDevice()
    graphs.path(STATIC)  # graphs in int8 have none
    target = graphs.directory / FOLDER
    if target.exists() and not (target / SIDECAR).is_file():
        raise ConfigError(f"{target} has no {SIDECAR}: it holds no plans of ours and is not overwritten")
    graphs.check_files()
    builder = _PlanBuilder(trt, device, workspace, tf32, timing_cache or graphs.directory.parent / TIMING_CACHE)
    plans: dict[Role, PlanSpec] = {}
    with new_directory(target, replace=True) as partial, Interrupt() as interrupt:
        for role in graphs.graphs:
            if role == GROWING:  # open shapes: it is for ONNX Runtime
                continue
            path = partial / f"{role}.plan"
            data = builder.build(graphs.path(role), role, interrupt)
            _write_private(path, data)
            plans[role] = PlanSpec(path.name, hashlib.sha256(data).hexdigest(), made_from(graphs, role))
        built = PlanSet(
            graphs=graphs,
            tensorrt=tensorrt_api.version(trt),
            gpu=device.gpu,
            model_hash=graphs.model_hash,
            plans=plans,
            tf32=tf32,
            made_by=made_by,
        )
        _write_private(partial / SIDECAR, built.to_json().encode())
    return built


class _PlanBuilder:
    """One builder, one timing cache, several plans."""

    def __init__(self, trt: TensorRT, device: Device, workspace: int, tf32: bool, timing_cache: Path) -> None:
        self._trt, self._device = trt, device
        self._workspace, self._tf32, self._cache_path = workspace, tf32, timing_cache
        self._log: MessageLog = make_logger(trt)
        with device.on_stream():
            self._builder = trt.Builder(self._log)

    def build(self, path: Path, name: str, interrupt: Interrupt) -> memoryview:
        """The plan of one graph."""
        trt, progress = self._trt, BuildProgress(name, interrupt)
        network = self._builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse_from_file(str(path)):
            errors = [_describe(parser.get_error(i)) for i in range(parser.num_errors)] or [self._log.reasons()]
            raise EngineError(
                f"TensorRT {tensorrt_api.version(trt)} does not take {path}:\n" + "\n".join(f"  {e}" for e in errors)
            )
        config: BuilderConfig = self._builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self._workspace)
        if not self._tf32:
            config.clear_flag(trt.BuilderFlag.TF32)
        cache = self._load_timings(config)
        monitor = config.progress_monitor = make_monitor(trt, progress)

        def build() -> HostMemory | None:
            with self._device.on_stream():  # the thread's current device, too
                return self._builder.build_serialized_network(network, config)

        # In a thread of its own: Python delivers Ctrl-C to the main thread only, which must not be inside TensorRT.
        try:
            with ThreadPoolExecutor(1, "tensorrt-build") as thread:
                plan = thread.submit(build).result()
        finally:
            progress.close()
        if interrupt.wanted:
            raise EngineError(f"the build was interrupted at {name}; nothing was changed")
        if plan is None:
            raise EngineError(f"TensorRT could not build {path}: {self._log.reasons()}")
        self._save_timings(config)
        del cache, monitor  # TensorRT holds no references to them
        return memoryview(cast(Any, plan))

    def _load_timings(self, config: BuilderConfig) -> Any:
        known = b""
        if self._cache_path.exists():
            try:
                known = read_owned(self._cache_path)
            except EngineError as error:
                print(f"timing cache not used: {error}")
        for data in (known, b""):  # timings of another GPU or version are refused, and begun anew
            cache = config.create_timing_cache(data)
            if cache is not None and config.set_timing_cache(cache, False):
                return cache
        raise EngineError(
            f"TensorRT takes no timing cache: {self._log.reasons()}"
        )  # of another GPU or version is normal

    def _save_timings(self, config: BuilderConfig) -> None:
        """After every plan, so that an interrupted build goes on where it was."""
        temporary = self._cache_path.with_name(f".{self._cache_path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            _write_private(temporary, memoryview(cast(Any, config.get_timing_cache().serialize())))
            temporary.replace(self._cache_path)
        finally:
            temporary.unlink(missing_ok=True)


def _describe(error: tensorrt_api.ParserError) -> str:
    """One line for what the parser did not understand."""
    node = error.node_name()
    where = f"{error.node_operator()} {node}: " if node else ""
    return f"{where}{error.desc()}"


def _write_private(path: Path, data: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
