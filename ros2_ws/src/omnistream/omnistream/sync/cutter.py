# SPDX-License-Identifier: Apache-2.0
"""Steps in, episodes out: cut where the operator says so, where the instruction changes, and at gaps."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from omnistream.errors import InputError
from omnistream.sync.actions import Step
from omnistream.sync.aligner import Gap

START, SUCCESS, FAILURE, STOP, DISCARD = WORDS = ("start", "success", "failure", "stop", "discard")
"""What a message on the episodes' topic says; the last four end an episode."""


@dataclass(frozen=True)
class Begin:
    """An episode begins with the next step."""

    instruction: str
    stamp: int
    """ns."""


@dataclass(frozen=True)
class End:
    """The episode is over."""

    reason: str
    success: bool | None
    """None: nobody said."""
    discard: bool = False
    """The operator threw it away."""


class Cutter:
    """Yields Begin, its steps, End, ... in order of time.

    Between the last command and the mark an operator needs a moment: a verdict after idle ticks is about the steps
    before them. Other gaps end an episode at once, and nobody's verdict on what came of it reaches back over them.
    """

    def __init__(self, *, marked: bool, instruction: str, is_gap: Callable[[int, int], bool]) -> None:
        """marked: only what lies between marks is an episode. instruction: until another one comes."""
        self._marked, self._instruction, self._is_gap = marked, instruction, is_gap
        self._running = not marked
        self._events: list[tuple[int, int, str, str]] = []
        self._count = 0
        self._last: int | None = None
        """Stamp of the last step of the open episode; None: none is open."""
        self._idle: str | None = None
        """Why there was no step since; the episode ends for it unless a verdict comes first."""

    def mark(self, stamp: int, word: str) -> None:
        """One of `WORDS` at `stamp` ns; InputError for another word."""
        word = word.strip().lower()
        if word not in WORDS:
            raise InputError(f"episode mark is {word!r}; expected one of {', '.join(WORDS)}")
        self._add(stamp, "mark", word)

    def instruct(self, stamp: int, text: str) -> None:
        """A new instruction at `stamp` ns."""
        self._add(stamp, "text", text.strip())

    def _add(self, stamp: int, kind: str, value: str) -> None:
        self._count += 1  # events with one stamp stay in the order they came
        insort(self._events, (stamp, self._count, kind, value))

    def take(self, item: Step | Gap) -> Iterator[Begin | Step | End]:
        """The next step or gap, with what it brings about."""
        stamp = item.observation.stamp if isinstance(item, Step) else item.stamp
        yield from self._until(stamp)
        if isinstance(item, Gap):
            if item.idle:
                self._idle = self._idle or item.reason
            else:
                yield from self._end(item.reason, None)
            return
        if not self._running:
            return
        if self._idle is not None:
            yield from self._end(self._idle, None)
        if self._last is not None and self._is_gap(self._last, stamp):
            yield from self._end(f"{(stamp - self._last) / 1e9:.3f} s without a tick", None)
        if self._last is None:
            yield Begin(self._instruction, stamp)
        self._last = stamp
        yield item

    def flush(self) -> Iterator[Begin | Step | End]:
        """Apply the marks that are left and end what is open."""
        yield from self._until(2**63 - 1)
        yield from self._end("end of the recording", None)

    def _until(self, stamp: int) -> Iterator[End]:
        """Apply what lies before `stamp`; at `stamp` itself a start counts, but no end: that step is still in it."""
        while self._events:
            at, _, kind, value = self._events[0]
            if at > stamp or (at == stamp and kind == "mark" and value != START):
                return
            self._events.pop(0)
            if kind == "text":
                if value != self._instruction:
                    yield from self._end("a new instruction", None)
                self._instruction = value
            elif value == START:
                yield from self._end("a new start", None)
                self._running = True
            else:
                success = {SUCCESS: True, FAILURE: False}.get(value)
                self._idle = None
                yield from self._end(value, success, discard=value == DISCARD)
                self._running = not self._marked

    def _end(self, reason: str, success: bool | None, discard: bool = False) -> Iterator[End]:
        if self._last is not None:
            self._last = None
            yield End(self._idle or reason, success, discard)
        self._idle = None
