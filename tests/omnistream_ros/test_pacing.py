# SPDX-License-Identifier: Apache-2.0
"""The timetable of a recording: no drift, no bursts, no endless pauses."""

import threading
import time

import pytest

from omnistream.errors import InputError
from omnistream_ros.pacing import LONGEST_GAP_S, Timetable, wait_until


class FakeClock:
    """A steady clock that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_fixed_rate_does_not_drift() -> None:
    clock = FakeClock()
    timetable = Timetable(30.0, 0.0, clock)
    dues = []
    for index in range(300):
        due = timetable.next(index * 123.0)  # stamps do not matter at a fixed rate
        dues.append(due)
        clock.now = due + 0.9 / 30  # every frame takes nearly its whole period
    assert dues[-1] - dues[0] == pytest.approx(299 / 30)
    assert timetable.late == 0


def test_own_rate_keeps_the_distances_of_the_stamps() -> None:
    clock = FakeClock()
    timetable = Timetable(0.0, 30.0, clock)
    dues = []
    for stamp in (5.0, 5.1, 5.15, 7.15):
        due = timetable.next(stamp)
        dues.append(due)
        clock.now = due
    assert [due - dues[0] for due in dues] == pytest.approx([0.0, 0.1, 0.15, 2.15])


@pytest.mark.parametrize("step", [0.0, -3.0, LONGEST_GAP_S + 1])
def test_a_stamp_that_does_not_advance_or_pauses_for_long_takes_one_period(step: float) -> None:
    clock = FakeClock()
    timetable = Timetable(0.0, 20.0, clock)
    first = timetable.next(60.0)
    assert timetable.next(60.0 + step) - first == pytest.approx(0.05)


def test_a_slow_reader_is_late_but_makes_no_burst() -> None:
    clock = FakeClock()
    timetable = Timetable(10.0, 0.0, clock)
    timetable.next(0.0)
    clock.now += 1.0
    assert timetable.next(0.0) == clock.now
    assert timetable.next(0.0) == pytest.approx(clock.now + 0.1)
    assert timetable.late == 1


@pytest.mark.parametrize(("rate", "nominal"), [(-1.0, 30.0), (0.0, 0.0)])
def test_impossible_rates_are_refused(rate: float, nominal: float) -> None:
    with pytest.raises(InputError, match="rate"):
        Timetable(rate, nominal)


def test_waiting_ends_at_once_when_stopped() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    started = time.monotonic()
    assert not wait_until(started + 30.0, stop)
    assert time.monotonic() - started < 5.0
    assert wait_until(time.monotonic() - 1.0, threading.Event())
