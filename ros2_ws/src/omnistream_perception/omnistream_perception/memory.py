# SPDX-License-Identifier: Apache-2.0
"""What a model and its caches will take, known before anything is loaded, and what there is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from omnistream.engines.select import choose_device
from omnistream.errors import ConfigError
from omnistream.model.config import ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.stream.memory import MIB, available_bytes
from omnistream.stream.policy import CachePolicy
from omnistream.stream.preprocess import network_size
from omnistream.stream.state import StateSpec


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes, all allocated once: the model's parameters and one cache per camera."""

    weights: int
    cache: int
    cameras: int
    what: str
    """The cache in words."""

    @property
    def total(self) -> int:
        """Of all cameras."""
        return self.weights + self.cameras * self.cache

    def __str__(self) -> str:
        caches = f"{self.cameras} x " if self.cameras > 1 else ""
        return (
            f"{self.total / MIB:.0f} MiB = {self.weights / MIB:.0f} MiB weights + {caches}{self.cache / MIB:.1f} MiB "
            f"cache ({self.what})"
        )


def memory_need(
    config: ModelConfig,
    policy: CachePolicy,
    image_size: int,
    camera_size: tuple[int, int],
    cameras: int,
    number_format: torch.dtype,
) -> MemoryNeed:
    """Of `cameras` streams of `camera_size` (height, width) images. Parameters are counted, no model is built.

    image_size: pixel budget as the side of a square; 0: the checkpoint's.
    number_format: of backbone and cache.
    """
    height, width = network_size(*camera_size, image_size or config.image_size, config.backbone.patch_size)
    spec = StateSpec(
        policy=policy, batch=1, height=height, width=width, camera_token=config.camera_token, dtype=number_format
    )
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in OmniStream(config).parameters())
    # The float32 original stays beside the engine's copy where the engine runs in another format.
    per_parameter = 4 + (number_format.itemsize if number_format is not torch.float32 else 0)
    what = f"{policy}: {policy.slots} frames of {width}x{height}, {str(number_format).removeprefix('torch.')}"
    return MemoryNeed(count * per_parameter, spec.nbytes(config.backbone), cameras, what)


def check_memory(need: int, description: str, limit_mib: int, device: str) -> None:
    """Refuses what does not fit.

    Args:
        need: bytes.
        description: what they are for, with numbers.
        limit_mib: the user's limit in MiB; 0: what is free on the device.

    Raises:
        ConfigError: with both numbers and what can be done.
    """
    free = limit_mib * MIB if limit_mib else available_bytes(choose_device(device))
    if free is not None and need > free:
        whose = "memory_limit allows" if limit_mib else "free are"
        raise ConfigError(
            f"not enough memory: needed are {description}, {whose} {free / MIB:.0f} MiB. "
            "A shorter policy (window:W), a smaller image_size or a smaller model needs less"
        )


def used_gpu_bytes(device: str) -> int | None:
    """What this process has allocated on the GPU `device`; None for a CPU."""
    return int(torch.cuda.memory_allocated(device)) if device.startswith("cuda") else None
