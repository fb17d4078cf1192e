# SPDX-License-Identifier: Apache-2.0
"""What streams are held against: a cache that grows by concatenation, and no cache at all."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omnistream.model.backbone import Backbone


class Concatenation:
    """A step as plain streaming transformer code does it: past keys and values of every layer, `torch.cat`, attention.

    The past is given anew for every step, so that one can be measured again and again at the same length.
    """

    def __init__(self, backbone: Backbone, camera_token: bool, past: Tensor, times: Tensor) -> None:
        """past: [layers, 2, B, heads, frames * tokens, head width]. times: [1], of the coming frame."""
        self._backbone = backbone
        self._camera = camera_token
        self._past = [(keys.contiguous(), values.contiguous()) for keys, values in past]
        self._times = times

    @torch.no_grad()
    def step(self, frame: Tensor) -> Tensor:
        """[B, 3, H, W] -> patches [B, h*w, D], normed."""
        kept: list[tuple[Tensor, Tensor]] = []  # held until the frame is done, as the next frame needs them

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = (torch.cat((old, new), dim=2) for old, new in zip(self._past[layer], (k, v), strict=True))
            kept.append((keys, values))
            return F.scaled_dot_product_attention(q, keys, values)

        size = (frame.shape[-2], frame.shape[-1])
        rope = self._backbone.rope(size, self._camera, self._times, self._backbone.patch_embed.proj.weight)
        first = torch.tensor([False])
        out = self._backbone.step_with(frame, first, rope, attend, self._camera, keep_hidden=())
        return out.patches[:, 0]

    @property
    def nbytes(self) -> int:
        """Of the past. After the step the cache has one frame more, and while it runs both exist."""
        return sum(keys.nbytes + values.nbytes for keys, values in self._past)


class Recompute:
    """All frames of the window again, for every new one."""

    def __init__(self, backbone: Backbone, camera_token: bool, frames: int) -> None:
        self._backbone = backbone
        self._camera = camera_token
        self._frames = frames

    @torch.no_grad()
    def step(self, frame: Tensor) -> Tensor:
        """[B, 3, H, W] -> patches [B, h*w, D], normed, of the last of `frames` frames."""
        clip = frame[:, None].expand(-1, self._frames, -1, -1, -1)
        return self._backbone(clip, camera_token=self._camera, keep_hidden=()).patches[:, -1]
