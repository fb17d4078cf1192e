# SPDX-License-Identifier: Apache-2.0
"""Messages in, observations out. The importer feeds it a bag in the order of its log, a node what arrives."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omnistream.sync.history import History
from omnistream.sync.ticker import Ticker


@dataclass(frozen=True)
class Stream:
    """One stream that an observation needs."""

    name: str
    max_age: int | None
    """ns; None: any age."""
    size: int = 1024
    """Messages that are kept."""


@dataclass(frozen=True)
class Observation:
    """What was known at a tick."""

    stamp: int
    """ns."""
    arrival: int
    """ns on the clock of arrivals."""
    values: dict[str, Any]
    """Newest value per stream that is not after the tick."""
    ages: dict[str, int]
    """ns between value and tick."""


@dataclass(frozen=True)
class Gap:
    """A tick without an observation."""

    stamp: int
    reason: str
    """A sentence that names the stream."""
    idle: bool = False
    """Everything was seen; only nobody commanded anything."""


class Aligner:
    """Pairs the newest value of every stream with each tick of the master stream.

    A tick is decided when no message in order could change it: when every stream has reached its stamp, or when
    `patience` has passed since it arrived. So an observation does not depend on which of two messages with the same
    stamp was written first, and never on anything that arrives later than patience.
    """

    def __init__(self, streams: Sequence[Stream], master: str, period: int, patience: int) -> None:
        """master: the stream whose messages are ticks; period and patience in ns."""
        self._streams = {stream.name: stream for stream in streams}
        self._history: dict[str, History[Any]] = {stream.name: History(stream.size) for stream in streams}
        self._master, self._patience = master, patience
        self._ticker = Ticker(period)
        self._waiting: deque[tuple[int, int]] = deque()
        self.repeated: dict[str, int] = {}
        """Messages per stream that had a stamp already seen."""

    def add(self, stream: str, stamp: int, value: Any, arrival: int) -> Iterator[Observation | Gap]:
        """Take a message; yields the ticks that it decides, in order. arrival: ns, not decreasing."""
        yield from self.poll(arrival)
        if not self._history[stream].add(stamp, value):
            self.repeated[stream] = self.repeated.get(stream, 0) + 1
            return
        if stream == self._master and self._ticker.offer(stamp):
            self._waiting.append((stamp, arrival))
        while self._waiting and self._reached(self._waiting[0][0]):
            yield self._decide(*self._waiting.popleft())

    def poll(self, now: int) -> Iterator[Observation | Gap]:
        """Ticks whose patience has run out at `now`."""
        while self._waiting and now - self._waiting[0][1] > self._patience:
            yield self._decide(*self._waiting.popleft())

    def flush(self) -> Iterator[Observation | Gap]:
        """All ticks that still wait: no more messages come."""
        while self._waiting:
            yield self._decide(*self._waiting.popleft())

    def is_gap(self, before: int, after: int) -> bool:
        """Whether two ticks in a row lie too far apart to belong to one episode."""
        return self._ticker.is_gap(before, after)

    def _reached(self, stamp: int) -> bool:
        return all(h.newest is not None and h.newest >= stamp for h in self._history.values())

    def _decide(self, stamp: int, arrival: int) -> Observation | Gap:
        values, ages = {}, {}
        for name, stream in self._streams.items():
            found = self._history[name].before(stamp)
            if found is None:
                return Gap(stamp, f"nothing on {name} yet")
            age = stamp - found[0]
            if stream.max_age is not None and age > stream.max_age:
                return Gap(stamp, f"{name} is {age / 1e9:.3f} s old; at most {stream.max_age / 1e9:.3f} s")
            values[name], ages[name] = found[1], age
        return Observation(stamp, arrival, values, ages)
