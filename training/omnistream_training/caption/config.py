# SPDX-License-Identifier: Apache-2.0
"""The captioning task: what is asked of the pictures, and the decoder that answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from omnistream.errors import ConfigError

KINDS = ("describe", "list", "ground", "read")
"""Captioning, what is where and how many, boxes as text, and text that is written into the picture (OCR)."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of a decoder from nothing; a pre-trained one brings its own."""

    dim: int = 128
    depth: int = 2
    heads: int = 4
    key_heads: int = 2
    mlp: int = 384

    def __post_init__(self) -> None:
        if min(self.dim, self.depth, self.heads, self.key_heads, self.mlp) < 1:
            raise ConfigError(f"caption.decoder is {self}; expected sizes of 1 or more")
        if self.dim % self.heads or self.heads % self.key_heads or self.dim // self.heads % 2:
            raise ConfigError(
                f"caption.decoder.dim {self.dim}, heads {self.heads}, key_heads {self.key_heads}: expected dim / heads "
                "even and heads a multiple of key_heads"
            )


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """What a step of captioning sees."""

    pictures: int = 8
    """Per step, each a stream of one frame."""
    size: tuple[int, int] = (224, 224)
    """Height and width, multiples of the patch."""
    live: str | None = "worlds"
    """Renderer of the group `omnistream.clips` that can also give text, ids and things. None: `data` only."""
    live_options: dict[str, str] = field(default_factory=dict)
    live_weight: float = 1.0
    """How often the renderer's pictures are asked about, against the weights of `data`."""
    data: dict[str, float] = field(default_factory=dict)
    """Pictures with texts, each with its weight: LLaVA-style .json files, folders, WebDataset shards."""
    images: str | None = None
    """What the pictures of .json files are relative to. None: their own folder, or images/ in it."""
    describe: float = 0.3
    """Share of pictures to describe in the renderer's words."""
    list: float = 0.2
    """Share of pictures whose things are to be counted and named from left to right."""
    ground: float = 0.3
    """Share of pictures in which a thing is to be found."""
    read: float = 0.2
    """Share of pictures with a word written into them, to be read."""
    smallest: float = 0.004
    """Share of the picture that a thing has to cover to be asked for."""
    max_tokens: int = 256
    """Longest question and answer together; a longer answer is cut, without an end, and counted in the journal."""
    language_model: str | None = None
    """Directory of a Qwen3 (the paper: Qwen3-0.6B) with its tokeniser. None: a random decoder that reads bytes."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def __post_init__(self) -> None:
        if self.live is None and not self.data:
            raise ConfigError("caption has no source: set caption.live, or give caption.data")
        drawn = (0.0 if self.live is None else self.live_weight, *self.data.values())
        if min(self.live_weight, *drawn) < 0 or not max(drawn) > 0:
            raise ConfigError(
                f"caption.live_weight {self.live_weight}, data {self.data}: expected weights of 0 or more, not all 0"
            )
        shares = [getattr(self, kind) for kind in KINDS]
        if min(shares) < 0 or not sum(shares) > 0:
            raise ConfigError(
                f"caption shares are {dict(zip(KINDS, shares, strict=True))}; expected 0 or more, not all 0"
            )
        if self.pictures < 1 or self.max_tokens < 8 or not 0 < self.smallest < 1:
            raise ConfigError(
                f"caption.pictures {self.pictures}, max_tokens {self.max_tokens}, smallest {self.smallest}: expected 1 "
                "or more, 8 or more, between 0 and 1"
            )
