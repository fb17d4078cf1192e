# SPDX-License-Identifier: Apache-2.0
"""The model as pure functions of tensors, in the form that is traced: one step of the backbone, and the heads.

Whatever a stream knows comes in as an input: rotary tables (computed on the host in float64), whether the frame is the
first, the slot to write, the caches. So the same graph serves every frame.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, library, nn

from omnistream.engines.graph_io import TAP
from omnistream.heads.heads import HeadOutputs
from omnistream.model.backbone import BackboneOutput
from omnistream.model.omnistream import OmniStream
from omnistream.model.rope import Rope

HEAD_OUTPUTS = tuple(field.name for field in dataclasses.fields(HeadOutputs))


@library.custom_op("omnistream::cache_write", mutates_args=())
def cache_write(cache: Tensor, update: Tensor, index: Tensor) -> Tensor:
    """cache [B, H, S, d] with update [B, H, N, d] at tokens index[b] .. index[b] + N - 1 of batch row b.

    Becomes TensorScatter, which runtimes execute in place when the result is bound to the cache's memory.
    """
    out = cache.clone()
    for b, start in enumerate(index.tolist()):
        out[b, :, start : start + update.shape[2]] = update[b]
    return out


@cache_write.register_fake
def _(cache: Tensor, update: Tensor, index: Tensor) -> Tensor:
    return torch.empty_like(cache)


class BackboneStep(nn.Module):
    """One step of the backbone. The tapped blocks' patches come out too, for the heads; they cost nothing."""

    def __init__(self, model: OmniStream) -> None:
        super().__init__()
        self.backbone = model.backbone
        self._camera = model.config.camera_token
        self._taps = () if model.config.heads is None else model.config.heads.taps

    @property
    def input_names(self) -> list[str]:
        """Of the graph, caches last."""
        return ["pixels", "first_frame", "rope_cos", "rope_sin", "write_index", "key_mask", *self.cache_names]

    @property
    def output_names(self) -> list[str]:
        """Of the graph; those of the caches are named as their inputs, with `new_` before."""
        camera = ["camera_token"] if self._camera else []
        taps = [f"{TAP}{i}" for i in range(len(self._taps))]
        return ["patches", "cls", *camera, *taps, *(f"new_{name}" for name in self.cache_names)]

    @property
    def cache_names(self) -> list[str]:
        """Two of each layer."""
        return [f"{kind}_cache_{layer}" for layer in range(self.backbone.config.depth) for kind in ("key", "value")]

    def forward(
        self,
        pixels: Tensor,
        first_frame: Tensor,
        rope_cos: Tensor,
        rope_sin: Tensor,
        write_index: Tensor,
        key_mask: Tensor,
        caches: list[Tensor],
    ) -> tuple[Tensor, ...]:
        written: list[Tensor] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = (
                cache_write(cache, new, write_index)
                for cache, new in zip(caches[2 * layer : 2 * layer + 2], (k, v), strict=True)
            )
            written.extend((keys, values))
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=key_mask)

        rope = Rope(rope_cos, rope_sin)
        out = self.backbone.step_with(pixels, first_frame, rope, attend, self._camera, keep_hidden=self._taps)
        camera = () if out.camera is None else (out.camera[:, 0],)
        patches = out.patches.shape[2]
        taps = (hidden[:, 0, -patches:] for hidden in out.hidden)
        return (out.patches[:, 0], out.cls[:, 0], *camera, *taps, *written)


class HeadsStep(nn.Module):
    """All heads on one frame's tokens, in float32 as always: depth is an exponential."""

    def __init__(self, model: OmniStream, height: int, width: int) -> None:
        super().__init__()
        assert model.heads is not None
        self.heads = model.heads
        self._size = (height, width)
        self._grid = (height // model.config.backbone.patch_size, width // model.config.backbone.patch_size)

    @property
    def input_names(self) -> list[str]:
        """Outputs of the backbone's graph."""
        return ["camera_token", *(f"{TAP}{i}" for i in range(len(self.heads.config.taps)))]

    @property
    def output_names(self) -> list[str]:
        """Fields of `HeadOutputs`."""
        return list(HEAD_OUTPUTS)

    def forward(self, camera_token: Tensor, taps: list[Tensor]) -> tuple[Tensor, ...]:
        hidden = [tap[:, None] for tap in taps]
        camera = camera_token[:, None]
        out = BackboneOutput(patches=hidden[0], cls=camera, camera=camera, hidden=hidden, grid=self._grid)
        heads: HeadOutputs = self.heads(out, self._size)
        return tuple(getattr(heads, name)[:, 0] for name in HEAD_OUTPUTS)
