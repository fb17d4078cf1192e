# SPDX-License-Identifier: Apache-2.0
"""/diagnostics at 1 Hz: each part of a node reports its state, in the form that rqt and aggregators understand.

diagnostics = Diagnostics(node, hardware_id="front camera")
diagnostics.add("camera", lambda: Report.ok("30.0 Hz", rate=30.0))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node


class Level(IntEnum):
    """Of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Report:
    """The state of one part, with numbers for whoever looks closer."""

    level: Level
    message: str
    values: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def ok(message: str, **values: Any) -> Report:
        """All is well."""
        return Report(Level.OK, message, values)

    @staticmethod
    def worst(findings: Iterable[tuple[Level, str]], otherwise: str, **values: Any) -> Report:
        """The highest level found and the sentences of all that are not OK; `otherwise` is said when there are none."""
        bad = sorted((finding for finding in findings if finding[0] != Level.OK), key=lambda f: -f[0])
        if not bad:
            return Report(Level.OK, otherwise, values)
        return Report(bad[0][0], "; ".join(sentence for _, sentence in bad), values)


class Diagnostics:
    """Publishes what the added parts report, every `period` seconds of a steady clock (not of simulated time).

    The topic is absolute by convention (REP-107 names it so): all nodes of a robot report to one place.
    """

    def __init__(self, node: Node, hardware_id: str, period: float = 1.0) -> None:
        self._node = node
        self._hardware_id = hardware_id
        self._parts: dict[str, Callable[[], Report]] = {}
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(period, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def add(self, part: str, report: Callable[[], Report]) -> None:
        """`report` is called at every publication, in the executor's thread."""
        self._parts[part] = report

    def publish(self) -> None:
        """Publishes now, also between two periods: for changes that should be seen at once."""
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.status = [self._status(part, report()) for part, report in list(self._parts.items())]
        self._publisher.publish(message)

    def destroy(self) -> None:
        """Stops publishing."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)

    def _status(self, part: str, report: Report) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=bytes([report.level]),
            name=f"{self._node.get_fully_qualified_name().lstrip('/')}: {part}",
            message=report.message,
            hardware_id=self._hardware_id,
            values=[KeyValue(key=key, value=_text(value)) for key, value in report.values.items()],
        )


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
