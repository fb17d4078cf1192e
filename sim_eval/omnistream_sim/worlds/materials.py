# SPDX-License-Identifier: Apache-2.0
"""Materials: what a surface is painted with, as one row of numbers per surface.

`Material` is the readable form (the scene builder, the tests); `MATERIAL_COLUMNS` names the columns of the tables that
the renderer gathers from. Lengths in metres, colours linear in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

PATTERNS = ("plain", "checker", "stripes", "clouds", "wood", "marble", "speckle", "tiles", "dots", "print")
"""Names of the procedural patterns; the index is the number in the material table."""

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.60, 0.05, 0.05),
    "green": (0.07, 0.38, 0.10),
    "blue": (0.05, 0.12, 0.58),
    "yellow": (0.80, 0.60, 0.05),
    "orange": (0.80, 0.28, 0.03),
    "purple": (0.28, 0.07, 0.45),
    "pink": (0.80, 0.30, 0.45),
    "turquoise": (0.05, 0.48, 0.48),
    "brown": (0.24, 0.11, 0.05),
    "white": (0.82, 0.82, 0.80),
    "grey": (0.30, 0.31, 0.32),
    "black": (0.03, 0.03, 0.035),
}
"""Named colours (linear light), the words that descriptions use."""

MATERIAL_COLUMNS = (
    "r0", "g0", "b0",  # first colour
    "r1", "g1", "b1",  # second colour
    "pattern",  # index into PATTERNS
    "fu", "fv",  # repetitions per metre along the two surface coordinates
    "fn",  # noise cells per metre
    "stretch",  # noise is stretched by this factor along v (wood grain)
    "amount",  # strength of the noise in the pattern, pattern dependent, 0..1
    "seed",  # 0..65535
    "gloss",  # strength of the highlight
    "emission",  # light given off, in units of albedo
    "round",  # 0: box mapping; else the radius in metres of the wrapped (cylindrical) mapping
    "poster_w", "poster_h", "poster_v", "poster_p",  # grid of posters: cell size, height of its row, probability
)  # fmt: skip
COLUMN = {name: i for i, name in enumerate(MATERIAL_COLUMNS)}


@dataclass(frozen=True, kw_only=True)
class Material:
    """One painted surface; colours are linear RGB or names of the palette."""

    colour: str | tuple[float, float, float] = "grey"
    second: str | tuple[float, float, float] | None = None  # None: a darker shade of `colour`
    pattern: str = "plain"
    repeat: tuple[float, float] = (10.0, 10.0)
    noise: float = 30.0
    stretch: float = 1.0
    amount: float = 0.3
    seed: int = 0
    gloss: float = 0.15
    emission: float = 0.0
    round: float = 0.0
    posters: tuple[float, float, float, float] = (1.0, 1.0, 0.0, 0.0)

    def row(self) -> list[float]:
        """The numbers in the order of `MATERIAL_COLUMNS`."""
        first = PALETTE[self.colour] if isinstance(self.colour, str) else self.colour
        if self.second is None:
            second = (first[0] * 0.55, first[1] * 0.55, first[2] * 0.55)
        else:
            second = PALETTE[self.second] if isinstance(self.second, str) else self.second
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern {self.pattern!r} is unknown; expected one of {', '.join(PATTERNS)}")
        return [
            *first, *second, float(PATTERNS.index(self.pattern)), *self.repeat, self.noise, self.stretch, self.amount,
            float(self.seed & 0xFFFF), self.gloss, self.emission, self.round, *self.posters,
        ]  # fmt: skip
