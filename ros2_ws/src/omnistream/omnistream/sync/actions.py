# SPDX-License-Identifier: Apache-2.0
"""Observations and commands in, steps out: what was commanded after seeing this."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omnistream.sync.aligner import Gap, Observation
from omnistream.sync.history import History

COMMANDS_KEPT = 4096


@dataclass(frozen=True)
class Command:
    """One stream of commands."""

    name: str
    pick: Literal["next", "hold"]
    """next: the first command at or after the tick; hold: the last one before the next tick, which is then in force:
    what was commanded once, on seeing this, belongs to this and not to the picture after it."""
    max_age: int | None
    """ns to wait for "next", ns that "hold" may be old at the tick; None: any."""
    delay: int = 0
    """ns that are added to the tick: from seeing to commanding."""


@dataclass(frozen=True)
class Step:
    """One control period."""

    observation: Observation
    commands: dict[str, Any]
    """Value per stream of commands."""
    next: Observation | None = None
    """The observation after it, where it was asked for."""


class ActionPairer:
    """Holds observations back until their commands are there.

    period: ns from tick to tick, for commands that hold where no tick follows. wants_next: a step also gets the
    observation after it (actions that are differences of states); an observation that is followed by a gap then makes
    no step. is_gap(before, after): whether two stamps lie too far apart to follow one another. patience: ns that a
    command may arrive later than a picture with its stamp.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        period: int,
        *,
        wants_next: bool = False,
        is_gap: Callable[[int, int], bool] = lambda before, after: False,
        patience: int = 0,
    ) -> None:
        self._is_gap = is_gap
        self._commands = {command.name: command for command in commands}
        self._history: dict[str, History[Any]] = {command.name: History(COMMANDS_KEPT) for command in commands}
        self._waiting: deque[Observation | Gap] = deque()
        self._period, self._wants_next = period, wants_next
        self._holds = any(command.pick == "hold" for command in commands)
        self._patience = patience + max(
            (c.delay + (period if c.pick == "hold" else c.max_age or 0) for c in commands), default=0
        )

    def observe(self, observation: Observation | Gap) -> Iterator[Step | Gap]:
        """Take the next observation or gap; yields what is decided by it."""
        self._waiting.append(observation)
        yield from self._decided()

    def command(self, stream: str, stamp: int, value: Any) -> Iterator[Step | Gap]:
        """Take a command; yields what is decided by it."""
        self._history[stream].add(stamp, value)
        yield from self._decided()

    def poll(self, now: int) -> Iterator[Step | Gap]:
        """What is decided because commands that belong to it would have arrived by `now`, ns."""
        while self._waiting:
            head = self._waiting[0]
            if isinstance(head, Observation) and now - head.arrival <= self._patience:
                return
            if isinstance(head, Observation) and self._wants_next and len(self._waiting) < 2:
                return
            yield self._decide()

    def flush(self) -> Iterator[Step | Gap]:
        """Everything that still waits."""
        while self._waiting:
            yield self._decide()

    def _decided(self) -> Iterator[Step | Gap]:
        while self._waiting:
            head = self._waiting[0]
            if isinstance(head, Observation):
                if (self._wants_next or self._holds) and len(self._waiting) < 2:
                    return
                following = self._waiting[1] if len(self._waiting) > 1 else None
                if not all(self._reached(command, head, following) for command in self._commands.values()):
                    return
            yield self._decide()

    def _reached(self, command: Command, head: Observation, following: Observation | Gap | None) -> bool:
        newest = self._history[command.name].newest
        return newest is not None and newest >= self._last_moment(command, head, following)

    def _last_moment(self, command: Command, head: Observation, following: Observation | Gap | None) -> int:
        """What is stamped later is no answer to `head`, ns; of "next": what is stamped earlier."""
        if command.pick == "next":
            return head.stamp + command.delay
        follows = following is not None and not self._is_gap(head.stamp, following.stamp)
        end = following.stamp if follows and following is not None else head.stamp + self._period
        return end - 1 + command.delay

    def _decide(self) -> Step | Gap:
        head = self._waiting.popleft()
        if isinstance(head, Gap):
            return head
        found = self._waiting[0] if self._waiting else None
        following = None
        if self._wants_next:
            if not isinstance(found, Observation) or self._is_gap(head.stamp, found.stamp):
                return Gap(head.stamp, "no observation after it", idle=True)
            following = found
        values = {}
        for name, command in self._commands.items():
            at, history = self._last_moment(command, head, found), self._history[name]
            if command.pick == "next":
                chosen = history.after(at, command.max_age)
            else:
                tick = head.stamp + command.delay
                chosen = history.before(at, None if command.max_age is None else command.max_age + at - tick)
            if chosen is None:
                within = "" if command.max_age is None else f" within {command.max_age / 1e9:.3f} s"
                return Gap(head.stamp, f"no command on {name}{within}", idle=True)
            values[name] = chosen[1]
        return Step(head, values, following)
