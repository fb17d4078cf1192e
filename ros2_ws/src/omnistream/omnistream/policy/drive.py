# SPDX-License-Identifier: Apache-2.0
"""All that decides what leaves for a robot, behind one door: controller, messages, their hash, and the run log.

The node calls it with what it knows; `omnistream-replay` calls it with what a run log says that the node knew, and gets
the same. Not thread safe: the caller has one lock, from the call to the publisher.

Everywhere: stamp is ROS time in ns, now steady time in s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.io.run_log import RunLog
from omnistream.policy.control import Command, Control, ControlSettings
from omnistream.policy.guard import Facts, Stop
from omnistream.policy.outbox import CommandHash, Outbox, Outgoing


class Drive:
    """See the module.

    Args:
        settings: of the controller.
        outbox: what commands become.
        log: where every call is written down, with what it led to.
    """

    def __init__(self, settings: ControlSettings, outbox: Outbox, log: RunLog | None = None) -> None:
        self.control = Control(settings)
        self.outbox = outbox
        self.left = CommandHash()
        """Over everything that left."""
        self._log = log

    def start(self, *, stamp: int, now: float, at: ArrayLike | None = None) -> None:
        """Permit to move. at: [N] SI, where the arm is. ConfigError while the e-stop is latched."""
        self.control.start(now, at)
        self._write("start", stamp, now, at=at)

    def stop(self, reason: Stop, *, stamp: int, now: float) -> list[Outgoing]:
        """Stand still until the next start; what leaves for that, at once."""
        return self._leave("stop", self.control.stop(reason, now), stamp, now, reason=str(reason))

    def estop(self, *, stamp: int, now: float) -> list[Outgoing]:
        """As `stop`, latched."""
        return self._leave("estop", self.control.estop(now), stamp, now)

    def clear(self, *, stamp: int, now: float) -> None:
        """Unlatch the e-stop."""
        self.control.clear(now)
        self._write("clear", stamp, now)

    def hold(self, reason: Stop, *, stamp: int, now: float) -> list[Outgoing]:
        """Between two ticks (a watchdog): a stop if it was running."""
        return self._leave("hold", self.control.hold(reason, now), stamp, now, reason=str(reason))

    def forget(self, *, clock: bool = False) -> None:
        """Drop all planned actions; with `clock` the count of ticks too."""
        if clock:
            self.control.rebase()
        else:
            self.control.forget()
        if self._log is not None:
            self._log.write("forget", clock=clock)

    def adopt(self, number: int, actions: NDArray[np.floating], stamp: float) -> tuple[int, int] | None:
        """Plan prediction `number`, [K, A], from images of `stamp` (s): (start tick, tick of arrival), or refused."""
        ticks = self.control.adopt(actions, stamp)
        if self._log is not None:
            start, arrived = ticks or (None, None)
            self._log.write("adopt", number=number, start=start, arrived=arrived)
        return ticks

    def tick(
        self,
        facts: Facts,
        *,
        stamp: int,
        now: float,
        at: ArrayLike | None = None,
        orientation: Sequence[float] | None = None,
    ) -> list[Outgoing]:
        """A control period: what leaves now. at: [N] where the arm is; orientation: of its tool; where it is known."""
        known, stood = dataclasses.asdict(facts), not self.control.running
        try:
            command = self.control.tick(stamp / 1e9, now, facts, at)
        except Exception as error:  # a bug; the caller stops the robot
            self._write("failed", stamp, now, facts=known, at=at, detail=f"{type(error).__name__}: {error}")
            raise
        if stood and command.kind == "move":
            self.outbox.begin(orientation)
        fields = {"tick": command.tick, "facts": known, "at": at, "orientation": orientation}
        return self._leave("tick", command, stamp, now, **fields)

    def unlocked(self) -> None:
        """The caller goes on without its lock: from here on the log's order need not be that of what happened."""
        if self._log is not None:
            self._log.write("unlocked")

    def _leave(self, event: str, command: Command | None, stamp: int, now: float, **fields: Any) -> list[Outgoing]:
        left = [] if command is None else self.outbox.send(command)
        if left:
            self.left.add(left)
            fields |= {"kind": "stop" if command is None or command.kind != "move" else "move"}
            fields |= {"left": {one.output: one.values for one in left}, "hash": self.left.hex}
        self._write(event, stamp, now, **fields)
        return left

    def _write(self, event: str, stamp: int, now: float, **fields: Any) -> None:
        if self._log is not None:
            self._log.write(event, stamp=stamp, now=now, **fields)
