# SPDX-License-Identifier: Apache-2.0
"""What a replay did, as it goes: what left at which tick, how old the pictures behind it were, what was refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.policy.drive import Drive
from omnistream.policy.mind import Mind, Thought
from omnistream.policy.outbox import Outgoing


@dataclass(frozen=True, eq=False)
class Sent:
    """What left at one moment."""

    stamp: int
    """ROS time, ns."""
    tick: int
    kind: str
    """move or stop."""
    left: Mapping[str, NDArray[np.float64]]


@dataclass
class Track:
    """See the module."""

    drive: Drive
    mind: Mind
    sent: list[Sent] = field(default_factory=list)
    thoughts: Counter[str] = field(default_factory=Counter)
    """By result."""
    ages: list[float] = field(default_factory=list)
    """s from the picture behind a command that moves to its tick."""
    think_ms: list[float] = field(default_factory=list)
    """Of this machine, now."""
    notes: list[str] = field(default_factory=list)
    """Sentences that a reader must know."""

    def leave(self, stamp: int, left: Sequence[Outgoing]) -> None:
        """Something left, or nothing did."""
        last = self.drive.control.last
        if not left or last is None:
            return
        tick = self.drive.control.tick_now
        self.sent.append(Sent(stamp, tick, last.kind, {one.output: one.values for one in left}))
        if last.kind == "move" and last.stamp is not None:
            self.ages.append(stamp / 1e9 - last.stamp)

    def think(self, thought: Thought) -> None:
        """The network has thought."""
        self.thoughts[thought.result] += 1
        if thought.chunk is not None:
            self.think_ms.append(sum(thought.chunk.timings.values()))

    def report(self) -> dict[str, Any]:
        """Numbers for report.json."""
        control = self.drive.control
        kinds = Counter(sent.kind for sent in self.sent)
        return {
            "observations": sum(self.thoughts.values()),
            "inferences": self.thoughts["chunk"],
            "observations_by_result": dict(self.thoughts),
            "ticks": control.ticks,
            "commands": {"move": kinds["move"], "stop": kinds["stop"]},
            "messages": self.drive.left.messages,
            "stops": dict(control.stops),
            "clamps": dict(control.clamps),
            "refused_chunks": dict(control.drops),
            "picture_age_ms": spread([1e3 * age for age in self.ages]),
            "inference_ms_here": spread(self.think_ms),
            "command_hash": self.drive.left.hex,
        }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p99 and max; None of nothing."""
    if not len(values):
        return None
    p50, p99 = np.percentile(values, (50, 99))
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(max(values)), 3)}
