# SPDX-License-Identifier: Apache-2.0
"""The control loop: a ticker that sends, and a watchdog on the steady clock that sends only stops; a thread each.

One lock is held from the decision to the publisher, so that no movement can leave after a stop was decided. Neither
waits for the network, another thread, whose answers are only ever added to the plan, nor for callbacks of the executor.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.node import Node

from omnistream.errors import ConfigError
from omnistream.policy.chunks import should_ask
from omnistream.policy.control import Control
from omnistream.policy.drive import Drive
from omnistream.policy.guard import Facts, Mode, Stop
from omnistream.policy.mind import Thought
from omnistream.policy.outbox import Outgoing
from omnistream.policy.phase import Phase
from omnistream_ros.latency import LatencyWindow
from omnistream_ros.ticker import Ticker

from .inputs import Inputs
from .outputs import Outputs

LOCK_TIMEOUT = 0.05
"""Seconds after which a stop leaves even if somebody holds the lock."""
JOIN_TIMEOUT = 1.0
"""Seconds that the end waits for a tick in hand."""
CLOCK_STEP = 0.5
"""Seconds by which the system's clock may part from the steady one between two looks; more is a clock that was set."""


class Halted(ConfigError):
    """Somebody stopped it before it began: what asks for a start after that must ask again."""


class Loop:
    """See the module. From configure to cleanup; runs between `begin` and `end`.

    Args:
        node: for its clock and log.
        drive: decides; touched under the lock alone.
        execute: actions of a chunk that are executed before the next is asked for.
        priority: of the ticker among the machine's threads; see `Ticker`.
        phase: where ticks are to fall after pictures, in periods; negative: wherever they do.
        busy: for how long the inference in hand has been at work, s.
        instructed: whether there is an instruction to follow.
        changed: called after the permission to move changed, from any thread.
        jumped: called, from the watchdog, when somebody set the system's clock. rclpy tells of simulated time alone.
        broken: called with a sentence when the loop itself fails; a stop has been sent then.
    """

    def __init__(
        self,
        node: Node,
        drive: Drive,
        inputs: Inputs,
        outputs: Outputs,
        execute: int,
        priority: int,
        phase: float,
        busy: Callable[[float], float],
        instructed: Callable[[], bool],
        changed: Callable[[], Any],
        jumped: Callable[[], None],
        broken: Callable[[str], None],
    ) -> None:
        self.drive = drive
        self.detail = ""
        """Of the last stop that somebody has to look at."""
        self.halts = 0
        """Stops that somebody or something decided on, e-stops included."""
        self.latencies = {"tick": LatencyWindow(1200), "jitter": LatencyWindow(1200)}
        self._node, self._inputs, self._outputs, self._execute = node, inputs, outputs, execute
        self._priority = priority
        self._phase = Phase(phase) if phase >= 0 else None
        self._busy, self._instructed, self._changed = busy, instructed, changed
        self._jumped, self._broken = jumped, broken
        self._period = drive.control.settings.limits.period
        self._lock = threading.RLock()
        self._ticker: Ticker | None = None
        self._ending = threading.Event()
        self._watchdog: threading.Thread | None = None
        self._last_tick: float | None = None
        self._overtaking: Callable[[int, float], list[Outgoing]] | None = None
        """The last stop that did not wait for the lock."""
        self._told: tuple[Mode, Stop] = (Mode.DISABLED, Stop.NONE)

    @property
    def control(self) -> Control:
        """The controller, to look at."""
        return self.drive.control

    def begin(self) -> None:
        """Ticks from now on; nothing leaves before a start."""
        self._ending.clear()
        self._last_tick = None
        self._ticker = Ticker(self._node.get_clock(), self._period, self._on_tick, "control", self._priority)
        if self._ticker.refused:
            self._node.get_logger().info(f"the control tick is less even on a busy machine: {self._ticker.refused}")
        self._watchdog = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._watchdog.start()

    def end(self, reason: Stop) -> None:
        """Nothing is permitted any more, then a stop command, then no more ticks."""
        self._ending.set()
        self.stop(reason, "")
        if self._ticker is not None:
            self._ticker.stop(timeout=JOIN_TIMEOUT)
        self._ticker = None
        if self._watchdog is not None and self._watchdog is not threading.current_thread():
            self._watchdog.join(timeout=JOIN_TIMEOUT)
        self._watchdog = None

    # ---------------------------------------------------------------- permission

    def start(self, halts: int | None = None) -> None:
        """Permits to move. ConfigError while the e-stop is latched, and after `end`; Halted where there are more
        `halts` than these."""
        place = self._inputs.place
        with self._locked():
            if self._ending.is_set():
                raise ConfigError("the node is being deactivated; activate it first")
            if halts is not None and halts != self.halts:
                raise Halted("stopped before it began")
            self.drive.start(stamp=self._stamp(), now=time.monotonic(), at=None if place is None else place.values)
            self.detail = ""
        self._tell()

    def stop(self, reason: Stop, detail: str) -> None:
        """Sends a stop command, whatever the state, and takes the permission back."""
        self.halts += 1
        self._send_stop(lambda stamp, now: self.drive.stop(reason, stamp=stamp, now=now))
        self.detail = detail
        self._tell()

    def estop(self) -> None:
        """As `stop`, latched."""
        self.halts += 1
        self._send_stop(lambda stamp, now: self.drive.estop(stamp=stamp, now=now))
        self.detail = ""
        self._tell()

    def clear(self) -> None:
        """Unlatches the e-stop."""
        with self._locked():
            self.drive.clear(stamp=self._stamp(), now=time.monotonic())
        self._tell()

    def rival_problem(self) -> str:
        """On which of our topics somebody else publishes too, a sentence; "" where nobody does."""
        rivals = self._outputs.rivals()
        return f"somebody else publishes on {', '.join(rivals)}; expected nobody" if rivals else ""

    # ---------------------------------------------------------------- the plan

    def wants_chunk(self) -> int | None:
        """The newest tick where a prediction is due; None where none is."""
        with self._locked():
            started = self.control.guard.mode in (Mode.HOLDING, Mode.RUNNING)
            due = started and should_ask(self.control.plan, self.control.tick_now + 1, execute=self._execute)
            return self.control.tick_now if due else None

    def adopt(self, thought: Thought) -> tuple[int, int] | None:
        """Start tick and tick of arrival; None where it is refused."""
        chunk = thought.chunk
        if chunk is None or chunk.stamp is None:
            return None
        with self._locked():
            return self.drive.adopt(thought.number, chunk.actions, chunk.stamp)

    def forget(self, *, clock: bool = False) -> None:
        """Drops all planned actions; with `clock` the count of ticks too."""
        with self._locked():
            self.drive.forget(clock=clock)

    def heard(self, stamp: float) -> None:
        """An observation of this ROS time, s: the ticks keep their place between pictures."""
        if self._phase is None or (ticker := self._ticker) is None:
            return
        with self._locked():
            share = self.control.share_of(stamp)
        if share is not None:
            ticker.lean(self._period * self._phase.add(share))

    # ---------------------------------------------------------------- two clocks

    def _on_tick(self) -> None:
        if self._ending.is_set():
            return
        try:
            self._tick()
        except Exception as error:  # the loop must not end silently
            self.stop(Stop.FAULT, f"the control loop failed: {error}")
            self._broken(f"the control loop failed:\n{traceback.format_exc()}")

    def _tick(self) -> None:
        now = time.monotonic()
        gap = 0.0 if self._last_tick is None else now - self._last_tick
        if self._last_tick is not None:
            self.latencies["jitter"].add(abs(gap - self._period) * 1e3)
        self._last_tick = now
        clock = self._node.get_clock().now()
        ros_now = clock.nanoseconds / 1e9
        place, rivals = self._inputs.place, self.rival_problem()
        with self._locked():
            if rivals and self.control.guard.mode in (Mode.HOLDING, Mode.RUNNING):
                self.detail = rivals
            facts = Facts(
                instruction=self._instructed(),
                observation_age=self._inputs.age(ros_now, now),
                state_age=self._inputs.place_age(ros_now, now),
                inference_busy=self._busy(now),
                tick_gap=gap,
                identical=self._inputs.identical,
                rivals=int(bool(rivals)),
            )
            at = (None, None) if place is None else (place.values, place.orientation)
            stops, before = self._overtaking, self.control.last
            left = self.drive.tick(facts, stamp=clock.nanoseconds, now=now, at=at[0], orientation=at[1])
            if self._overtaking is not stops and self._overtaking is not None:
                left = self._overtaking(clock.nanoseconds, now)  # what this tick decided no longer counts
            elif (last := self.control.last) is not None and last is not before and last.detail:
                self.detail = last.detail
            self._outputs.send(left, clock.to_msg())
        self.latencies["tick"].add((time.monotonic() - now) * 1e3)
        self._tell()

    def _watch(self) -> None:
        """Stops a robot whose control loop stands still: /clock stopped, a tick hangs in a library."""
        limit, before = self.control.settings.gates.max_tick_gap, self._offset()
        while not self._ending.wait(min(self._period, limit / 4)):
            try:
                before = self._look(limit, before)
            except Exception as error:  # the last that looks after the robot must not end silently
                self._broken(f"the watchdog failed:\n{traceback.format_exc()}")
                self.stop(Stop.FAULT, f"the watchdog failed: {error}")
                return

    def _look(self, limit: float, before: tuple[float, float]) -> tuple[float, float]:
        """One look of the watchdog: at the two clocks, and at the last tick."""
        offset = self._offset()
        parted = max(offset[0] - before[1], before[0] - offset[1])
        if parted > CLOCK_STEP and not self._node.get_clock().ros_time_is_active:
            self._jumped()
        last = self._last_tick
        if last is not None and self.control.running and time.monotonic() - last > limit:
            self._send_stop(lambda stamp, now: self.drive.hold(Stop.TICK_LATE, stamp=stamp, now=now))
            self._tell()
        return offset

    def _offset(self) -> tuple[float, float]:
        """ROS time less steady time, s: at least, at most. Bounds, as the thread may be held up between two clocks."""
        before = time.monotonic()
        ros = self._node.get_clock().now().nanoseconds / 1e9
        return ros - time.monotonic(), ros - before

    def _send_stop(self, decide: Callable[[int, float], list[Outgoing]]) -> None:
        """Decides (given ROS time in ns and steady time) and sends; after `LOCK_TIMEOUT` even without the lock."""
        got = self._lock.acquire(timeout=LOCK_TIMEOUT)
        if not got:
            self._overtaking = decide  # the tick that has the lock is to look at this before it sends
            self.drive.unlocked()
        try:
            clock = self._node.get_clock().now()
            self._outputs.send(decide(clock.nanoseconds, time.monotonic()), clock.to_msg())
        finally:
            if got:
                self._lock.release()

    def _stamp(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            yield

    def _tell(self) -> None:
        guard = self.control.guard
        if (guard.mode, guard.reason) != self._told:
            self._told = (guard.mode, guard.reason)
            self._changed()
