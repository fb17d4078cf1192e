# SPDX-License-Identifier: Apache-2.0
"""What diagnostics say of a policy that is too slow for its robot: why it stands still, not only that it does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from omnistream_policy.status import timing_report
from omnistream_ros.diagnostics import Level
from omnistream_ros.latency import LatencyWindow


def window(*milliseconds: float) -> LatencyWindow:
    made = LatencyWindow()
    for value in milliseconds:
        made.add(value)
    return made


@pytest.mark.parametrize(
    ("total", "level", "said"),
    [
        ([30.0] * 10, Level.OK, "in time"),
        ([30.0] * 9 + [300.0], Level.WARN, "the budget is 200"),
        ([450.0] * 10, Level.ERROR, "they end after 400 ms"),
    ],
)
def test_latency_is_held_against_budget_and_chunk(total: list[float], level: Any, said: str) -> None:
    policy = SimpleNamespace(config=SimpleNamespace(chunk=8), contract=SimpleNamespace(rate=20.0))
    thinking: Any = SimpleNamespace(
        chunks=10, latencies={"total": window(*total)}, session=SimpleNamespace(policy=policy)
    )
    limits = SimpleNamespace(period=0.05)
    control = SimpleNamespace(ticks=100, settings=SimpleNamespace(limits=limits))
    loop: Any = SimpleNamespace(control=control, latencies={"jitter": window(1.0, 2.0)})
    report = timing_report(loop, thinking, 200.0)
    assert report.level is level and said in report.message
