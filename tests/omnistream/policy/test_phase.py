# SPDX-License-Identifier: Apache-2.0
"""Control ticks keep their place between pictures."""

from __future__ import annotations

import numpy as np
import pytest

from omnistream.policy.phase import Phase

PERIOD = 0.05
MOST = 0.0005


def place_of_ticks(wanted: float, begin: float, rate: float, jitter: float, seconds: float = 30.0) -> np.ndarray:
    """Periods after the last picture at which ticks fell, of all ticks; as the node's loop does it."""
    random = np.random.default_rng(0)
    pictures = np.arange(0, seconds, 1 / rate) + random.normal(0, jitter, int(np.ceil(seconds * rate)))
    phase, tick, lean, found, seen = Phase(wanted), begin, 0.0, [], 0
    while tick < seconds - 1:
        while pictures[seen] < tick + PERIOD:
            share = (pictures[seen] - tick) / PERIOD % 1.0
            lean = float(np.clip(PERIOD * phase.add(share), -MOST, MOST))
            seen += 1
        tick += PERIOD + lean
        lean = 0.0
        found.append((tick - pictures[pictures <= tick][-1]) * rate)
    return np.array(found)


@pytest.mark.parametrize("begin", [0.0, 0.011, 0.025, 0.049])
@pytest.mark.parametrize("wanted", [0.3, 0.5])
def test_it_locks(begin: float, wanted: float):
    """Wherever it begins, on pictures whose stamps are uneven, of a clock that runs a little faster."""
    found = place_of_ticks(wanted, begin, rate=20.01, jitter=0.002)[-200:]
    assert abs(np.median(found) - wanted) < 0.06
    assert np.abs(found - wanted).max() < 0.25


def test_another_rate_is_left_alone():
    """Pictures that have no place in the grid do not push the ticks about."""
    phase = Phase(0.5)
    moved = [phase.add(share) for share in np.arange(300) / 3.0 % 1.0]
    assert not np.any(moved[3:])
