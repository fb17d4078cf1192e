# SPDX-License-Identifier: Apache-2.0
"""The topic ~/status and the diagnostics: what the node says of itself. What they hold is put together in `status`."""

from __future__ import annotations

import math
from collections.abc import Callable

from rclpy.clock import Clock, ClockType
from rclpy.time import Time

from omnistream.policy.guard import Mode, Stop
from omnistream_msgs.msg import PolicyStatus
from omnistream_ros.diagnostics import Diagnostics, Level, Report
from omnistream_ros.lifecycle import ManagedNode, State
from omnistream_ros.qos import qos_profile

from .goals import Situation
from .pipeline import Pipeline
from .requests import Requests
from .status import STATES, fill, permission_report, timing_report


class Reporting:
    """At the rate of `status_rate`, and at each change.

    Args:
        node: of which is told.
        pipeline: what is configured now; None for nothing.
        requests: know the instruction.
    """

    def __init__(self, node: ManagedNode, pipeline: Callable[[], Pipeline | None], requests: Requests) -> None:
        self._node, self._pipeline, self._requests = node, pipeline, requests
        self._status = node.create_publisher(PolicyStatus, "~/status", qos_profile("latched"))
        self.signal = node.create_guard_condition(self.tell_all)
        """Triggered from any thread: `tell_all` in the executor's."""
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(1 / node.parameters["status_rate"], self.publish, clock=steady)
        self._diagnostics = Diagnostics(node, hardware_id=node.get_name())
        self._diagnostics.add("permission", self._permission)
        self._diagnostics.add("timing", self._timing)

    def tell_all(self) -> None:
        """Status and diagnostics, now."""
        self.publish()
        self._diagnostics.publish()

    def publish(self) -> None:
        """The status, now."""
        now = self._node.get_clock().now()
        message = PolicyStatus(instruction=self._requests.instruction, unknown_words=list(self._requests.unknown))
        message.header.stamp = now.to_msg()
        message.dry_run = self._node.parameters["dry_run"]
        message.state, message.reason, message.detail = self._state()
        if (pipeline := self._pipeline()) is not None:
            message.backbone_hash = pipeline.thinking.session.policy.contract.backbone or ""
            message.outputs = pipeline.outputs.topics
            fill(message, pipeline.loop, pipeline.inputs, pipeline.thinking, _age(pipeline, now))
        self._status.publish(message)

    def situation(self) -> Situation:
        """As a goal of the action sees it."""
        state, reason, detail = self._state()
        pipeline = self._pipeline()
        if pipeline is None:
            return Situation(False, state, reason, detail, 0, math.nan)
        control, age = pipeline.loop.control, _age(pipeline, self._node.get_clock().now())
        permitted = control.guard.mode in (Mode.HOLDING, Mode.RUNNING)
        return Situation(permitted, state, reason, detail, control.moves, math.nan if age is None else age)

    def _state(self) -> tuple[int, str, str]:
        node, pipeline = self._node, self._pipeline()
        if node.failed:
            return PolicyStatus.STATE_ERROR, str(Stop.FAULT), node.fault
        if pipeline is None:
            return PolicyStatus.STATE_UNCONFIGURED, "", node.fault or "not configured"
        if node.state is not State.ACTIVE:
            return PolicyStatus.STATE_INACTIVE, "", node.fault
        guard = pipeline.loop.control.guard
        return STATES[Mode(guard.mode)], str(guard.reason), pipeline.loop.detail

    def _permission(self) -> Report:
        fault, pipeline = self._node.fault, self._pipeline()
        if fault or pipeline is None:
            return Report(Level.ERROR if fault else Level.WARN, fault or "not configured")
        return permission_report(pipeline.loop, self._node.state is State.ACTIVE)

    def _timing(self) -> Report:
        pipeline = self._pipeline()
        if pipeline is None:
            return Report(Level.STALE, "not configured")
        return timing_report(pipeline.loop, pipeline.thinking, self._node.parameters["latency_budget"])


def _age(pipeline: Pipeline, now: Time) -> float | None:
    """Of the newest observation, s; None: there is none."""
    newest = pipeline.inputs.newest
    return None if newest is None else (now.nanoseconds - newest.stamp) / 1e9
