# SPDX-License-Identifier: Apache-2.0
"""The torch engine: the model itself, in the dtype the machine runs best. Other engines are held against it."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Collection
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from omnistream.engines.base import TAPS, EngineSpec, StepOutputs
from omnistream.engines.cuda_device import CudaDevice, Device
from omnistream.engines.graph_io import check_step
from omnistream.engines.graphed_backbone import GraphedBackbone
from omnistream.errors import EngineError
from omnistream.heads.heads import HeadOutputs
from omnistream.model.layers import narrow_products
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import CachePolicy
from omnistream.stream.state import StreamState
from omnistream.weights.identity import model_hash

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
READ_TAPS = {"depth", "rays", TAPS}
"""What of `want` needs the tapped blocks."""


class TorchEngine:
    """See `Engine`. Products of the backbone and the cache are in `dtype`, residual stream and heads in float32."""

    def __init__(
        self,
        model: OmniStream,
        device: torch.device,
        dtype: torch.dtype,
        *,
        cuda_graph: bool = False,
        graph_device: Device | None = None,
    ) -> None:
        """cuda_graph: replay the steps of a full cache as one CUDA graph (`graphed_backbone`). Not run on a GPU yet, so
        nothing chooses it. graph_device: for tests.
        """
        if dtype is torch.float16 and device.type == "cpu":
            raise EngineError("dtype float16 is slower than float32 on a CPU; expected float32 or bfloat16")
        # The caller's model is left as it is: a deep copy only where something has to change.
        found = {(weight.device, weight.dtype) for weight in model.backbone.parameters()}
        fits = dtype is torch.float32 and found == {(device, dtype)} and not model.training
        self._model = model if fits else copy.deepcopy(model).to(device)
        self._model.eval()
        narrow_products(self._model.backbone, dtype)
        self._taps = () if model.heads is None else model.heads.config.taps
        self._graph_device = graph_device or (CudaDevice(str(device)) if cuda_graph else None)
        self._graphed: WeakKeyDictionary[StreamState, GraphedBackbone] = WeakKeyDictionary()
        name = "torch" if self._graph_device is None else "torch-graph"
        self.spec = EngineSpec(name, str(device), dtype, model.config, model_hash(model))

    def new_state(self, policy: CachePolicy, batch: int, height: int, width: int, start_index: int = 0) -> StreamState:
        spec = self.spec.state_spec(policy, batch, height, width)
        return StreamState(self.spec.model.backbone, spec, start_index=start_index, device=self.spec.device)

    def cache_nbytes(self, policy: CachePolicy, batch: int, height: int, width: int) -> int:
        return self.spec.state_spec(policy, batch, height, width).nbytes(self.spec.model.backbone)

    @torch.no_grad()
    def step(self, state: StreamState, frames: Tensor, times: Tensor | None, want: Collection[str]) -> StepOutputs:
        start = self._now()
        check_step(self.spec.model, state, frames, want)
        frames = frames.to(self.spec.device)
        if self._graph_device is not None and GraphedBackbone.fits(state):
            out = self._graph_of(state, self._graph_device).step(
                state, frames, times, hidden=bool(READ_TAPS & set(want))
            )
        else:
            out = self._model.backbone.step(state, frames, times, keep_hidden=self._taps)
        middle = self._now()
        try:
            heads = self._model.run_heads(out, (frames.shape[-2], frames.shape[-1]), set(want) - {TAPS})
        except Exception:  # out of memory, say
            state.take_back()
            raise
        end = self._now()
        return StepOutputs(
            patches=out.patches[:, 0].float(),
            cls=out.cls[:, 0].float(),
            camera=None if out.camera is None else out.camera[:, 0].float(),
            heads=_drop_time(heads),
            backbone_ms=(middle - start) * 1e3,
            heads_ms=(end - middle) * 1e3,
            taps=tuple(hidden[:, 0, -out.patches.shape[2] :].float() for hidden in out.hidden) if TAPS in want else (),
        )

    def close(self) -> None:
        self._graphed.clear()
        self.__dict__.pop("_model", None)

    def _graph_of(self, state: StreamState, device: Device) -> GraphedBackbone:
        if state not in self._graphed:
            self._graphed[state] = GraphedBackbone(self._model.backbone, state, self._taps, device)
        return self._graphed[state]

    def _now(self) -> float:
        if self.spec.device.startswith("cuda"):
            torch.cuda.synchronize(self.spec.device)
        return time.perf_counter()


def _drop_time(heads: HeadOutputs) -> HeadOutputs:
    values = {f.name: getattr(heads, f.name) for f in dataclasses.fields(heads)}
    return HeadOutputs(**{name: None if value is None else value[:, 0] for name, value in values.items()})
