# SPDX-License-Identifier: Apache-2.0
"""`read_ahead`: in order whatever takes long, no further ahead than told, and nothing left behind."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from omnistream_training.ahead import read_ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_order(threads: int) -> None:
    def make(job: int) -> int:
        time.sleep(0.01 * (job % 3 == 0))
        return job * job

    assert list(read_ahead(make, range(10), threads=threads)) == [job * job for job in range(10)]


def test_no_more_is_made_than_there_is_room_for() -> None:
    made: list[int] = []

    def make(job: int) -> int:
        made.append(job)
        return job

    with closing(read_ahead(make, range(100), threads=1, depth=2)) as results:
        assert next(results) == 0
        time.sleep(0.1)
        assert made == [0, 1, 2]
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


@pytest.mark.parametrize("threads", [0, 2])
def test_what_goes_wrong_goes_wrong_in_its_place(threads: int) -> None:
    def make(job: int) -> int:
        if job == 2:
            raise OSError("the disk is gone")
        return job

    results = read_ahead(make, range(5), threads=threads)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="disk is gone"):
        next(results)
