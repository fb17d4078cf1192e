# SPDX-License-Identifier: Apache-2.0
"""When, between two pictures, control ticks should fall.

Row i of a chunk is for i periods after its pictures. Where ticks fall just when pictures are taken, a hair decides
whether a row is executed a period later; where they fall just when the robot looks for commands, whether one is used
twice and the next not at all. So ticks are kept at a certain share of a period after the pictures, wherever cameras
have the control rate or a multiple of it that is thinned to it.
"""

from __future__ import annotations

import cmath
import math

MEMORY = 0.9
"""Of what was found before, per picture."""
STEADY = 0.7
"""Length of the mean of unit vectors (1: all alike) from which on stamps are said to have a place in the grid."""
GAIN = 0.1
"""Share of the difference by which to move at once."""


class Phase:
    """Fed with where stamps fall between ticks; says how far to move the ticks.

    Args:
        wanted: 0 .. 1, ticks after pictures, in periods.
    """

    def __init__(self, wanted: float) -> None:
        self._wanted = wanted
        self._mean = 0j

    def add(self, share: float) -> float:
        """share: 0 .. 1, the picture after the tick before it, in periods.

        Returns the periods by which the next tick should come later, -0.05 .. 0.05; 0 while stamps have no steady
        place, as those of cameras of another rate.
        """
        # Shares are places on a circle: 0.99 and 0.01 are neighbours, and their mean is not 0.5.
        self._mean = MEMORY * self._mean + (1 - MEMORY) * cmath.exp(2j * math.pi * (share + self._wanted))
        if abs(self._mean) < STEADY:
            return 0.0
        return GAIN * cmath.phase(self._mean) / (2 * math.pi)
