# SPDX-License-Identifier: Apache-2.0
"""How fast a loop really runs, over its last moments."""

from __future__ import annotations

from collections import deque
from statistics import median

WINDOW = 40
"""Moments that count."""
TOLERANCE = 0.92
"""Of the asked rate; less is lagging."""


class Pace:
    """Fed by the loop's thread, read by another."""

    def __init__(self) -> None:
        self.late = 0
        """Moments that came more than one period too late."""
        self._moments: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)

    def add(self, began: float, ended: float, period: float, late: int) -> None:
        """A moment that was worked on from `began` to `ended` (s), `period` after the last if all went well."""
        if self._moments and self._moments[-1][2] != period:
            self._moments.clear()  # another rate was asked for
        self._moments.append((began, ended - began, period))
        self.late = late

    def rate(self) -> float | None:
        """Hz; None while there is too little to tell."""
        moments = list(self._moments)
        if len(moments) < 3:
            return None
        return (len(moments) - 1) / max(moments[-1][0] - moments[0][0], 1e-9)

    def busy(self) -> float | None:
        """Seconds that a moment takes, the median; None while there is too little to tell."""
        moments = list(self._moments)
        return median(moment[1] for moment in moments) if len(moments) >= 3 else None

    def lags(self) -> bool:
        """Whether it runs clearly slower than asked."""
        rate, moments = self.rate(), list(self._moments)
        return rate is not None and rate * moments[-1][2] < TOLERANCE
