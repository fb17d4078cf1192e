# SPDX-License-Identifier: Apache-2.0
"""The torch engine's steps as one CUDA graph: a small ViT computes for less time than its kernels take to be launched.

Only while the cache is full: then every step attends to the same memory and does the same, at another slot, time and
picture, which are inputs. Not run on a GPU yet; on host memory its bookkeeping is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from omnistream.engines.cuda_device import Device
from omnistream.errors import OmniStreamError
from omnistream.model.backbone import Backbone, BackboneOutput
from omnistream.model.rope import Rope, rope_tables
from omnistream.stream.state import StreamState


class GraphedBackbone:
    """One stream's steps. Holds the memory that the graph reads and writes, not the stream itself."""

    def __init__(self, backbone: Backbone, state: StreamState, taps: Sequence[int], device: Device) -> None:
        """taps: blocks whose outputs are kept. device: where the state is, with a stream of its own."""
        spec, config = state.spec, backbone.config
        self._backbone, self._taps, self._device = backbone, taps, device
        self._kv, self._camera = state.kv, spec.camera_token
        self._grid = (spec.height // config.patch_size, spec.width // config.patch_size)
        shapes = {
            "pixels": (spec.batch, 3, spec.height, spec.width),
            "cos": (spec.batch, 1, state.tokens, config.head_dim),
            "sin": (spec.batch, 1, state.tokens, config.head_dim),
        }
        self._inputs = {name: device.zeros(shape, torch.float32) for name, shape in shapes.items()}
        self._inputs["rows"] = device.zeros((state.tokens,), torch.int64)
        self._staging = {name: device.staging(tuple(x.shape), x.dtype) for name, x in self._inputs.items()}
        self._not_first = device.zeros((1,), torch.bool)
        self._outputs: list[Tensor] = []
        self._replay: Callable[[], None] | None = None
        self._executed, self._capturable = False, True

    @staticmethod
    def fits(state: StreamState) -> bool:
        """Whether the coming frame overwrites a slot of a full cache."""
        policy = state.spec.policy
        return policy.evicts and state.filled == policy.slots

    @torch.no_grad()
    def step(self, state: StreamState, frame: Tensor, times: Tensor | None, *, hidden: bool = True) -> BackboneOutput:
        """As `Backbone.step`, for a state that `fits`; without the tapped blocks unless `hidden`."""
        config, start = self._backbone.config, state.spec.policy.slot(state.frames_seen) * state.tokens
        rope = rope_tables(config, self._grid, config.prefix_tokens(self._camera), state.begin(times))
        values = {"pixels": frame, "cos": rope.cos, "sin": rope.sin, "rows": torch.arange(state.tokens) + start}
        with self._device.on_stream():
            for name, value in values.items():
                if value.device.type == "cpu":
                    value = self._staging[name].copy_(value)
                self._inputs[name].copy_(value, non_blocking=True)
            self._launch()
            # Copies, because the next step overwrites the graph's own.
            wanted = self._outputs if hidden else self._outputs[:3]
            patches, cls, camera, *blocks = (self._device.hand_over(value) for value in wanted)
        self._device.synchronize()
        if not bool(cls.isfinite().all()):  # a NaN in the cache would reach every later frame
            raise OmniStreamError("the step gave NaN or infinity: the weights are damaged, or their dtype overflows")
        state.advance()
        return BackboneOutput(patches, cls, camera if self._camera else None, blocks, self._grid)

    def _launch(self) -> None:
        """The first step runs as it is, as libraries allocate then; the second is captured, all others are replayed."""
        if self._replay is None and self._executed and self._capturable:
            self._replay = self._device.capture(self._execute)
            self._capturable = self._replay is not None
        if self._replay is not None:
            self._replay()
        else:
            self._execute()
        self._executed = True

    def _execute(self) -> None:
        inputs = self._inputs

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for cache, new in zip(self._kv[layer], (k, v), strict=True):
                cache.index_copy_(2, inputs["rows"], new)
            return F.scaled_dot_product_attention(q, *self._kv[layer])

        out = self._backbone.step_with(
            inputs["pixels"],
            self._not_first,
            Rope(inputs["cos"], inputs["sin"]),
            attend,
            self._camera,
            keep_hidden=self._taps,
        )
        results = [out.patches, out.cls, out.cls if out.camera is None else out.camera, *out.hidden]
        if not self._outputs:
            self._outputs = [self._device.zeros(tuple(result.shape), result.dtype) for result in results]
        for memory, result in zip(self._outputs, results, strict=True):
            memory.copy_(result)
