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
    eval_questions: int = 64
    """Held-out pictures that are asked about in an evaluation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_questions < 2:
            raise ConfigError(f"eval_questions is {self.eval_questions}; expected 2 or more")
        if self.model.freeze_backbone:
            raise ConfigError("model.freeze_backbone is set; pre-training trains the backbone")
