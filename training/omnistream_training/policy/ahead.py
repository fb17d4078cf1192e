# SPDX-License-Identifier: Apache-2.0
"""The batches of the coming steps, assembled by a thread while a step is computed: features come from a disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from omnistream_training.policy.samples import Batch

DEPTH = 2
"""Batches in memory, beside the one that is learnt from."""


class Ahead:
    """Steps in order, each batch the one that `draw(step)` gives; what `draw` raises, the step raises."""

    def __init__(self, draw: Callable[[int], Batch], first: int, last: int) -> None:
        """For the steps first to last - 1."""
        self._draw, self._next, self._last = draw, first, last
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming: dict[int, Future[Batch]] = {}

    def __enter__(self) -> Ahead:
        self._fill()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int) -> Batch:
        """Waits for the thread where that is behind."""
        found = self._coming.pop(step).result()
        self._fill()
        return found

    def _fill(self) -> None:
        while self._next < self._last and len(self._coming) < DEPTH:
            self._coming[self._next] = self._pool.submit(self._draw, self._next)
            self._next += 1
