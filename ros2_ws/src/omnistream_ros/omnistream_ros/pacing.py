# SPDX-License-Identifier: Apache-2.0
"""When each frame of a recording is due, on a steady clock, without drift.

A timetable is laid out from the frames' own stamps (or from a fixed rate) and every due time is counted from its
origin, so that the error of one sleep is not handed on to the next frame. A camera never delivers a burst: when the
caller falls behind by more than one period, the rest of the timetable is moved, and the frame is counted as late.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from omnistream.errors import InputError

LONGEST_GAP_S = 10.0  # a recording paused over night is not replayed as a night of silence


class Timetable:
    """Due times of frames on a steady clock.

    Args:
        rate: frames per second; 0 replays the frames at the distances of their stamps.
        nominal_rate: the recording's rate, used where stamps do not advance (first frame of another pass, equal
            stamps, gaps longer than `LONGEST_GAP_S`).
        clock: seconds, steady; replaced in tests.

    Raises:
        InputError: a rate is negative, or neither is known.
    """

    def __init__(self, rate: float, nominal_rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        if rate < 0:
            raise InputError(f"`rate` is {rate}; expected frames per second, or 0 for the recording's own")
        if rate == 0 and not nominal_rate > 0:
            raise InputError(f"`rate` is 0 and the recording's rate is {nominal_rate}; give `rate` a positive number")
        self.fixed = rate > 0
        self.period = 1.0 / (rate if rate > 0 else nominal_rate)
        self.late = 0
        self._clock = clock
        self._due: float | None = None
        self._stamp: float | None = None

    def next(self, stamp: float) -> float:
        """Due time (seconds of the steady clock) of the frame recorded at `stamp` (seconds). Call once per frame."""
        now = self._clock()
        if self._due is None or self._stamp is None:
            due = now
        else:
            step = self.period if self.fixed else stamp - self._stamp
            if not 0 < step <= LONGEST_GAP_S:
                step = self.period
            due = self._due + step
            if now - due > self.period:
                self.late += 1
                due = now
        self._due, self._stamp = due, stamp
        return due


def wait_until(due: float, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> bool:
    """Sleeps until `due` on the steady clock; returns False at once when `stop` is set."""
    remaining = due - clock()
    if remaining > 0:
        return not stop.wait(remaining)
    return not stop.is_set()
