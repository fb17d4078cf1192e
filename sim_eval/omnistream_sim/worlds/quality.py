# SPDX-License-Identifier: Apache-2.0
"""What a picture costs, and what is asked of a renderer. Geometry is exact in every tier."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How pictures are made."""

    shadow_rays: int = 1  # per light and sample; 0: no shadows, 1: sharp ones, more: soft ones
    ambient_rays: int = 0  # per sample: darkening beside and below objects
    octaves: int = 2  # of texture noise
    samples: int = 1  # colour samples per pixel: smooth edges
    blur: float = 1.0  # width in pixels over which the samples are spread; a lens is about 1.5

    def __post_init__(self) -> None:
        for name, least in (("shadow_rays", 0), ("ambient_rays", 0), ("octaves", 1), ("samples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")

    def offsets(self) -> list[tuple[float, float]]:
        """Sub-pixel position of every sample: the centre, or points well spread over a square of `blur` pixels."""
        n = self.samples
        if n == 1:
            return [(0.0, 0.0)]
        return [
            (self.blur * ((i + 0.5) / n - 0.5), self.blur * (((i * 0.6180339887 + 0.35) % 1.0) - 0.5)) for i in range(n)
        ]


QUALITIES = {
    "flat": Quality(shadow_rays=0),
    "fast": Quality(),
    "soft": Quality(shadow_rays=4, ambient_rays=2, octaves=3, samples=2),
    "fine": Quality(shadow_rays=3, ambient_rays=3, octaves=3, samples=4, blur=1.6),
}
"""Tiers by name: for training `fast` (one sharp shadow ray per light) or `flat` (none), for looking at `soft` and
`fine`."""


def quality_of(quality: Quality | str) -> Quality:
    """A tier by name, or your own.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(quality, Quality):
        return quality
    if quality not in QUALITIES:
        raise ValueError(f"quality is {quality!r}; expected one of {', '.join(QUALITIES)}")
    return QUALITIES[quality]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Pictures of F frames, one lens each."""

    height: int
    width: int
    lens: Tensor  # [F, 3] focal length, centre u, centre v in pixels
    number: Tensor  # [F] int32: number of the frame in its clip
    quality: Quality
    depth: bool = True
    surface: bool = False
    normals: bool = False
    rgb: bool = True


@dataclass(frozen=True)
class Pictures:
    """What a renderer returns; None where not asked for."""

    depth: Tensor | None  # [F, H, W] metres, NaN: nothing there
    surface: Tensor | None  # [F, H, W] int32: row of the records
    normals: Tensor | None  # [F, H, W, 3] camera frame
    rgb: Tensor | None  # [F, H, W, 3] uint8
