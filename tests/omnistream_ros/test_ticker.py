# SPDX-License-Identifier: Apache-2.0
"""The control tick's clockwork, on the steady clock and on simulated time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from rclpy.clock import ROSClock
from rclpy.time import Time

from omnistream_ros.ticker import LEAN_MOST, Ticker


class Ticks:
    """Steady times of ticks."""

    def __init__(self, last: float = 0.0) -> None:
        self.at: list[float] = []
        self._last = last

    def __call__(self) -> None:
        self.at.append(time.monotonic())
        time.sleep(self._last)


@pytest.fixture
def tick_on() -> Iterator[Callable[..., Ticker]]:
    made: list[Ticker] = []

    def make(clock: ROSClock, period: float, tick: Callable[[], None], priority: int = 0) -> Ticker:
        made.append(Ticker(clock, period, tick, "test", priority))
        return made[-1]

    yield make
    for ticker in made:
        ticker.stop(1.0)


def set_time(clock: ROSClock, seconds: float) -> None:
    clock.set_ros_time_override(Time(nanoseconds=round(seconds * 1e9), clock_type=clock.clock_type))


def simulated(seconds: float) -> ROSClock:
    clock = ROSClock()
    clock._set_ros_time_is_active(True)
    set_time(clock, seconds)
    return clock


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_ticks_keep_to_their_grid(tick_on: Callable[..., Ticker]) -> None:
    """The lateness of one is not handed on to the next."""
    ticks = Ticks()
    begin = time.monotonic()
    tick_on(ROSClock(), 0.02, ticks)
    wait_for(lambda: len(ticks.at) >= 50)
    late = np.array(ticks.at[:50]) - begin - 0.02
    assert np.median(late % 0.02) < 0.01
    assert late[0] < 0.5


def test_ticks_that_are_missed_are_left_out(tick_on: Callable[..., Ticker]) -> None:
    """No burst after a long one."""
    ticks = Ticks(last=0.05)
    tick_on(ROSClock(), 0.02, ticks)
    wait_for(lambda: len(ticks.at) >= 6)
    assert np.diff(ticks.at).min() > 0.049


def test_simulated_time_ticks_when_it_is_told(tick_on: Callable[..., Ticker]) -> None:
    """Whatever the wall clock does; a leap is one tick, and what is set back begins anew."""
    clock, ticks = simulated(100.0), Ticks()
    tick_on(clock, 0.1, ticks)
    time.sleep(0.3)
    assert not ticks.at
    for count, now in enumerate((100.2, 100.3, 200.05, 200.11), 1):
        set_time(clock, now)
        wait_for(lambda count=count: len(ticks.at) >= count)
    set_time(clock, 200.13)  # the next is due at 200.2
    set_time(clock, 50.0)
    set_time(clock, 50.05)
    time.sleep(0.1)
    assert len(ticks.at) == 4
    set_time(clock, 50.15)
    wait_for(lambda: len(ticks.at) >= 5)


def test_no_tick_begins_after_a_stop_even_where_time_stands(tick_on: Callable[..., Ticker]) -> None:
    ticks = Ticks()
    ticker = tick_on(simulated(1.0), 0.1, ticks)
    assert ticker.stop(1.0)
    assert not ticks.at and "test" not in {thread.name for thread in threading.enumerate()}


def test_a_tick_may_stop_it(tick_on: Callable[..., Ticker]) -> None:
    made: list[Ticker] = []
    ticks = Ticks()

    def tick() -> None:
        ticks()
        wait_for(lambda: bool(made))
        assert not made[0].stop(1.0)

    made.append(tick_on(ROSClock(), 0.01, tick))
    wait_for(lambda: not made[0]._thread.is_alive())
    assert len(ticks.at) == 1


def test_a_priority_is_taken_or_its_refusal_told(
    tick_on: Callable[..., Ticker], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    ticker = tick_on(ROSClock(), 0.01, lambda: found.append(os.sched_getscheduler(0)), priority=1)
    wait_for(lambda: bool(found))
    if ticker.refused:
        assert "no real-time priority 1: " in ticker.refused
    else:
        wait_for(lambda: found[-1] & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    ticks = Ticks()
    other = tick_on(ROSClock(), 0.01, ticks, priority=1)
    assert other.refused == "no real-time priority 1: [Errno 1] Operation not permitted"
    wait_for(lambda: len(ticks.at) > 1)


@pytest.mark.parametrize("seconds", [1.0, -1.0])
def test_it_leans(tick_on, seconds):
    """The grid moves, so much at a time at most, and only for as long as it is told to."""
    ticks = Ticks()
    ticker = tick_on(ROSClock(), 0.01, lambda: (ticks(), ticker.lean(seconds) if len(ticks.at) <= 40 else None))
    wait_for(lambda: len(ticks.at) > 80)
    at = np.array(ticks.at)
    leant, even = (np.median(np.diff(part)) for part in (at[:40], at[42:]))
    assert leant - 0.01 == pytest.approx(np.sign(seconds) * LEAN_MOST, abs=1e-4)
    assert even == pytest.approx(0.01, abs=1e-4)


def test_simulated_time_does_not_lean(tick_on):
    """Ticks come with messages on /clock; a grid between these would leave some out."""
    clock, ticks = simulated(5.0), Ticks()
    ticker = tick_on(clock, 0.1, ticks)
    for moment in range(1, 21):
        ticker.lean(1.0)
        set_time(clock, 5.0 + 0.1 * moment + 1e-6)
        wait_for(lambda: len(ticks.at) >= moment)  # noqa: B023
