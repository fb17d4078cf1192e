# SPDX-License-Identifier: Apache-2.0
"""A batch of clips, documented once. Whatever is unknown is NaN, and the losses mask it.

Shapes: B clips, T frames, H x W pixels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnistream.errors import InputError
from omnistream.model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Pictures and what is known about them. All on one device, except `times`, which stays on the host."""

    images: Tensor
    """[B, T, 3, H, W] float32 in 0 .. 1, RGB."""
    depth: Tensor
    """[B, T, H, W] float32, metres along the optical axis; NaN: unknown."""
    T_world_camera: Tensor
    """[B, T, 4, 4] float32, OpenCV optical frames, metres; NaN: unknown."""
    K: Tensor
    """[B, 3, 3] float32, pixels of `images`, integer coordinates are pixel centres; NaN: unknown."""
    times: Tensor
    """[B, T] float64 on the host, in frames at the nominal rate, increasing from 0."""
    place: Tensor = field(default=None)  # type: ignore[assignment]
    """[B] bool: poses are in the frame of a place that all such clips share (a robot's cell, the shipped tabletop), so
    that a camera can be told where it is from one picture. Default: none are."""

    def __post_init__(self) -> None:
        if self.place is None:
            object.__setattr__(
                self, "place", torch.zeros(len(self.images), dtype=torch.bool, device=self.images.device)
            )
        b, t, _, h, w = self.images.shape if self.images.ndim == 5 else (0, 0, 0, 0, 0)
        expected = {
            "images": (b, t, 3, h, w),
            "depth": (b, t, h, w),
            "T_world_camera": (b, t, 4, 4),
            "K": (b, 3, 3),
            "times": (b, t),
            "place": (b,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape or 0 in shape:
                raise InputError(f"ClipBatch.{name} is {tuple(getattr(self, name).shape)}; expected {shape}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def frames(self) -> int:
        """B * T."""
        return self.images.shape[0] * self.images.shape[1]

    def to(self, device: torch.device | str) -> ClipBatch:
        """On `device`; `times` stays where it is."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=True)
            for f in dataclasses.fields(self)
            if f.name != "times"
        }
        return dataclasses.replace(self, **moved)

    def network_input(self, config: ModelConfig) -> Tensor:
        """The images as a model of that configuration takes them."""
        mean, std = (
            torch.tensor(values, device=self.images.device)[:, None, None] for values in (config.mean, config.std)
        )
        return (self.images - mean) / std

    def state(self) -> dict[str, Tensor]:
        """Plain tensors, for a file."""
        return {f.name: getattr(self, f.name).cpu() for f in dataclasses.fields(self)}

    @staticmethod
    def cat(parts: list[ClipBatch]) -> ClipBatch:
        """Clips of equal length and size, one after the other."""
        fields = dataclasses.fields(ClipBatch)
        return ClipBatch(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields})


def resize(batch: ClipBatch, size: tuple[int, int]) -> ClipBatch:
    """A batch at another (H, W) of the same aspect ratio; depth is sampled."""
    h, w = batch.images.shape[-2:]
    if (h, w) == size:
        return batch
    interpolate = torch.nn.functional.interpolate
    images = interpolate(batch.images.flatten(0, 1), size=size, mode="bilinear", antialias=True, align_corners=False)
    depth = interpolate(batch.depth, size=size, mode="nearest-exact")
    sy, sx = size[0] / h, size[1] / w
    to_new = torch.tensor([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
    return ClipBatch(
        images=images.unflatten(0, batch.images.shape[:2]),
        depth=depth,
        T_world_camera=batch.T_world_camera,
        K=to_new @ batch.K,
        times=batch.times,
        place=batch.place,
    )
