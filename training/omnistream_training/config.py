# SPDX-License-Identifier: Apache-2.0
"""A training run as one frozen dataclass. What is saved with a run is exactly this (`run/config.yaml`).

A run is made of stages. Each says how many optimiser steps it takes and what a step's batch looks like: many scenes and
few frames first, longer clips later.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from omnistream.errors import ConfigError
from omnistream.model.config import PRESETS, ModelConfig, preset
from omnistream.stream.policy import parse_policy
from omnistream_training.data.augment import AugmentConfig
from omnistream_training.data.bag_topics import BagTopics
from omnistream_training.data.pool import PoolConfig
from omnistream_training.losses.geometry import LossConfig
from omnistream_training.optim import OptimConfig


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model is trained, and from what."""

    preset: str = "tiny"
    """Sizes, by name (`omnistream.model.config.PRESETS`). Ignored when `start` is given."""
    start: str | None = None
    """Checkpoint to start from: ours, the released OmniStream, or DINOv3. None: from nothing."""
    freeze_backbone: bool = False
    """Train the heads only (`omnistream-train heads`); the backbone's weights stay bit for bit."""
    image_size: int = 128
    """Pixel budget that the checkpoint asks its sessions for: image_size**2 pixels."""
    scale: Literal["metric", "relative"] = "metric"
    """Unit of the labels, and so of the outputs."""
    layer_scale: float = 1.0
    """Initial gain of residual branches when training from nothing. 0.01 suits fine-tuning; from scratch it stalls."""
    init_std: float | None = None
    """Standard deviation of the blocks' initial weights, from nothing. None: 1 / sqrt(fan-in)."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"model.preset is {self.preset!r}; expected one of {', '.join(PRESETS)}")
        if self.freeze_backbone and self.start is None:
            raise ConfigError("model.freeze_backbone is set but model.start is not: a random backbone stays random")

    def model_config(self) -> ModelConfig:
        """Configuration of a model trained from nothing."""
        base = preset(self.preset)
        backbone = dataclasses.replace(base.backbone, layer_scale_init=self.layer_scale)
        return dataclasses.replace(base, backbone=backbone, image_size=self.image_size, scale=self.scale)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where clips come from. A step draws from one source, chosen by weight."""

    live: str | None = "worlds"
    """Renderer: a name of the entry point group `omnistream.clips`, or "module:function". None: no renderer."""
    live_options: dict[str, str] = field(default_factory=dict)
    """Keyword arguments for the renderer."""
    live_weight: float = 1.0
    """Share of steps drawn from the renderer, against 1 for all folders together."""
    pools: tuple[PoolConfig, ...] = ()
    """Clips of slow renderers, rendered once, before training starts, and kept on disk."""
    folders: tuple[str, ...] = ()
    """Recordings with depth, and poses if there are any: whatever `omnistream.io.open_source` opens, or a folder of
    such. Depth or pose that is missing is masked."""
    bag_topics: BagTopics = field(default_factory=BagTopics)
    """Of folders that are rosbags."""
    on_error: Literal["raise", "skip"] = "skip"
    """What a damaged file in a folder does; skipped ones are counted and named in the report."""
    nominal_rate: float = 30.0
    """Hz. Time runs in frames of this rate, as in a StreamSession."""
    workers: int = 2
    """Threads that read folders and pools ahead of time, and processes that render pools. A renderer needs none."""

    def __post_init__(self) -> None:
        if not self.nominal_rate > 0 or self.workers < 0 or self.live_weight < 0:
            raise ConfigError(
                f"data.nominal_rate {self.nominal_rate}, data.workers {self.workers}, data.live_weight "
                f"{self.live_weight}: expected above 0, 0 or more, 0 or more"
            )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of steps with batches of one shape."""

    steps: int
    """Optimiser steps."""
    clips: int
    """Clips per step."""
    frames: int
    """Frames per clip."""
    size: tuple[int, int] = (128, 128)
    """Height and width, multiples of the patch size."""
    stride: tuple[int, int] = (1, 8)
    """Frames at the nominal rate between two frames of a clip: one draw per step, log-uniform, both ends included."""

    def __post_init__(self) -> None:
        for name in ("steps", "clips", "frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"stage {name} is {getattr(self, name)}; expected 1 or more")
        low, high = self.stride
        if not 1 <= low <= high:
            raise ConfigError(f"stage stride is {self.stride}; expected 1 <= low <= high")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a run computes."""

    model: ModelChoice = field(default_factory=ModelChoice)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    stages: tuple[Stage, ...] = (Stage(steps=1000, clips=8, frames=4),)
    policy: str = "full"
    """What a frame sees of its clip, as in a stream: full, window:W, sink_window:S,W. window:1 makes the per-frame twin
    that streaming has to beat, sink_window:1,1 one that sees the first frame too."""
    seed: int = 0
    """Of initial weights, clips and augmentation. Runs with other seeds see other clips. 0 to 32767."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the network under autocast; losses, optimiser and weights are float32."""
    compile: bool = False
    """torch.compile. Pays on a GPU; on a CPU it costs two minutes and gains nothing."""
    eval_every: int = 500
    """Steps between evaluations on held-out clips; 0: only at the end."""
    eval_clips: int = 24
    """Held-out clips of an evaluation."""
    eval_frames: int = 16
    """Their length."""
    save_every: int = 250
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of the log."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("stages is empty; expected at least one")
        if self.draws_clips and not max(self.source_weights(), default=0.0) > 0:
            raise ConfigError(
                "data has no source: set data.live, or give data.folders, data.pools or (pretrain) recordings, with a "
                "weight above 0"
            )
        parse_policy(self.policy)
        if not 0 <= self.seed < 1 << 15:
            raise ConfigError(f"seed is {self.seed}; expected 0 to {(1 << 15) - 1}")
        for name in ("save_every", "log_every", "eval_clips", "eval_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")

    @property
    def draws_clips(self) -> bool:
        """Whether any step draws from `data`."""
        return True

    def source_weights(self) -> list[float]:
        """Of all that clips are drawn from."""
        data = self.data
        rendered = [] if data.live is None else [data.live_weight]
        return [*rendered, *([1.0] if data.folders else []), *(pool.weight for pool in data.pools)]

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[int, Stage]:
        """Index and stage of a step; the last stage goes on beyond the end."""
        for index, stage in enumerate(self.stages):
            if step < stage.steps:
                return index, stage
            step -= stage.steps
        return len(self.stages) - 1, self.stages[-1]
