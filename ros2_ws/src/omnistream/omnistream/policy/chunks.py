# SPDX-License-Identifier: Apache-2.0
"""Which action to execute now, given chunks that were predicted earlier. Pure functions over a frozen plan.

Time is the tick, a number that grows by one per control period. A chunk starts at the tick of the images it was
predicted from, so the rows that passed while the network was thinking are skipped by themselves.

    replace     the newest chunk alone.
    fade        from the previous chunk to the newest within some ticks: no jump at the border.
    ensemble    all chunks that reach this tick, weighted exp(-decay * i), i = 0 the oldest (ACT, arXiv 2304.13705).

Grippers are never averaged: half open is neither. They follow the newest chunk.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Blend:
    """How chunks that overlap become one action."""

    kind: Literal["replace", "fade", "ensemble"] = "replace"
    steps: int = 3
    """Ticks of a fade."""
    decay: float = 0.01
    """Of an ensemble; 0 averages all alike, larger trusts the oldest more."""

    def __post_init__(self) -> None:
        if self.kind not in ("replace", "fade", "ensemble"):
            raise ConfigError(f"blend.kind is {self.kind!r}; expected 'replace', 'fade' or 'ensemble'")
        if self.steps < 1 or not 0 <= self.decay < float("inf"):
            raise ConfigError(f"blend.steps {self.steps}, decay {self.decay}: expected 1 or more, 0 or more")


@dataclass(frozen=True, eq=False)
class TimedChunk:
    """Actions for the ticks start, start + 1, ..."""

    start: int
    actions: NDArray[np.float64]
    """[K, A]."""
    arrived: int
    """Tick at which it was there."""

    @property
    def end(self) -> int:
        """First tick it says nothing about."""
        return self.start + len(self.actions)


@dataclass(frozen=True)
class Plan:
    """Chunks that still say something, oldest first. Start with `Plan()`; after a reset or a new instruction, again."""

    chunks: tuple[TimedChunk, ...] = field(default=())

    @property
    def end(self) -> int | None:
        """First tick without an action; None when empty."""
        return max((chunk.end for chunk in self.chunks), default=None)


def extend(plan: Plan, actions: NDArray[np.floating], *, start: int, now: int) -> Plan:
    """The plan with a chunk more, [K, A] from tick `start`, and without chunks that ended before `now`.

    A chunk older than the newest one (an answer that was overtaken) changes nothing. ConfigError for a chunk that is
    not [K, A], is not finite, or starts in the future.
    """
    values = np.array(actions, np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ConfigError(f"a chunk is {list(values.shape)}; expected [actions, dimensions], none of them 0")
    if not np.isfinite(values).all():
        raise ConfigError("a chunk holds NaN or infinity; nothing of it is executed")
    if start > now:
        raise ConfigError(f"a chunk starts at tick {start}, after now ({now})")
    if plan.chunks and values.shape[1] != plan.chunks[-1].actions.shape[1]:
        raise ConfigError(
            f"a chunk has {values.shape[1]} dimensions, the plan {plan.chunks[-1].actions.shape[1]}; expected as many"
        )
    if plan.chunks and start < plan.chunks[-1].start:
        return plan
    values.flags.writeable = False
    kept = tuple(chunk for chunk in plan.chunks if chunk.end > now)
    return Plan((*kept, TimedChunk(start, values, now)))


def action_at(
    plan: Plan, tick: int, *, grippers: Collection[int] = (), blend: Blend = Blend()
) -> NDArray[np.float64] | None:
    """[A] to execute at `tick`, or None where no chunk reaches it (the queue ran dry: hold).

    grippers: columns that are taken from the newest chunk as they are.
    """
    reaching = [chunk for chunk in plan.chunks if chunk.start <= tick < chunk.end]
    if not reaching:
        return None
    newest = reaching[-1]
    rows = np.stack([chunk.actions[tick - chunk.start] for chunk in reaching])
    if blend.kind == "ensemble":
        weights = np.exp(-blend.decay * np.arange(len(rows)))
        action = weights @ rows / weights.sum()
    elif blend.kind == "fade" and len(rows) > 1:
        share = min(1.0, (tick - newest.arrived + 1) / (blend.steps + 1))
        action = (1 - share) * rows[-2] + share * rows[-1]
    else:
        action = rows[-1].copy()
    for column in grippers:
        action[column] = rows[-1, column]
    return action


def should_ask(plan: Plan, tick: int, *, execute: int) -> bool:
    """Whether a new prediction is due: nothing planned, or `execute` actions of the newest chunk are done."""
    return not plan.chunks or tick >= min(plan.chunks[-1].start + execute, plan.chunks[-1].end)
