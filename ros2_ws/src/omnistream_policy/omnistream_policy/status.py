# SPDX-License-Identifier: Apache-2.0
"""omnistream_msgs/PolicyStatus, and what diagnostics hold against the node."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time

from omnistream.policy.guard import Mode, Stop
from omnistream_msgs.msg import DropCount, PolicyStatus, StageLatency
from omnistream_ros.diagnostics import Level, Report
from omnistream_ros.images import seconds_to_stamp
from omnistream_ros.latency import LatencyWindow

from .inputs import Inputs
from .loop import Loop
from .thinking import Thinking

STATES = {
    Mode.DISABLED: PolicyStatus.STATE_DISABLED,
    Mode.HOLDING: PolicyStatus.STATE_HOLDING,
    Mode.RUNNING: PolicyStatus.STATE_RUNNING,
    Mode.STOPPED: PolicyStatus.STATE_STOPPED,
}
BY_WISH = frozenset({Stop.NONE, Stop.NOT_STARTED, Stop.REQUESTED, Stop.NO_INSTRUCTION, Stop.DEACTIVATED})
"""Standing still for these is no problem."""
JITTER_SHARE = 0.2
"""Of the control period; more at p99 is a warning."""


def fill(message: PolicyStatus, loop: Loop, inputs: Inputs, thinking: Thinking, age: float | None) -> None:
    """What a configured node knows."""
    control = loop.control
    message.observations, message.chunks = thinking.observations, thinking.chunks
    message.ticks, message.commands = control.ticks, control.moves
    message.stop_commands = control.stop_commands
    message.observation_age = math.nan if age is None else age
    if control.last is not None and control.last.stamp is not None:
        message.observation_stamp = seconds_to_stamp(control.last.stamp)
    else:
        message.observation_stamp = Time()
    message.clamps = counts(control.clamps)
    message.drops = counts(drops(loop, inputs, thinking))
    message.stops = counts(control.stops)
    for stage, window in (thinking.latencies | loop.latencies).items():
        latency = window.summary()
        if not math.isnan(latency.max):
            message.latencies.append(
                StageLatency(stage=stage, p50_ms=latency.p50, p99_ms=latency.p99, max_ms=latency.max)
            )


def drops(loop: Loop, inputs: Inputs, thinking: Thinking) -> Counter[str]:
    """All that was refused on its way in, by reason."""
    # Copies, made in one step: other threads count on meanwhile.
    return sum((Counter(dict(one)) for one in (inputs.drops, thinking.drops, loop.control.drops)), Counter())


def counts(counter: Mapping[str, int]) -> list[DropCount]:
    """Sorted by reason; those that occurred."""
    return [DropCount(reason=reason, count=count) for reason, count in sorted(dict(counter).items()) if count]


def permission_report(loop: Loop, active: bool) -> Report:
    """Whether it moves."""
    guard = loop.control.guard
    values: dict[str, Any] = {"mode": str(guard.mode), "reason": str(guard.reason)}
    values |= {f"stops_{reason}": count for reason, count in dict(loop.control.stops).items()}
    values |= {f"cut_{name}": count for name, count in dict(loop.control.clamps).items()}
    if not active:
        return Report.ok("not active", **values)
    text = f"{guard.mode}: {guard.reason}" + (f": {loop.detail}" if loop.detail else "")
    if guard.mode is Mode.STOPPED or guard.reason in (Stop.FAULT, Stop.NOT_FINITE, Stop.RIVAL):
        return Report(Level.ERROR, text, values)
    return Report.ok(text, **values) if guard.reason in BY_WISH else Report(Level.WARN, text, values)


def timing_report(loop: Loop, thinking: Thinking, budget_ms: float) -> Report:
    """Latency against the budget and against the length of a chunk, jitter against the control period."""
    values: dict[str, Any] = {"ticks": loop.control.ticks, "chunks": thinking.chunks, "latency_budget_ms": budget_ms}
    windows: dict[str, LatencyWindow] = thinking.latencies | loop.latencies
    for stage, window in windows.items():
        latency = window.summary()
        values |= {f"{stage}_p50_ms": latency.p50, f"{stage}_p99_ms": latency.p99}
    total, jitter = windows["total"].summary(), windows["jitter"].summary()
    allowed = JITTER_SHARE * 1e3 * loop.control.settings.limits.period
    policy = thinking.session.policy
    chunk = 1e3 * policy.config.chunk / policy.contract.rate
    values["chunk_ms"] = chunk
    findings = []
    if total.p50 >= chunk:  # then it stands still: starved
        findings.append(
            (Level.ERROR, f"half of all chunks take over {total.p50:.0f} ms; they end after {chunk:.0f} ms: too slow")
        )
    elif total.p99 > budget_ms:
        findings.append((Level.WARN, f"1 chunk in 100 takes over {total.p99:.0f} ms; the budget is {budget_ms:g}"))
    if jitter.p99 > allowed:
        findings.append(
            (Level.WARN, f"control ticks are {jitter.p99:.1f} ms off at p99; expected {allowed:.1f} at most")
        )
    return Report.worst(findings, "in time", **values)
