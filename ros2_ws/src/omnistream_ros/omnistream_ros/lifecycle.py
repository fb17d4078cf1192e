# SPDX-License-Identifier: Apache-2.0
"""The base of our lifecycle nodes: readable failures, transitions that may be repeated, autostart, faults.

A node implements `configure`, `activate`, `deactivate` and `cleanup` and raises what goes wrong; this class turns that
into lifecycle results:

    OmniStreamError, OSError    the transition fails, the reason is logged and kept in `fault`; the state stays
    anything else               a bug: the traceback is logged, the node passes error processing and is unconfigured
    self.raise_fault("...")     from any thread, while active: as above, the reason stays in `fault`
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from omnistream.errors import OmniStreamError

from .parameters import Effect, Parameters, ParameterSpec

LIFECYCLE_PARAMETERS = (
    ParameterSpec(
        "autostart",
        True,
        "Configure and activate by itself. Set it to false where a lifecycle manager does that.",
        effect=Effect.START,
    ),
    ParameterSpec(
        "exit_on_failure",
        False,
        "End the process with exit code 1 when autostart fails or a fault ends the active state; omnistream-up sets "
        "it. Otherwise the node stays, unconfigured, for somebody to mend and configure it.",
        effect=Effect.START,
    ),
)


class State(StrEnum):
    """Primary states of a managed node."""

    UNCONFIGURED = "unconfigured"
    INACTIVE = "inactive"
    ACTIVE = "active"
    FINALIZED = "finalized"


class ManagedNode(LifecycleNode):
    """A lifecycle node with a table of parameters.

    Args:
        name: node name, when it is not remapped.
        specs: its parameters; `LIFECYCLE_PARAMETERS` are added.
        context, and all other keywords: as for rclpy's Node.

    Raises:
        ConfigError: a parameter given at start is refused.
    """

    def __init__(self, name: str, specs: Iterable[ParameterSpec], **keywords: Any) -> None:
        super().__init__(name, **keywords)
        self.state = State.UNCONFIGURED
        self.fault = ""
        """Why the last transition failed, or why the node left `active` by itself; '' when all is well."""
        self.failed = False
        """Whether the node is unconfigured because of an error at work, not because nobody configured it."""
        self.parameters = Parameters(
            self, [*LIFECYCLE_PARAMETERS, *specs], locked=lambda: self.state in (State.INACTIVE, State.ACTIVE)
        )
        self.finished = threading.Event()
        """Set when the process should end; see `exit_on_failure`."""
        self.exit_code = 0
        self._pending_fault = ""
        self._transitions = threading.RLock()  # one at a time, whatever the executor: `stop` waits for a configure
        self._stopping = False
        self._fault_signal = self.create_guard_condition(self._handle_fault)
        self._tolerate_repeated_transitions()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._autostart = self.create_timer(0.0, self._start_once, clock=steady)

    # ---------------------------------------------------------------- what a node implements

    def configure(self) -> None:
        """Load, allocate, warm up; no traffic. On an exception `cleanup` is called to undo the half that was done."""

    def activate(self) -> None:
        """Begin to work. Lifecycle publishers are enabled already."""

    def deactivate(self) -> None:
        """Stop working; must not raise."""

    def cleanup(self) -> None:
        """Free everything that `configure` made; must not raise, and may be called when nothing is there."""

    def state_changed(self) -> None:
        """Called after each transition and each fault: for a status topic."""

    # ---------------------------------------------------------------- for the node and its threads

    def raise_fault(self, reason: str) -> None:
        """Leaves `active` through error processing because of `reason`. From any thread; returns at once."""
        self._pending_fault = reason
        self._fault_signal.trigger()

    def stop(self) -> None:
        """Before the process ends: as a shutdown transition, whatever the state; waits for a transition in hand."""
        self._stopping = True
        if self.state is not State.FINALIZED:
            self._attempt(self.trigger_shutdown)

    # ---------------------------------------------------------------- rclpy's side

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self.failed = False
        return self._transition("configure", State.INACTIVE, self.configure, undo=self.cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        super().on_activate(state)
        result = self._transition("activate", State.ACTIVE, self.activate, undo=self.deactivate)
        if result is not TransitionCallbackReturn.SUCCESS:
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        result = self._transition("deactivate", State.INACTIVE, self.deactivate)
        super().on_deactivate(state)
        if self._pending_fault:  # see _handle_fault: the only way from active to error processing
            self.fault, self._pending_fault = self._pending_fault, ""
            return TransitionCallbackReturn.ERROR
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        return self._transition("clean up", State.UNCONFIGURED, self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        return self._transition("shut down", State.FINALIZED, self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees everything; the node is unconfigured then and may be configured again."""
        fault = self.fault
        super().on_deactivate(state)
        result = self._transition("clean up after an error", State.UNCONFIGURED, self._release)
        self.fault, self.failed = fault or self.fault, True
        self.state_changed()
        return result

    def _release(self) -> None:
        if self.state is State.ACTIVE:
            self.deactivate()
        self.cleanup()

    def _transition(
        self, what: str, target: State, action: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        try:
            action()
        except (OmniStreamError, OSError) as error:
            self.fault = str(error)
            self.get_logger().error(f"cannot {what}: {error}")
            if undo is not None:
                undo()
            self.state_changed()
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.fault = f"{type(error).__name__}: {error}"
            self.get_logger().error(f"cannot {what}:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        self.fault = ""
        self.state = target
        self.get_logger().info(f"{target}")
        self.state_changed()
        return TransitionCallbackReturn.SUCCESS

    def _handle_fault(self) -> None:
        if self._pending_fault and self.state is State.ACTIVE:
            self.get_logger().error(f"leaving the active state: {self._pending_fault}")
            self._attempt(self.trigger_deactivate)
            self._end_if_wanted()
        self._pending_fault = ""

    def _start_once(self) -> None:
        self.destroy_timer(self._autostart)
        for sentence in self.parameters.undeclared():  # now, when the subclass has declared its own
            self.get_logger().warning(sentence)
        if self.parameters["autostart"] and self.state is State.UNCONFIGURED:
            result = self._attempt(self.trigger_configure)
            if result is TransitionCallbackReturn.SUCCESS and not self._stopping:
                result = self._attempt(self.trigger_activate)
            if result is not TransitionCallbackReturn.SUCCESS:
                self._end_if_wanted()

    def _end_if_wanted(self) -> None:
        if self.parameters["exit_on_failure"]:
            self.exit_code = 1
            self.finished.set()

    def _attempt(self, trigger: Callable[[], Any]) -> Any:
        try:
            with self._transitions:
                return trigger()
        except _rclpy.RCLError as error:
            self.get_logger().warning(f"transition is not possible now: {error}")
            return TransitionCallbackReturn.FAILURE

    def _tolerate_repeated_transitions(self) -> None:
        """A transition that the state does not allow answers `success: false`; rclpy would let it end the executor."""
        service = self._service_change_state
        change_state = service.callback

        def answer(request: Any, response: Any) -> Any:
            try:
                with self._transitions:
                    return change_state(request, response)
            except _rclpy.RCLError:
                name = request.transition.label or f"number {request.transition.id}"
                self.get_logger().warning(
                    f"transition {name} is not possible in state {self.state}; nothing was changed"
                )
                response.success = False
                return response

        service.callback = answer
