# SPDX-License-Identifier: Apache-2.0
"""What kind of tabletop clips are drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

SCENES = ("shipped", "random")
"""shipped: our table, our Panda, four blocks, our textures and light; what lies where, the arm, the camera and the lens
(+-10 %) vary. random: measures, textures, colours, light, further objects and the lens vary too."""


@dataclass(frozen=True, kw_only=True)
class TabletopConfig:
    """Distribution of the clips of the free-flying camera. The same seed gives the same clip."""

    scene: str = "shipped"
    """One of `SCENES`."""
    arm: float = 0.9
    """Share of the clips with the Panda in the scene."""
    moving: float = 0.6
    """Share of those in which it moves; in the others it rests in a random pose."""
    carried: float = 0.25
    """Share of the clips with an arm in which it holds a block."""
    static: float = 0.0
    """Share of the clips with a camera that does not move (none of them if `min_path` is above 0)."""
    shadow: float = 0.1
    """Share of the clips with shadows, which cost half as much again."""
    speed: float = 1.0
    """Factor on the speed of the camera."""
    min_path: float = 0.0
    """Metres that the camera travels at least in a clip: slower paths are sped up."""

    def __post_init__(self) -> None:
        if self.scene not in SCENES:
            raise ValueError(f"scene is {self.scene!r}; expected one of {', '.join(SCENES)}")
        for name in ("arm", "moving", "carried", "static", "shadow"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share between 0 and 1")
        if not self.speed > 0 or not self.min_path >= 0:
            raise ValueError(f"speed, min_path are {self.speed}, {self.min_path}; expected above 0, 0 or more")

    @staticmethod
    def from_options(options: Mapping[str, object]) -> TabletopConfig:
        """From names and values, values possibly written as text.

        Raises:
            ValueError: an unknown name, or text that is not a number.
        """
        known: dict[str, type] = {
            f.name: str if f.name == "scene" else float for f in dataclasses.fields(TabletopConfig)
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
        return TabletopConfig(**values)  # type: ignore[arg-type]
