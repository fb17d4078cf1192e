# SPDX-License-Identifier: Apache-2.0
"""What the coming steps need, made by threads while a step is computed: data come from disks and decoders."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Made = TypeVar("Made")


def read_ahead(
    make: Callable[[Job], Made], jobs: Iterable[Job], *, threads: int, depth: int | None = None
) -> Generator[Made]:
    """`make(job)` of each job, in order; what it raises is raised in its place.

    threads: that make; 0: nothing is made ahead. depth: results in memory beside the one in use; default: as many as
    threads. Close the generator (`contextlib.closing`) where it may not be read to its end.
    """
    if not threads:
        yield from map(make, jobs)
        return
    depth = threads if depth is None else depth
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(make, job))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
