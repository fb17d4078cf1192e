# SPDX-License-Identifier: Apache-2.0
"""Calls a function once a period, from a thread that does nothing else.

A timer of rclpy takes turns with everything else on the executor. Before its callback runs, one thread has asked every
entity of the node in Python and handed the timer to another, each of which has to get hold of interpreter and CPU again
while a network is at work. One thread that sleeps until the time has come has to do so once, and may be given a
real-time priority of its own, so that it need not queue behind the network's threads for a CPU.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import JumpThreshold, ROSClock
from rclpy.duration import Duration

LEAN_MOST = 0.5e-3
"""Seconds by which `Ticker.lean` makes a period longer or shorter at most."""
EVERY_CHANGE = JumpThreshold(min_forward=Duration(nanoseconds=1), min_backward=Duration(nanoseconds=-1))


class Ticker:
    """From now until `stop`: at most once a period, on the grid of times that the first period began.

    Simulated time (use_sim_time) counts where it is given; else the steady clock, which nobody can set. Ticks that were
    missed are left out. When simulated time is set back, or begins or ends, the next tick is one period from there.

    Args:
        clock: of the node.
        period: s, positive.
        tick: must not raise.
        name: of the thread.
        priority: 1 to 99: before every ordinary thread of the machine (SCHED_FIFO), where that is permitted; see
            `refused`. 0: an ordinary one.
    """

    def __init__(self, clock: ROSClock, period: float, tick: Callable[[], Any], name: str, priority: int = 0) -> None:
        self._clock, self._period, self._tick = clock, period, tick
        self._wake = threading.Condition()
        self._ended = False
        self._simulated: bool | None = None
        self._due = math.inf
        self._lean = 0.0
        self._heard = clock.create_jump_callback(EVERY_CHANGE, post_callback=self._look)  # each message on /clock
        # Daemon: a tick that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        thread = self._thread.native_id
        self.refused = "" if not priority or thread is None else _set_priority(thread, priority)
        """Why it has no priority, a sentence; "" where it has that which was asked for."""

    def stop(self, timeout: float | None = None) -> bool:
        """No tick begins after this. False if one is still at work after `timeout` seconds."""
        self._heard.unregister()
        with self._wake:
            self._ended = True
            self._wake.notify()
        if self._thread is threading.current_thread():
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def lean(self, seconds: float) -> None:
        """Moves the grid: the next tick comes so much later (or, negative, sooner), by at most `LEAN_MOST`.

        On simulated time nothing is moved: ticks come with messages on /clock.
        """
        self._lean = max(-LEAN_MOST, min(LEAN_MOST, seconds))

    def _look(self, _jump: object = None) -> None:
        with self._wake:
            self._wake.notify()

    def _run(self) -> None:
        while self._wait():
            self._tick()

    def _wait(self) -> bool:
        """Until the next tick is due; False after `stop`."""
        with self._wake:
            while not self._ended:
                left = self._left()
                if left <= 0:
                    lean, self._lean = 0.0 if self._simulated else self._lean, 0.0
                    self._due += self._period * (1 + math.floor(-left / self._period)) + lean
                    return True
                self._wake.wait(None if self._simulated else left)
        return False

    def _left(self) -> float:
        """Seconds until the next tick; the time that simulated time takes for them nobody knows."""
        simulated = self._clock.ros_time_is_active
        now = self._clock.now().nanoseconds / 1e9 if simulated else time.monotonic()
        if simulated is not self._simulated or self._due - now > self._period + LEAN_MOST:
            self._simulated, self._due = simulated, now + self._period
        return self._due - now


def _set_priority(thread: int, priority: int) -> str:
    """Returns why not, or ""."""
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except (OSError, AttributeError) as error:  # no permission; or not Linux
        return f"no real-time priority {priority}: {error}"
    return ""
