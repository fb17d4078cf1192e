# SPDX-License-Identifier: Apache-2.0
"""Which message belongs to a moment. Times are integer nanoseconds: comparisons are exact."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Generic, TypeVar

Value = TypeVar("Value")

NONE = -1


def newest_index(stamps: Sequence[int], at: int, max_age: int | None = None) -> int:
    """Index of the newest stamp not after `at` and not older than `max_age` ns (None: any age); -1 if there is none.

    stamps: sorted. Nothing after `at` is ever used.
    """
    i = bisect_right(stamps, at) - 1
    if i < 0 or (max_age is not None and at - stamps[i] > max_age):
        return NONE
    return i


def first_index(stamps: Sequence[int], at: int, max_wait: int | None = None) -> int:
    """Index of the first stamp not before `at` and not more than `max_wait` ns after it; -1 if there is none."""
    i = bisect_left(stamps, at)
    if i == len(stamps) or (max_wait is not None and stamps[i] - at > max_wait):
        return NONE
    return i


class History(Generic[Value]):
    """The last messages of one stream, sorted by stamp; those that arrive late are put in their place."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._stamps: list[int] = []
        self._values: list[Value] = []
        self.newest: int | None = None
        """Greatest stamp that was ever added."""

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp: int, value: Value) -> bool:
        """Add a message; False if one with that stamp is there already (drivers repeat messages): the first counts."""
        i = bisect_left(self._stamps, stamp)
        if i < len(self._stamps) and self._stamps[i] == stamp:
            return False
        insort(self._stamps, stamp)
        self._values.insert(i, value)
        if len(self._stamps) > self._size:
            del self._stamps[0], self._values[0]
        self.newest = stamp if self.newest is None else max(self.newest, stamp)
        return True

    def before(self, at: int, max_age: int | None = None) -> tuple[int, Value] | None:
        """(stamp, value) as `newest_index` chooses."""
        i = newest_index(self._stamps, at, max_age)
        return None if i == NONE else (self._stamps[i], self._values[i])

    def after(self, at: int, max_wait: int | None = None) -> tuple[int, Value] | None:
        """(stamp, value) as `first_index` chooses."""
        i = first_index(self._stamps, at, max_wait)
        return None if i == NONE else (self._stamps[i], self._values[i])

    def clear(self) -> None:
        """Forget everything."""
        self._stamps.clear()
        self._values.clear()
        self.newest = None
