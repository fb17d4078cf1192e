# SPDX-License-Identifier: Apache-2.0
"""A pre-training run: the configuration of a geometry run, and what the two other tasks need."""

from __future__ import annotations

from dataclasses import dataclass, field

from omnistream.errors import ConfigError
from omnistream_training.caption.config import CaptionConfig
from omnistream_training.config import TrainConfig
from omnistream_training.ssl.config import SslConfig


@dataclass(frozen=True, kw_only=True)
class TaskWeights:
    """L = ssl L_ssl + geometry L_geo + caption L_cap (paper section 3.5). A task of weight 0 is left out."""

    ssl: float = 0.1
    geometry: float = 1.0
    caption: float = 1.0

    def __post_init__(self) -> None:
        if min(self.ssl, self.geometry, self.caption) < 0 or not self.ssl + self.geometry + self.caption > 0:
            raise ConfigError(f"weights are {self}; expected 0 or more, and not all 0")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Everything that decides what a pre-training run computes. `stages`, `data`, `augment` and `loss` are the geometry
    task's; self-supervision draws its pictures from the same data."""

    weights: TaskWeights = field(default_factory=TaskWeights)
    ssl: SslConfig = field(default_factory=SslConfig)
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    recordings: dict[str, float] = field(default_factory=dict)
    """More recordings for the geometry task, or data sets of them, each a source of its own with its weight against
    `data.live_weight` and the 1 of all `data.folders` together."""
    micro_batches: int = 1
    """Parts of a step, each with the numbers of clips and pictures that `stages`, `ssl` and `caption` say. Their
    gradients are averaged; the processes that torchrun starts share the parts out."""
    eval_questions: int = 64
    """Held-out pictures that are asked about in an evaluation."""
    keep_last: int = 2
    """Newest states kept on disk."""
    keep_every: int = 0
    """Besides, the states of every so many steps are kept for good; 0: none. A multiple of `save_every`."""

    @property
    def draws_clips(self) -> bool:
        """Geometry does, and self-supervision where it has no files of its own or shares its draws."""
        if self.weights.geometry:
            return True
        views = ((self.ssl.images, self.ssl.pictures), (self.ssl.clips, self.ssl.videos))
        shared = any(count and (not files or self.ssl.data_weight) for count, files in views)
        return bool(self.weights.ssl and shared)

    def source_weights(self) -> list[float]:
        return [*super().source_weights(), *self.recordings.values()]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("eval_questions", 2), ("micro_batches", 1), ("keep_last", 1), ("keep_every", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected {least} or more")
        if min(self.recordings.values(), default=0.0) < 0:
            raise ConfigError(f"recordings are {self.recordings}; expected weights of 0 or more")
        if self.keep_every % self.save_every:
            raise ConfigError(f"keep_every is {self.keep_every}; expected a multiple of save_every, {self.save_every}")
        if self.model.freeze_backbone:
            raise ConfigError("model.freeze_backbone is set; pre-training trains the backbone")
