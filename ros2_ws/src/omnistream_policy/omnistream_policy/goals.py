# SPDX-License-Identifier: Apache-2.0
"""The action ~/run_policy: one instruction, permission to move while the goal lasts, a stop command at its end.

One goal at a time. The newest takes over; the one before ends ABORTED, `OUTCOME_PREEMPTED`. A goal that is rejected
changes nothing. Whatever else takes the permission to move back (~/stop, ~/reset, the e-stop, a fault, deactivation)
ends the goal too. While a goal lasts ~/set_instruction is refused: what it would start nobody would end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node

from omnistream.errors import ConfigError, OmniStreamError
from omnistream_msgs.action import RunPolicy

from .loop import Halted

WATCH_PERIOD = 0.05
"""Seconds between two looks at time, cancellation and permission. A cancellation stops the robot before that."""
FEEDBACK_PERIOD = 0.2
R = RunPolicy.Result


@dataclass(frozen=True)
class Situation:
    """Of the node, as a goal sees it."""

    permitted: bool
    """Whether it may move, now or as soon as all is well."""
    state: int
    reason: str
    detail: str
    """These three as in PolicyStatus."""
    commands: int
    """That moved, since activation."""
    age: float
    """Of the newest observation, s; NaN: none yet."""


class _Goal:
    """One goal from its acceptance to its end."""

    def __init__(self, handle: ServerGoalHandle, mark: int) -> None:
        self.handle, self.mark = handle, mark
        self.text = handle.request.instruction.strip()
        self.begun = time.monotonic()
        self.told = -math.inf
        """Steady time of the last feedback."""
        self.commands = 0
        """Of the node, at the goal's begin."""
        self.unknown: tuple[str, ...] = ()
        self.cancelled = self.ended = False


class Goals:
    """The action server of a node.

    Acceptance and cancellation never wait, and no coroutine is left pending: either would slow a node that has commands
    to send. A timer looks after the goal, and rclpy executes it only to send its result. The timer alone may wait, in
    `begin`, for the inference in hand, holding up nothing but its own group.

    Args:
        node: whose action it is.
        group: of the work that may wait for the network.
        urgent: of acceptance and cancellation.
        refusal: (instruction, timeout) -> why that goal cannot be followed now; "" where it can.
        mark: called at acceptance; what it returns is given to `begin`.
        begin: (instruction, mark) -> unknown words; instructs, and permits to move. Raises Halted where somebody
            stopped it since the mark, OmniStreamError or TimeoutError where it cannot.
        stop: called with a sentence: sends a stop command and takes the permission back.
        look: the situation now.
    """

    def __init__(
        self,
        node: Node,
        *,
        group: CallbackGroup,
        urgent: CallbackGroup,
        refusal: Callable[[str, float], str],
        mark: Callable[[], int],
        begin: Callable[[str, int], tuple[str, ...]],
        stop: Callable[[str], None],
        look: Callable[[], Situation],
    ) -> None:
        self._node, self._group = node, group
        self._refusal, self._mark, self._begin, self._stop, self._look = refusal, mark, begin, stop, look
        self._lock = threading.Lock()
        self._next: _Goal | None = None
        self._goal: _Goal | None = None
        self._timer: Any = None
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._server = ActionServer(
            node,
            RunPolicy,
            "~/run_policy",
            execute_callback=lambda handle: R(),  # each goal brings its own
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
            callback_group=urgent,
        )

    def check_free(self) -> None:
        """ConfigError while a goal is followed."""
        goal = self._next or self._goal
        if goal is not None:
            raise ConfigError(f"the action run_policy follows {goal.text!r}; cancel it first")

    def end(self, reason: str) -> None:
        """No goal outlives the active state."""
        with self._lock:
            goals = [goal for goal in (self._goal, self._next) if goal is not None]
        for goal in goals:
            self._finish(goal, R.OUTCOME_STOPPED, reason, "the node stopped")

    def destroy(self) -> None:
        """Removes the action."""
        self._server.destroy()

    # ---------------------------------------------------------------- rclpy's side: quick, whatever the network does

    def _on_goal(self, request: RunPolicy.Goal) -> GoalResponse:
        if problem := self._refusal(request.instruction.strip(), request.timeout):
            self._node.get_logger().warning(f"run_policy refused: {problem}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        goal = _Goal(handle, self._mark())
        with self._lock:
            overtaken, self._next = self._next, goal
            if self._timer is None:
                self._timer = self._node.create_timer(
                    WATCH_PERIOD, self._work, callback_group=self._group, clock=self._steady
                )
        if overtaken is not None:
            self._finish(overtaken, R.OUTCOME_PREEMPTED, "", "another goal took over")

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        goal = self._goal
        if goal is not None and goal.handle == handle:
            goal.cancelled = True
            self._stop("run_policy was cancelled")  # now; the goal ends at the next look
        return CancelResponse.ACCEPT

    # ---------------------------------------------------------------- the goal's life

    def _work(self) -> None:
        with self._lock:
            before, goal = self._goal, self._next
            if goal is not None:
                self._goal, self._next = goal, None
            elif before is None:
                if self._timer is not None:
                    self._node.destroy_timer(self._timer)
                    self._timer = None
                return
        if goal is not None:
            self._take_over(before, goal)
        elif before is not None:
            self._watch(before)

    def _take_over(self, before: _Goal | None, goal: _Goal) -> None:
        if goal.handle.is_cancel_requested:  # before it began: whoever was at work stays
            self._finish(goal, R.OUTCOME_CANCELED, "", "cancelled before it began", then=before)
            return
        if before is not None:
            self._finish(before, R.OUTCOME_PREEMPTED, "", f"another goal took over: {goal.text!r}")
        goal.begun, goal.commands = time.monotonic(), self._look().commands
        try:
            goal.unknown = self._begin(goal.text, goal.mark)
        except Halted as error:
            if not goal.cancelled:  # else the next look ends it
                self._finish(goal, R.OUTCOME_STOPPED, self._look().reason, str(error))
            return
        except (OmniStreamError, TimeoutError) as error:
            reason = str(error) or "the inference in hand did not end"
            self._stop(f"run_policy: {reason}")  # the goal before may have been moving
            self._finish(goal, R.OUTCOME_REFUSED, self._look().reason, reason)
            return
        self._node.get_logger().info(f"run_policy: {goal.text!r}" + _limit(goal.handle.request.timeout))

    def _watch(self, goal: _Goal) -> None:
        now, elapsed, limit = self._look(), time.monotonic() - goal.begun, goal.handle.request.timeout
        if goal.handle.is_cancel_requested and not goal.cancelled:  # the callback came while goals were changing
            goal.cancelled = True
            self._stop("run_policy was cancelled")
        if goal.cancelled:
            if goal.handle.is_cancel_requested:  # rclpy says so only after the callback
                self._finish(goal, R.OUTCOME_CANCELED, now.reason, "cancelled")
        elif not now.permitted:
            self._finish(goal, R.OUTCOME_STOPPED, now.reason, f"stopped: {now.reason} {now.detail}".strip())
        elif limit and elapsed >= limit:
            self._stop(f"run_policy: {limit:g} s are over")
            self._finish(goal, R.OUTCOME_TIME_OVER, self._look().reason, f"followed for {limit:g} s")
        elif time.monotonic() - goal.told >= FEEDBACK_PERIOD:
            goal.told = time.monotonic()
            goal.handle.publish_feedback(
                RunPolicy.Feedback(
                    state=now.state,
                    reason=now.reason,
                    elapsed=elapsed,
                    commands=max(0, now.commands - goal.commands),
                    observation_age=now.age,
                )
            )

    def _finish(self, goal: _Goal, outcome: int, reason: str, message: str, then: _Goal | None = None) -> None:
        """Sends the result, once. then: who is at work after it."""
        with self._lock:
            if goal.ended:
                return
            goal.ended = True
            if goal is self._next:
                self._next = None
            elif goal is self._goal:
                self._goal = None if then is None or then.ended else then
        result = R(
            outcome=outcome,
            reason=reason,
            message=message,
            elapsed=time.monotonic() - goal.begun,
            commands=max(0, self._look().commands - goal.commands),
            unknown_words=list(goal.unknown),
        )
        self._node.get_logger().info(f"run_policy: {goal.text!r} ended: {message}")
        _execute(goal.handle, outcome, result)


def _execute(handle: ServerGoalHandle, outcome: int, result: RunPolicy.Result) -> None:
    """rclpy sends the result of what it executes; so this is all that it executes."""

    def end(handle: ServerGoalHandle) -> RunPolicy.Result:
        if outcome == R.OUTCOME_CANCELED:
            handle.canceled()
        elif outcome == R.OUTCOME_TIME_OVER:
            handle.succeed()
        else:
            handle.abort()
        return result

    try:
        handle.execute(end)
    except _rclpy.RCLError:  # a cancellation came in between: seen this time
        handle.execute(end)
    except AttributeError:  # no executor any more, the process ends: the state at least is published
        handle.abort()


def _limit(timeout: float) -> str:
    return f", for {timeout:g} s" if timeout else ", until it is cancelled"
