# SPDX-License-Identifier: Apache-2.0
"""Keeping a bounded number of evenly spaced items of a stream whose length is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class EvenSample(Generic[Item]):
    """Items 0, s, 2s, ... of a stream, never more than `limit`: when it is full, every second goes and s doubles.

    Between limit / 2 and limit items are kept of any stream that is long enough, and the first always is.
    """

    def __init__(self, limit: int) -> None:
        if limit < 2:
            raise ValueError(f"limit is {limit}; expected at least 2")
        self.stride = 1
        self.count = 0
        """Items offered so far."""
        self._limit = limit
        self._items: list[Item] = []

    def offer(self, make: Callable[[], Item]) -> bool:
        """Counts one item; `make()` is called only if it is kept. Returns whether it was."""
        index = self.count
        self.count += 1
        if index % self.stride:
            return False
        if len(self._items) == self._limit:
            self._items = self._items[::2]
            self.stride *= 2
            if index % self.stride:
                return False
        self._items.append(make())
        return True

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)
