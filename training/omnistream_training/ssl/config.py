# SPDX-License-Identifier: Apache-2.0
"""Every number of the self-supervised task: the paper's where they are known, DINOv3's where they are not."""

from __future__ import annotations

from dataclasses import dataclass, field

from omnistream.errors import ConfigError

GLOBALS = 2
"""Large crops of a clip. The teacher sees these only."""


@dataclass(frozen=True, kw_only=True)
class SslConfig:
    """What a step of self-supervision sees, and what its terms weigh."""

    images: int = 8
    """Single pictures per step, streams of one frame; 0: none."""
    clips: int = 2
    """Clips per step; 0: none (the paper's ablation "without video SSL")."""
    frames: int = 16
    """Of a clip."""
    pictures: dict[str, float] = field(default_factory=dict)
    """Folders and WebDataset shards of pictures, each with its weight: how often it is drawn from."""
    videos: dict[str, float] = field(default_factory=dict)
    """The same for clips, of video files."""
    data_weight: float = 1.0
    """Of the geometry task's data, against `pictures` and `videos`; without those, everything comes from there."""
    source_size: tuple[int, int] = (256, 256)
    """Height and width of the pictures that crops are cut from."""
    global_size: int = 224
    """Side of the two large crops, pixels."""
    local_size: int = 96
    """Side of the small crops."""
    local_crops: int = 2
    global_scale: tuple[float, float] = (0.32, 1.0)
    """Share of the picture's area that a large crop covers."""
    local_scale: tuple[float, float] = (0.05, 0.32)
    mask_probability: float = 0.5
    """Share of the large crops of single pictures that are masked."""
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    """Share of patches masked in those."""
    tubes: tuple[tuple[int, float], tuple[int, float]] = ((8, 0.15), (2, 0.7))
    """For clips: number of blocks and the area of each, for the one large crop and for the other (V-JEPA 2). A block is
    masked in every frame."""
    time_jitter: float = 2.0
    """The student's clock runs up to this factor faster or slower, log-uniform, one draw per step; 1: no jitter."""
    prototypes: int = 65536
    hidden: int = 2048
    """Width of the projection heads."""
    bottleneck: int = 256
    student_temperature: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """From and to, linear over `temperature_steps`."""
    temperature_steps: int = 4000
    momentum: tuple[float, float] = (0.999, 0.999)
    """Of the teacher, from and to, along a cosine over the run."""
    freeze_prototypes: int = 1000
    """Steps before the last layers of the heads begin to learn: new prototypes otherwise chase a random teacher."""
    shared_centring: bool = True
    """Centre the teacher's assignments over what all processes see at once (DINOv3). False: over each micro-batch, so
    that a run computes the same on any number of processes."""
    dino: float = 1.0
    """Weight of the agreement of whole crops."""
    ibot: float = 1.0
    """Weight of the agreement of masked patches."""
    koleo: float = 0.1
    """Weight of spreading a batch's features out."""
    gram: float = 1.0
    """Weight of keeping the similarities between patches that the initial model saw. 0 for a run from nothing."""

    def __post_init__(self) -> None:
        if self.images < 0 or self.clips < 0 or self.images + self.clips < 1 or self.frames < 1:
            raise ConfigError(
                f"ssl.images {self.images}, clips {self.clips}, frames {self.frames}: expected 0 or more of the first "
                "two, at least one of them, and 1 frame or more"
            )
        for name, files in (("pictures", self.pictures), ("videos", self.videos)):
            weights = (self.data_weight, *files.values())
            if min(weights) < 0 or (files and not max(weights) > 0):
                raise ConfigError(f"ssl.data_weight and {name} are {weights}; expected 0 or more, not all 0")
        for name in ("global_scale", "local_scale", "mask_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ConfigError(f"ssl.{name} is {(low, high)}; expected 0 < low <= high <= 1")
        if any(count < 1 or not 0 < area < 1 for count, area in self.tubes):
            raise ConfigError(f"ssl.tubes is {self.tubes}; expected counts of 1 or more and areas between 0 and 1")
        if not 0 <= self.mask_probability <= 1 or self.time_jitter < 1 or self.local_crops < 0:
            raise ConfigError(
                f"ssl.mask_probability {self.mask_probability}, time_jitter {self.time_jitter}, local_crops "
                f"{self.local_crops}: expected 0 to 1, 1 or more, 0 or more"
            )
        if min(self.student_temperature, *self.teacher_temperature) <= 0 or not all(0 <= m <= 1 for m in self.momentum):
            raise ConfigError(
                f"ssl.student_temperature {self.student_temperature}, teacher_temperature {self.teacher_temperature}, "
                f"momentum {self.momentum}: expected temperatures above 0 and momenta from 0 to 1"
            )
        if min(self.dino, self.ibot, self.koleo, self.gram) < 0:
            raise ConfigError("a weight among ssl.dino, ibot, koleo and gram is negative; expected 0 or more")
