# SPDX-License-Identifier: Apache-2.0
"""All heads of a model, run by name: whoever steps says what is wanted, and nothing else is computed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, nn

from omnistream.errors import ConfigError
from omnistream.heads.camera import CameraHead
from omnistream.heads.dpt import DualDPT
from omnistream.model.backbone import BackboneOutput
from omnistream.model.config import HeadConfig

HEADS = ("depth", "rays", "pose")
LOG_DEPTH_LIMIT = 12.0
"""exp(12) is 160 km: beyond any scene, and far from overflow."""


@dataclass(frozen=True)
class HeadOutputs:
    """Raw head outputs; losses and the streaming invariant look at these. Heads that were not wanted are None."""

    log_depth: Tensor | None = None
    """[B, T, H, W]; depth = exp of it, along the optical axis."""
    depth_confidence: Tensor | None = None
    """[B, T, H, W] raw; the confidence is 1 + exp of it."""
    rays: Tensor | None = None
    """[B, T, H/2, W/2, 6]: origin and direction in the frame that `camera` is in, see `rays_in_first_camera`; point =
    origin + depth * direction."""
    ray_confidence: Tensor | None = None
    """[B, T, H/2, W/2] raw."""
    camera: Tensor | None = None
    """[B, T, 9] raw, in a frame of the network's choosing: see `split_camera` and `in_first_camera`."""

    @property
    def depth(self) -> Tensor | None:
        """[B, T, H, W], positive."""
        return None if self.log_depth is None else self.log_depth.clamp(-LOG_DEPTH_LIMIT, LOG_DEPTH_LIMIT).exp()


def confidence(raw: Tensor) -> Tensor:
    """1 + exp(raw): 1 is no confidence at all."""
    return 1 + raw.clamp(max=LOG_DEPTH_LIMIT).exp()


class Heads(nn.Module):
    """Dual DPT and camera head over the backbone's output."""

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.dpt = DualDPT(dim, config)
        self.camera = CameraHead(dim)

    def forward(self, out: BackboneOutput, size: tuple[int, int], want: Collection[str] = HEADS) -> HeadOutputs:
        """`out` must hold exactly the tapped blocks in `hidden` (`Backbone.forward(keep_hidden=config.taps)`).

        size: (H, W) of the frames. want: any of HEADS. Runs in float32 whatever the backbone's dtype: depth is an
        exponential, and bfloat16 would quantise it by 0.4 %.
        """
        unknown = set(want) - set(HEADS)
        if unknown:
            raise ConfigError(f"unknown head(s) {sorted(unknown)}; expected any of {', '.join(HEADS)}")
        batch, frames = out.patches.shape[:2]
        depth = rays = camera = None
        if "depth" in want or "rays" in want:
            if len(out.hidden) != len(self.config.taps):
                raise ConfigError(f"heads got {len(out.hidden)} hidden layers; expected the blocks {self.config.taps}")
            patches = out.patches.shape[2]
            taps = [hidden[:, :, -patches:].flatten(0, 1).float() for hidden in out.hidden]
            depth, rays = self.dpt(taps, out.grid, size, "depth" in want, "rays" in want)
        if "pose" in want:
            if out.camera is None:
                raise ConfigError("the pose head needs a camera token; run the backbone with camera_token=True")
            camera = self.camera(out.camera.float())
        split = (batch, frames)
        return HeadOutputs(
            log_depth=None if depth is None else depth[:, 0].unflatten(0, split),
            depth_confidence=None if depth is None else depth[:, 1].unflatten(0, split),
            rays=None if rays is None else rays[:, :6].unflatten(0, split).movedim(2, -1),
            ray_confidence=None if rays is None else rays[:, 6].unflatten(0, split),
            camera=camera,
        )
