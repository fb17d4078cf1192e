# SPDX-License-Identifier: Apache-2.0
"""What a policy is, as frozen dataclasses. A checkpoint stores exactly this.

Two ways from tokens to actions:

    decoder   every visual token passes through the language model, whose last hidden state feeds the head (VLM4VLA,
              arXiv 2601.03309; the paper's way, for a language model that was pre-trained).
    pooled    the language model reads the instruction and a summary of the picture; what it says conditions an
              attention pooling over all patches, which keeps coordinates (for one that is trained from nothing: as
              the only trunk it learnt no precise control in the same time, docs/policy.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from omnistream.errors import ConfigError
from omnistream.stream.policy import parse_policy
from omnistream.stream.preprocess import kept_small


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """How a camera becomes tokens. The same for training and for the robot."""

    source: Literal["backbone", "pixels"] = "backbone"
    """`backbone`: CLS and patch tokens of the frozen stream. `pixels`: the normalised patches themselves, without any
    network and without memory: the control that says what the backbone is worth."""
    stream: str = "sink_window:1,15"
    """What stays in the stream's cache, which is the policy's visual memory. `window:1` sees single frames."""
    taps: tuple[int, ...] = ()
    """Which of the blocks that the checkpoint's heads tap (0: the shallowest) stand beside the final patch tokens. The
    last block was trained for depth and has let go of some of what a hand needs: where the red block is."""
    image_size: int = 128
    """Pixel budget per camera: images are resized to about image_size**2 pixels in their own aspect ratio."""
    enlarge: bool = True
    """Whether smaller images are enlarged to that. Else they keep their size: fewer tokens, and no pixel less."""

    def __post_init__(self) -> None:
        if self.source not in ("backbone", "pixels"):
            raise ConfigError(f"vision.source is {self.source!r}; expected 'backbone' or 'pixels'")
        if list(self.taps) != sorted(set(self.taps)) or any(tap < 0 for tap in self.taps):
            raise ConfigError(f"vision.taps is {self.taps}; expected increasing numbers from 0")
        if self.taps and self.source == "pixels":
            raise ConfigError(f"vision.taps is {self.taps}, but vision.source 'pixels' has no blocks")
        if self.image_size < 16:
            raise ConfigError(f"vision.image_size is {self.image_size}; expected at least 16")
        parse_policy(self.stream).slots  # noqa: B018  an unbounded memory is refused by name

    def side(self, height: int, width: int) -> int:
        """Images of a camera are resized to about this many pixels squared."""
        return self.image_size if self.enlarge else kept_small(self.image_size, height, width)


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """A decoder of the Qwen2 class from transformers."""

    pretrained: bool = False
    """True: sizes, weights and tokeniser are those of a directory that the user names (Qwen2.5). False: the sizes
    below, random at first, with a vocabulary of the words in the training data."""
    train: Literal["full", "lora", "frozen"] = "full"
    """What of the language model learns. `lora` needs `pretrained`, and the package peft."""
    lora_rank: int = 32
    lora_alpha: int = 16
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 256

    def __post_init__(self) -> None:
        for name in ("lora_rank", "lora_alpha", "hidden", "layers", "heads", "kv_heads", "intermediate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"language.{name} is {getattr(self, name)}; expected a positive integer")
        if self.hidden % self.heads or (self.hidden // self.heads) % 2 or self.heads % self.kv_heads:
            raise ConfigError(
                f"language.hidden {self.hidden}, heads {self.heads}, kv_heads {self.kv_heads}: expected an even head "
                "width, and heads divisible by kv_heads"
            )
        if self.train not in ("full", "lora", "frozen"):
            raise ConfigError(f"language.train is {self.train!r}; expected 'full', 'lora' or 'frozen'")
        if self.train != "full" and not self.pretrained:
            raise ConfigError(f"language.train is {self.train!r}, but without pretrained weights only 'full' learns")


@dataclass(frozen=True, kw_only=True)
class PoolingConfig:
    """Attention pooling over the patches of each camera, conditioned on the language model's answer."""

    heads: int = 16
    """Places that it can look at, per camera."""
    width: int = 128
    values: int = 32
    """Channels read at each place, beside its coordinates."""

    def __post_init__(self) -> None:
        if min(self.heads, self.width, self.values) < 1:
            raise ConfigError(f"pooling is {self}; expected positive integers")


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The MLP behind the query; two branches of these widths, for movement and gripper."""

    hidden: int = 1024
    widths: tuple[int, ...] = (1024, 512, 256)
    """VLM4VLA's FCDecoder."""

    def __post_init__(self) -> None:
        if self.hidden < 1 or not self.widths or min(self.widths) < 1:
            raise ConfigError(f"head is {self}; expected positive widths")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """A policy's architecture. What follows from the robot (dimensions, cameras' sizes) is in `PolicyShape`."""

    trunk: Literal["decoder", "pooled"] = "pooled"
    chunk: int = 8
    """Actions predicted at once."""
    vision: VisionConfig = field(default_factory=VisionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    pooling: PoolingConfig = field(default_factory=PoolingConfig)
    """Used by the trunk `pooled` only."""
    head: HeadConfig = field(default_factory=HeadConfig)
    goal: tuple[str, ...] = ()
    """State dimensions, such as the tool's place, that are also predicted for the next keyframes: moments at which a
    gripper switches; after the last of them, the end of the episode. Where a block will be gripped is where it lies:
    that the picture has to be searched for it is learnt from the answer sooner than from the movements that lead there.
    Each keyframe has a query and a look at the patches of its own. Trunk `pooled` only."""
    keyframes: int = 2
    """How many, where there is a goal: what is taken, and where it is put."""

    def __post_init__(self) -> None:
        if self.goal and self.trunk != "pooled":
            raise ConfigError(f"goal is {self.goal}, trunk {self.trunk!r}; only the trunk 'pooled' has goals")
        if self.trunk not in ("decoder", "pooled"):
            raise ConfigError(f"trunk is {self.trunk!r}; expected 'decoder' or 'pooled'")
        if len(set(self.goal)) < len(self.goal):
            raise ConfigError(f"goal is {self.goal}; expected no name twice")
        if self.keyframes < 1:
            raise ConfigError(f"keyframes is {self.keyframes}; expected at least 1")
        if self.chunk < 1:
            raise ConfigError(f"chunk is {self.chunk}; expected at least 1 action")


@dataclass(frozen=True, kw_only=True)
class PolicyShape:
    """Sizes that come from robot and backbone."""

    cameras: tuple[str, ...]
    """In the order in which the network takes them."""
    grids: tuple[tuple[int, int], ...]
    """(rows, columns) of patches, per camera."""
    feature_dim: int
    """Channels of a token."""
    arm: int
    """Continuous action dimensions."""
    grippers: int
    """Action dimensions that open or close something."""
    state: int = 0
    """Proprioceptive numbers; 0: the policy is blind to the robot's own state."""
    goal: tuple[int, ...] = ()
    """Which of them are the goal's (`PolicyConfig.goal`)."""

    def __post_init__(self) -> None:
        if not self.cameras or len(self.cameras) != len(self.grids) or len(set(self.cameras)) != len(self.cameras):
            raise ConfigError(f"cameras {self.cameras} and grids {self.grids}: expected as many of each, no name twice")
        if min(min(grid) for grid in self.grids) < 1 or self.feature_dim < 1:
            raise ConfigError(f"grids {self.grids}, feature_dim {self.feature_dim}: expected positive integers")
        if any(not 0 <= i < self.state for i in self.goal):
            raise ConfigError(f"goal {self.goal}: expected numbers of state dimensions, below {self.state}")
        if self.arm < 1 or min(self.grippers, self.state) < 0:
            raise ConfigError(
                f"arm {self.arm}, grippers {self.grippers}, state {self.state}: expected at least 1, 0 and 0"
            )


PRESETS: dict[str, PolicyConfig] = {
    "paper_qwen2_5_7b": PolicyConfig(
        trunk="decoder",
        chunk=10,
        vision=VisionConfig(image_size=224),
        language=LanguageConfig(pretrained=True),
    ),
    "tabletop_tiny": PolicyConfig(head=HeadConfig(hidden=256, widths=(256,))),
}
"""`paper_qwen2_5_7b`: VLM4VLA's recipe on streaming features, whatever Qwen2.5 the user's directory holds.
`tabletop_tiny`: about 1.5 M parameters, trained from nothing on a laptop."""


def goal_dimensions(goal: Sequence[str], state: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the state dimensions that a policy's goal names; ConfigError for one that the state has not."""
    missing = [name for name in goal if name not in state]
    if missing:
        raise ConfigError(f"goal has {missing[0]!r}; expected names of the state: {', '.join(state) or 'it has none'}")
    return tuple(state.index(name) for name in goal)


def preset(name: str) -> PolicyConfig:
    """The named preset; `ConfigError` lists the names."""
    if name not in PRESETS:
        raise ConfigError(f"policy preset {name!r} is unknown; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def to_dict(config: PolicyConfig | PolicyShape) -> dict[str, Any]:
    """Plain JSON data."""
    return dataclasses.asdict(config)
