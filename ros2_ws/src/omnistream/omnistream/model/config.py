# SPDX-License-Identifier: Apache-2.0
"""What a model is, as frozen dataclasses: backbone, heads, and how images enter. A checkpoint stores exactly this."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from omnistream.errors import ConfigError
from omnistream.strict import build

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

FRAMES_PER_TIME_UNIT = 16
"""t = n / 16 for frame n, whatever the clip length (the paper trains with T = 16, so t < 1 there)."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A DINOv3-style ViT whose blocks attend jointly over space and time, frame-causally."""

    dim: int
    depth: int
    heads: int
    patch_size: int = 16
    registers: int = 4
    mlp_ratio: float = 4.0
    ffn: Literal["mlp", "swiglu"] = "mlp"
    rope_layout: Literal["rotary", "released"] = "rotary"
    """`rotary`: angles [y, x, y, x], a true rotation (DINOv3). `released`: [y, y, x, x], the authors' checkpoint."""
    temporal_rope: bool = True
    """False puts the y/x frequencies that time displaced back: then a single image is treated exactly as by DINOv3."""
    rope_base: float = 100.0
    norm_eps: float = 1e-5
    layer_scale_init: float = 0.01

    def __post_init__(self) -> None:
        for name in ("dim", "depth", "heads", "patch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"backbone.{name} is {getattr(self, name)}; expected a positive integer")
        for name in ("mlp_ratio", "rope_base", "norm_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"backbone.{name} is {getattr(self, name)}; expected a positive number")
        if self.registers < 0:
            raise ConfigError(f"backbone.registers is {self.registers}; expected 0 or more")
        if self.dim % self.heads:
            raise ConfigError(f"backbone.dim {self.dim} is not divisible by backbone.heads {self.heads}")
        if self.head_dim % 8:
            raise ConfigError(
                f"head width {self.head_dim} (dim/heads) must be a multiple of 8 for the 3-D rotary embedding"
            )
        if self.ffn not in ("mlp", "swiglu"):
            raise ConfigError(f"backbone.ffn is {self.ffn!r}; expected 'mlp' or 'swiglu'")
        if self.rope_layout not in ("rotary", "released"):
            raise ConfigError(f"backbone.rope_layout is {self.rope_layout!r}; expected 'rotary' or 'released'")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def mlp_width(self) -> int:
        """Hidden width of the feed-forward layer; SwiGLU keeps the parameter count: 2/3 of it, rounded up to 8."""
        width = int(self.dim * self.mlp_ratio)
        return width if self.ffn == "mlp" else (int(width * 2 / 3) + 7) // 8 * 8

    def prefix_tokens(self, camera_token: bool) -> int:
        """Tokens before the patches: CLS, [camera], registers."""
        return 1 + int(camera_token) + self.registers

    def tokens_per_frame(self, height: int, width: int, camera_token: bool) -> int:
        """Tokens of one `height` x `width` pixel frame."""
        return self.prefix_tokens(camera_token) + (height // self.patch_size) * (width // self.patch_size)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Dual DPT (depth and rays) on four taps, and a camera head on the camera token."""

    taps: tuple[int, int, int, int]
    """Indices of the blocks whose outputs feed the DPT, shallow to deep."""
    projections: tuple[int, int, int, int]
    """Channels of the four reassembled levels (strides 4, 8, 16, 32 for patch 16)."""
    features: int
    """Channels of the two fusion chains."""

    def __post_init__(self) -> None:
        if len(self.taps) != 4 or list(self.taps) != sorted(set(self.taps)) or self.taps[0] < 0:
            raise ConfigError(f"heads.taps is {self.taps}; expected four increasing block indices")
        if len(self.projections) != 4 or min(self.projections) < 1:
            raise ConfigError(f"heads.projections is {self.projections}; expected four positive channel counts")
        if self.features < 2 or self.features % 2:
            raise ConfigError(f"heads.features is {self.features}; expected an even number")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Backbone, optional heads, and how an image becomes their input."""

    backbone: BackboneConfig
    heads: HeadConfig | None = None
    camera_token: bool = False
    """Whether the stream carries a camera token. Needed by the camera head; it changes every other token too."""
    image_size: int = 224
    """Pixel budget: the session resizes to about image_size**2 pixels in the image's aspect ratio."""
    scale: Literal["metric", "relative", "none"] = "none"
    """Unit of depth and translation: metres, an unknown factor per stream, or nothing (untrained)."""
    lens: Literal["guessed", "known"] = "guessed"
    """Whether depth is right as it comes, or once the camera's intrinsics have corrected it (`StreamSession.step`'s K):
    a checkpoint trained the second way need not guess how much of a picture the lens has made."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.image_size < self.backbone.patch_size:
            raise ConfigError(f"image_size {self.image_size} is smaller than one patch ({self.backbone.patch_size})")
        if self.scale not in ("metric", "relative", "none"):
            raise ConfigError(f"scale is {self.scale!r}; expected 'metric', 'relative' or 'none'")
        if self.lens not in ("guessed", "known"):
            raise ConfigError(f"lens is {self.lens!r}; expected 'guessed' or 'known'")
        if min(self.std) <= 0:
            raise ConfigError(f"std is {self.std}; expected three positive numbers")
        if self.heads is not None:
            if self.heads.taps[-1] >= self.backbone.depth:
                raise ConfigError(f"heads.taps {self.heads.taps} name a block beyond depth {self.backbone.depth}")
            if not self.camera_token:
                raise ConfigError("heads need camera_token: true (the camera head reads the camera token)")

    @property
    def outputs(self) -> tuple[str, ...]:
        """What a checkpoint with this configuration can give."""
        return ("features",) if self.heads is None else ("features", "depth", "rays", "pose")


def _preset(dim: int, depth: int, heads: int, features: int, projections: tuple[int, int, int, int]) -> ModelConfig:
    # Taps at even intervals, the last block included (VGGT, DINOv3): [2,5,8,11] for 12 blocks, [4,11,17,23] for 24.
    taps = (4, 11, 17, 23) if depth == 24 else (depth // 4 - 1, depth // 2 - 1, depth * 3 // 4 - 1, depth - 1)
    return ModelConfig(
        backbone=BackboneConfig(dim=dim, depth=depth, heads=heads),
        heads=HeadConfig(taps=taps, projections=projections, features=features),
        camera_token=True,
    )


PRESETS: dict[str, ModelConfig] = {
    "nano": _preset(192, 8, 3, 32, (24, 48, 96, 128)),
    "tiny": _preset(192, 12, 3, 48, (48, 96, 144, 192)),
    "small": _preset(384, 12, 6, 64, (48, 96, 192, 384)),
    "base": _preset(768, 12, 12, 128, (96, 192, 384, 768)),
    "large": _preset(1024, 24, 16, 256, (256, 512, 1024, 1024)),
}


def preset(name: str) -> ModelConfig:
    """The named preset; `ConfigError` lists the names."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """Plain JSON/YAML data."""
    return dataclasses.asdict(config)


def config_from_dict(data: dict[str, Any]) -> ModelConfig:
    """Inverse of `config_to_dict`. Unknown, missing and mistyped fields are refused by name (`ConfigError`)."""
    return build(ModelConfig, data, "model")
