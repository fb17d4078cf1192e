# SPDX-License-Identifier: Apache-2.0
"""Sliding windows of durations and of arrival times: fixed memory, safe to read from another thread."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Milliseconds over a window; NaN while nothing was measured."""

    p50: float = math.nan
    p99: float = math.nan
    max: float = math.nan


class LatencyWindow:
    """The last `size` durations of one stage."""

    def __init__(self, size: int = 300) -> None:
        self._values = np.zeros(size)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, milliseconds: float) -> None:
        """Adds one duration; the oldest goes."""
        with self._lock:
            self._values[self._count % len(self._values)] = milliseconds
            self._count += 1

    def summary(self) -> Latency:
        """p50, p99 and maximum of the window."""
        with self._lock:
            values = self._values[: self._count].copy()
        if not values.size:
            return Latency()
        p50, p99 = np.percentile(values, (50, 99))
        return Latency(float(p50), float(p99), float(values.max()))

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._count = 0


class RateWindow:
    """How often something arrives, and when it last did, on a steady clock (so that simulated time does not matter)."""

    def __init__(self, seconds: float = 3.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._times: list[float] = []
        self._last = -math.inf
        self._lock = threading.Lock()

    def tick(self) -> None:
        """One arrival, now."""
        now = self._clock()
        with self._lock:
            self._times = [*self._fresh(now), now]
            self._last = now

    def rate(self) -> float:
        """Arrivals per second over the window; 0 when there were fewer than two. It sinks at once when they stop."""
        now = self._clock()
        with self._lock:
            self._times = self._fresh(now)
            if len(self._times) < 2:
                return 0.0
            intervals, span = len(self._times) - 1, self._times[-1] - self._times[0]
            return intervals / max(span, now - self._times[0] - span / intervals, 1e-9)

    def age(self) -> float:
        """Seconds since the last arrival; infinite before the first."""
        with self._lock:
            return self._clock() - self._last

    def clear(self) -> None:
        """Forgets all arrivals."""
        with self._lock:
            self._times = []
            self._last = -math.inf

    def _fresh(self, now: float) -> list[float]:
        return [t for t in self._times if now - t <= self._seconds]
