# SPDX-License-Identifier: Apache-2.0
"""Control ticks are pictures of one camera, thinned to the control rate."""

from __future__ import annotations

SLACK = 0.25
"""Share of a period by which a picture may come early and still be the next tick."""
FOLLOW = 0.2
"""Share of the difference between a tick and the grid by which the grid is moved."""
LATE = 1.5
"""Periods after which a tick counts as a gap."""


class Ticker:
    """Says of each stamp whether it is a tick, and whether one is missing before it.

    A stamp is a tick if it is due, or early by at most a quarter of a period. Ticks stay on a grid of whole periods,
    which follows the pictures slowly: 30 Hz thinned to 10 Hz takes every third picture, jitter or not.
    """

    def __init__(self, period: int) -> None:
        """period: ns."""
        self._period = period
        self._slack = int(period * SLACK)
        self._due: int | None = None
        self._last: int | None = None

    def offer(self, stamp: int) -> bool:
        """Whether a picture stamped `stamp` (ns, increasing) is a tick."""
        if self._last is not None and stamp <= self._last:
            return False
        if self._due is not None and stamp < self._due - self._slack:
            return False
        if self._due is None or stamp > self._due + self._slack:
            self._due = stamp
        self._due += self._period + int((stamp - self._due) * FOLLOW)
        self._last = stamp
        return True

    def is_gap(self, before: int, after: int) -> bool:
        """Whether two ticks in a row lie too far apart to belong to one episode."""
        return after - before > int(LATE * self._period)

    def reset(self) -> None:
        """The next stamp is a tick."""
        self._due = self._last = None
