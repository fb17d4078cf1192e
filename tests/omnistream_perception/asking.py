# SPDX-License-Identifier: Apache-2.0
"""What tests ask of a node beside its topics: diagnostics, and transitions."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from omnistream_ros.testing import Graph


def level_of(reports: list[DiagnosticArray], part: str) -> tuple[int, str]:
    """Level and message of the last report on ``part``."""
    statuses = [status for array in reports for status in array.status if status.name == f"perception: {part}"]
    return (statuses[-1].level[0], statuses[-1].message) if statuses else (-1, "")


ERROR, WARN, OK = (level[0] for level in (DiagnosticStatus.ERROR, DiagnosticStatus.WARN, DiagnosticStatus.OK))


def change_state(graph: Graph, transition: int) -> bool:
    """Whether the node made the transition."""
    request = ChangeState.Request(transition=Transition(id=transition))
    return graph.call(ChangeState, "/perception/change_state", request).success
