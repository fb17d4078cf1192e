# SPDX-License-Identifier: Apache-2.0
"""Device memory, one stream and CUDA graphs, as the TensorRT engine and captured torch steps use them.

`Device` is the seam: the tests put host memory there, and everything above it is what runs on a robot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from omnistream.errors import EngineError

log = logging.getLogger(__name__)


class Device(Protocol):
    """Where plans run."""

    @property
    def name(self) -> str:
        """As torch names it."""
        ...

    @property
    def gpu(self) -> str:
        """Its model, such as "NVIDIA H200"."""
        ...

    @property
    def stream(self) -> int:
        """Handle of the one stream on which everything runs; not the default stream."""
        ...

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory for a plan; it stays where it is."""
        ...

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Host memory that can be copied from asynchronously."""
        ...

    def on_stream(self) -> AbstractContextManager[None]:
        """Within it torch works on our stream, after all that the caller's stream was told before."""
        ...

    def hand_over(self, value: Tensor) -> Tensor:
        """A float32 copy for the caller, made on our stream; valid after `synchronize`."""
        ...

    def capture(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        """What `launch` puts on the stream, recorded once: the result puts it there again. None if it cannot be."""
        ...

    def synchronize(self) -> None:
        """Wait for our stream."""
        ...


class CudaDevice:
    """See `Device`."""

    def __init__(self, name: str = "cuda:0") -> None:
        if not torch.cuda.is_available():
            raise EngineError("this engine needs a CUDA GPU that torch can use; torch.cuda.is_available() is False")
        self._device = torch.device(name)
        if self._device.type != "cuda":
            raise EngineError(f"this engine runs on device cuda or cuda:N; found {name!r}")
        self._stream = torch.cuda.Stream(self._device)
        self._caller = torch.cuda.current_stream(self._device)

    @property
    def name(self) -> str:
        return str(self._device)

    @property
    def gpu(self) -> str:
        return torch.cuda.get_device_name(self._device)

    @property
    def stream(self) -> int:
        return self._stream.cuda_stream

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self._device)

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        self._caller = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(self._caller)
        with torch.cuda.stream(self._stream):
            yield

    def hand_over(self, value: Tensor) -> Tensor:
        copy = value.to(torch.float32, copy=True)
        # It was allocated on our stream and is used on the caller's: its memory must not be reused before that is done.
        copy.record_stream(self._caller)
        return copy

    def capture(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of a node may allocate meanwhile; that is no business of this capture.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                launch()
        except (RuntimeError, EngineError) as error:
            log.warning("this cannot be captured as a CUDA graph and is launched as it is: %s", error)
            return None
        return graph.replay

    def synchronize(self) -> None:
        self._stream.synchronize()
