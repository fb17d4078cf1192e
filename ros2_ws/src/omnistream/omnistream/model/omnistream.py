# SPDX-License-Identifier: Apache-2.0
"""The whole model: backbone and heads. Training runs `forward` on clips; engines run its parts frame by frame."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from torch import Tensor, nn

from omnistream.errors import ConfigError
from omnistream.heads.heads import HEADS, HeadOutputs, Heads
from omnistream.model.backbone import Backbone, BackboneOutput
from omnistream.model.config import ModelConfig
from omnistream.stream.policy import CachePolicy


class OmniStream(nn.Module):
    """`backbone`, and `heads` or None for a backbone-only checkpoint."""

    checkpoint: Path | None = None
    """What it was loaded from, if anything: exported graphs are looked for beside it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.heads = None if config.heads is None else Heads(config.backbone.dim, config.heads)

    def forward(
        self,
        clip: Tensor,
        policy: str | CachePolicy = "full",
        times: Tensor | Sequence[float] | None = None,
        aspect_ratio: float | Tensor | None = None,
        want: Collection[str] | None = None,
    ) -> tuple[BackboneOutput, HeadOutputs]:
        """A clip [B, T, 3, H, W], normalised -> features and the wanted heads (default: all there are)."""
        if want is None:
            want = HEADS if self.heads is not None else ()
        taps = () if self.heads is None else self.heads.config.taps
        out = self.backbone(clip, policy, times, self.config.camera_token, aspect_ratio, keep_hidden=taps)
        return out, self.run_heads(out, (clip.shape[-2], clip.shape[-1]), want)

    def run_heads(self, out: BackboneOutput, size: tuple[int, int], want: Collection[str]) -> HeadOutputs:
        """The wanted heads on a backbone output that kept the tapped blocks. ConfigError if there are no heads."""
        if not want:
            return HeadOutputs()
        if self.heads is None:
            raise ConfigError(f"this checkpoint has no heads; it cannot give {', '.join(sorted(want))}")
        return self.heads(out, size, want)
