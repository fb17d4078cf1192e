# SPDX-License-Identifier: Apache-2.0
"""What kind of worlds are drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from .quality import QUALITIES

FAMILIES = ("tabletop", "room", "clutter", "outdoor")
"""Kinds of scenes: things on a table; furniture in a room; primitives floating anywhere; a road or hills under the
sky."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Distribution of the worlds. Every clip is drawn anew from it; the same seed gives the same clip."""

    tabletop: float = 0.35
    """Weights of the families, see `FAMILIES`."""
    room: float = 0.30
    clutter: float = 0.15
    outdoor: float = 0.20
    hills: float = 0.5
    """Share of the outdoor scenes with a height field; the others have flat ground."""
    moving: float = 0.25
    """Share of the objects that move by themselves."""
    min_fov: float = 40.0
    """Horizontal field of view, degrees."""
    max_fov: float = 100.0
    speed: float = 1.0
    """Factor on the speed of the camera."""
    min_path: float = 0.0
    """Metres that the camera travels at least in a clip: slower paths are sped up."""
    quality: str = "fast"
    """Tier of the pictures, see `quality.QUALITIES`."""

    def __post_init__(self) -> None:
        weights = [getattr(self, name) for name in FAMILIES]
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"the family weights are {weights}; expected none below 0 and one above")
        if not 10 <= self.min_fov <= self.max_fov <= 130:
            raise ValueError(f"min_fov, max_fov are {self.min_fov}, {self.max_fov}; expected 10 <= min <= max <= 130")
        for name in ("hills", "moving"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share between 0 and 1")
        if not self.speed > 0 or not self.min_path >= 0:
            raise ValueError(f"speed, min_path are {self.speed}, {self.min_path}; expected above 0, 0 or more")
        if self.quality not in QUALITIES:
            raise ValueError(f"quality is {self.quality!r}; expected one of {', '.join(QUALITIES)}")

    @staticmethod
    def from_options(options: Mapping[str, object]) -> WorldConfig:
        """From names and values, values possibly written as text.

        Raises:
            ValueError: an unknown name, or text that is not a number.
        """
        known: dict[str, type] = {
            f.name: str if f.name == "quality" else float for f in dataclasses.fields(WorldConfig)
        }
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ValueError(f"unknown option {unknown[0]!r}; expected some of {', '.join(known)}")
        values: dict[str, object] = {}
        for name, value in options.items():
            try:
                values[name] = known[name](value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} is {value!r}; expected a {known[name].__name__}") from error
        return WorldConfig(**values)  # type: ignore[arg-type]
