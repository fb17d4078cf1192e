# SPDX-License-Identifier: Apache-2.0
"""A bounded, evenly spaced sample of a stream of unknown length."""

import pytest

from omnistream_ros.even_sample import EvenSample


@pytest.mark.parametrize("limit", [2, 3, 8, 13])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 100, 1001])
def test_bounded_evenly_spaced_and_long_enough(limit: int, count: int) -> None:
    sample: EvenSample[int] = EvenSample(limit)
    for index in range(count):
        sample.offer(lambda index=index: index)
    kept = list(sample)
    assert kept == list(range(0, count, sample.stride))
    assert len(kept) <= limit and len(kept) >= min(count, limit // 2)
    assert sample.count == count


def test_what_is_not_kept_is_not_made() -> None:
    sample: EvenSample[int] = EvenSample(4)
    made: list[int] = []

    def make(index: int) -> int:
        made.append(index)
        return index

    kept = [sample.offer(lambda index=index: make(index)) for index in range(64)]
    assert sum(kept) == len(made) < 20


def test_a_limit_of_one_cannot_be_even() -> None:
    with pytest.raises(ValueError, match="limit is 1"):
        EvenSample(1)
