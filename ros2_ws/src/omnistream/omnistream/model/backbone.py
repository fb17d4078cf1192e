# SPDX-License-Identifier: Apache-2.0
"""The streaming vision backbone: a ViT that attends jointly over space and time, frame-causally (paper section 3.1).

One invariant holds: streaming equals batch. For any way of cutting a clip into calls and any cache policy the outputs
agree, and no output depends on a later frame. `forward` runs a whole clip, `stream()` a frame at a time; both run the
same blocks and differ only in the `attend` they pass.

Shapes: B batch, T frames, H x W pixels, h x w patches, D width; a frame's tokens are CLS, [camera], registers, patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from omnistream.errors import ConfigError, OmniStreamError
from omnistream.model.attention import clip_attention
from omnistream.model.config import BackboneConfig
from omnistream.model.layers import Attend, Block
from omnistream.model.rope import Rope, rope_tables
from omnistream.stream.policy import CachePolicy, parse_policy
from omnistream.stream.state import StreamState
from omnistream.stream.times import as_times

if TYPE_CHECKING:
    from omnistream.stream.backbone_stream import BackboneStream


@dataclass(frozen=True)
class BackboneOutput:
    """Of every frame: normed patches, CLS and camera token, and each block's raw output."""

    patches: Tensor
    """[B, T, h*w, D], final norm, row-major."""
    cls: Tensor
    """[B, T, D], final norm."""
    camera: Tensor | None
    """[B, T, D], final norm; None without a camera token."""
    hidden: list[Tensor]
    """Per kept block [B, T, tokens, D], un-normed, prefix tokens included."""
    grid: tuple[int, int]
    """(h, w)."""


class PatchEmbed(nn.Module):
    """Non-overlapping patches, linearly projected: [n, 3, H, W] -> [n, h*w, D]."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.dim, config.patch_size, stride=config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Backbone(nn.Module):
    """See the module docstring. Parameter names follow the released checkpoint, without its outer prefix."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.mask_token = nn.Parameter(torch.empty(1, dim))
        # Two variants each: index 0 for the first frame of a stream, 1 for every later one.
        self.register_token = nn.Parameter(torch.empty(1, 2, config.registers, dim))
        self.camera_token = nn.Parameter(torch.empty(1, 2, 1, dim))
        self.ar_embedder = nn.Linear(1, dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal 0.02 for weights and tokens, zeros for biases and the mask token (DINOv3's choice)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        fan_in = 3 * self.config.patch_size**2
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=1 / math.sqrt(fan_in))
        nn.init.zeros_(self.patch_embed.proj.bias)  # type: ignore[arg-type]  # Conv2d has a bias by default
        for token in (self.cls_token, self.register_token, self.camera_token):
            nn.init.trunc_normal_(token, std=0.02)
        nn.init.zeros_(self.mask_token)
        nn.init.zeros_(self.ar_embedder.weight)

    def forward(
        self,
        clip: Tensor,
        policy: str | CachePolicy = "full",
        times: Tensor | Sequence[float] | None = None,
        camera_token: bool = False,
        aspect_ratio: float | Tensor | None = None,
        *,
        keep_hidden: Sequence[int] | None = None,
    ) -> BackboneOutput:
        """Run a whole clip at once. Differentiable.

        clip: [B, T, 3, H, W], normalised; H, W multiples of the patch.
        policy: what each frame sees, as in `stream`; `full` needs no bound here.
        times: [T] or [B, T] in frames, default 0 .. T-1; fractions are fine (stamps / nominal period).
        aspect_ratio: height / width, a number or [B]; only with the camera token, and only if the model was trained so.
        keep_hidden: indices of the blocks whose outputs to keep, default all.
        Raises ConfigError for a wrong shape and StreamFull if a `full:N` policy is too short.
        """
        self.check_images(clip, 5, "clip")
        batch, frames, _, height, width = clip.shape
        grid = (height // self.config.patch_size, width // self.config.patch_size)
        first = torch.arange(frames) == 0
        x = self._tokens(clip.flatten(0, 1), first, camera_token, aspect_ratio, batch)
        tokens = x.shape[1]
        rope = self.rope((height, width), camera_token, as_times(times, frames, batch), x)
        attend = clip_attention(parse_policy(policy).visibility(frames), tokens)
        return self._run(x.reshape(batch, frames * tokens, -1), rope, attend, frames, grid, camera_token, keep_hidden)

    def stream(
        self,
        policy: str | CachePolicy = "window:16",
        camera_token: bool = False,
        aspect_ratio: float | Tensor | None = None,
        start_index: int = 0,
    ) -> BackboneStream:
        """A new stream with a persistent cache of this policy; see `BackboneStream`."""
        from omnistream.stream.backbone_stream import BackboneStream  # it imports this file

        return BackboneStream(self, parse_policy(policy), camera_token, aspect_ratio, start_index)

    @torch.no_grad()
    def step(
        self,
        state: StreamState,
        frame: Tensor,
        times: Tensor | None = None,
        aspect_ratio: float | Tensor | None = None,
        *,
        keep_hidden: Sequence[int] | None = None,
    ) -> BackboneOutput:
        """Feed one frame [B, 3, H, W] to a stream state; outputs have T = 1. The state advances only if all is well."""
        self.check_images(frame, 4, "frame")
        spec = state.spec
        spec.check_frame(frame)
        spec.policy.check(state.frames_seen + 1)
        at = state.begin(times)
        out = self.step_with(
            frame,
            torch.tensor([state.frames_seen == 0]),
            self.rope((spec.height, spec.width), spec.camera_token, at, self.norm.weight),
            state.attend,
            spec.camera_token,
            aspect_ratio,
            keep_hidden=keep_hidden,
        )
        if not bool(out.cls.isfinite().all()):  # a NaN in the cache would reach every later frame
            raise OmniStreamError("the step gave NaN or infinity: the weights are damaged, or their dtype overflows")
        state.advance()
        return out

    def step_with(
        self,
        frame: Tensor,
        first: Tensor,
        rope: Rope,
        attend: Attend,
        camera_token: bool,
        aspect_ratio: float | Tensor | None = None,
        *,
        keep_hidden: Sequence[int] | None = None,
    ) -> BackboneOutput:
        """A step as a pure function: all that a stream knows is passed in. This is what exporters trace.

        frame: [B, 3, H, W]. first: [1] bool, whether it is the stream's first. rope: as from `self.rope`.
        """
        batch, _, height, width = frame.shape
        grid = (height // self.config.patch_size, width // self.config.patch_size)
        x = self._tokens(frame, first, camera_token, aspect_ratio, batch)
        return self._run(x, rope, attend, 1, grid, camera_token, keep_hidden)

    def rope(self, size: tuple[int, int], camera_token: bool, times: Tensor, like: Tensor) -> Rope:
        """Rotary tables of frames of `size` (H, W) pixels at `times` ([T] or [B, T]), on the device and in the dtype
        of `like`."""
        grid = (size[0] // self.config.patch_size, size[1] // self.config.patch_size)
        tables = rope_tables(self.config, grid, self.config.prefix_tokens(camera_token), times)
        return Rope(*(table.to(like.device, like.dtype) for table in tables))

    def _tokens(self, images: Tensor, first: Tensor, camera: bool, aspect_ratio: Any, batch: int) -> Tensor:
        """images [B*T, 3, H, W], first [T] bool -> [B*T, tokens, D] before the blocks."""
        patches = self.patch_embed(images.to(self.patch_embed.proj.weight.dtype))
        variant = (~first).long().repeat(batch).to(patches.device)
        prefix = [self.cls_token.expand(len(patches), -1, -1)]
        if camera:
            token = self.camera_token[0].index_select(0, variant)
            if aspect_ratio is not None:
                ratio = torch.as_tensor(aspect_ratio, dtype=torch.float32, device=patches.device).reshape(-1)
                if len(ratio) not in (1, batch) or not bool(((ratio > 0) & ratio.isfinite()).all()):
                    raise ConfigError(
                        f"aspect_ratio is {ratio.tolist()}; expected positive height/width, one or {batch}"
                    )
                log_ratio = ratio.log().expand(batch)[:, None].to(patches.dtype)
                token = token + self.ar_embedder(log_ratio).repeat_interleave(len(first), 0)[:, None]
            prefix.append(token)
        elif aspect_ratio is not None:
            raise ConfigError("aspect_ratio is given without camera_token=True; it is added to the camera token only")
        prefix.append(self.register_token[0].index_select(0, variant))
        return torch.cat([*prefix, patches], dim=1)

    def _run(
        self,
        x: Tensor,
        rope: Rope,
        attend: Attend,
        frames: int,
        grid: tuple[int, int],
        camera: bool,
        keep_hidden: Sequence[int] | None,
    ) -> BackboneOutput:
        keep = range(self.config.depth) if keep_hidden is None else keep_hidden
        if not all(0 <= layer < self.config.depth for layer in keep):
            raise ConfigError(f"keep_hidden is {list(keep)}; expected blocks from 0 to {self.config.depth - 1}")
        hidden = []
        for layer, block in enumerate(self.blocks):
            x = block(x, rope, layer, attend)
            if layer in keep:
                hidden.append(x.unflatten(1, (frames, -1)))
        final = self.norm(x).unflatten(1, (frames, -1))
        prefix = self.config.prefix_tokens(camera)
        return BackboneOutput(final[:, :, prefix:], final[:, :, 0], final[:, :, 1] if camera else None, hidden, grid)

    def check_images(self, images: Tensor, dims: int, name: str) -> None:
        """Raise ConfigError unless `images` is a non-empty float tensor of `dims` dimensions with sides that fit."""
        expected = "[B, T, 3, H, W]" if dims == 5 else "[B, 3, H, W]"
        if not isinstance(images, Tensor):
            raise ConfigError(f"{name} is a {type(images).__name__}; expected a float tensor {expected}")
        if images.ndim != dims or images.shape[-3] != 3 or not images.is_floating_point() or 0 in images.shape:
            raise ConfigError(f"{name} is {images.dtype} {tuple(images.shape)}; expected a non-empty float {expected}")
        height, width = images.shape[-2:]
        patch = self.config.patch_size
        if height % patch or width % patch:
            raise ConfigError(f"{name} is {height} x {width} pixels; both sides must be multiples of {patch}")
