# SPDX-License-Identifier: Apache-2.0
"""Commands as the numbers of the messages that leave, before any of them is a message: the same live and in a replay.

twist               [6]         m/s, rad/s
pose                [7]         x y z, qx qy qz qw
joint_trajectory    [points, 2 N + 1] positions, velocities, seconds from the start; [1, N + 1] without velocities
action              [A]         the contract's own units
gripper/<dimension> [1]         the contract's open or closed value
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnistream.geometry.rotations import matrix_from_quaternion, quaternion_from_matrix
from omnistream.policy.control import Command, ControlSettings

STOP_REPEATS = 2
"""So often a stop command is sent again, one control period apart: a receiver may just have been starting."""
GRIPPER = "gripper/"

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outgoing:
    """One message."""

    output: str
    """See the module."""
    values: Numbers


class Outbox:
    """Turns commands into what leaves.

    Args:
        settings: of the controller.
        names: of `omnistream.policy.settings.OUTPUTS`.
        velocities: whether trajectories have velocities, and a second point at rest.
    """

    def __init__(self, settings: ControlSettings, names: Sequence[str], velocities: bool = True) -> None:
        self._settings, self._velocities = settings, velocities
        make: dict[str, Callable[[Command], Numbers | None]] = {
            "twist": self._twist,
            "pose": self._pose,
            "joint_trajectory": self._trajectory,
            "action": self._action,
        }
        self._make = {name: make[name] for name in names if name in make}
        action = settings.contract.action
        grippers = [action.dimensions[g.index].name for g in action.grippers]
        self.grippers = [GRIPPER + name for name in grippers] if "gripper" in names else []
        self._orientation: Numbers | None = None
        self._repeats = 0
        self._stop: Command | None = None

    @property
    def outputs(self) -> list[str]:
        """All that may ever leave."""
        return [*self._make, *self.grippers]

    @property
    def orientation(self) -> tuple[float, ...] | None:
        """Of the tool as it was told last, quaternion x y z w."""
        return None if self._orientation is None else tuple(quaternion_from_matrix(self._orientation).tolist())

    def begin(self, orientation: Sequence[float] | None) -> None:
        """It begins to move, or goes on: from this orientation (quaternion x y z w) of the tool; None: nobody knows."""
        self._orientation = None if orientation is None else matrix_from_quaternion(orientation)

    def send(self, command: Command) -> list[Outgoing]:
        """What leaves. A stop is sent again at the next ticks on which nothing else leaves, and not after a pause."""
        if command.kind == "none":
            if self._stop is None or not self._repeats or command.tick > self._stop.tick + STOP_REPEATS:
                return []
            self._repeats -= 1
            command = self._stop
        elif command.kind == "stop":
            self._stop, self._repeats = command, STOP_REPEATS
        else:
            self._stop = None
            if len(command.velocity) >= 6 and self._orientation is not None:
                self._orientation = _turned(self._orientation, command.velocity[3:6] * command.step)
        made = [(name, make(command)) for name, make in self._make.items()]
        left = [Outgoing(name, values) for name, values in made if values is not None]
        if command.kind == "move":  # at a stop a gripper keeps what it holds
            pairs = zip(self.grippers, command.grippers, strict=False)
            left += [Outgoing(name, np.array([value], np.float64)) for name, value in pairs]
        return left

    def _twist(self, command: Command) -> Numbers:
        return np.concatenate([command.velocity, np.zeros(6)])[:6]

    def _pose(self, command: Command) -> Numbers | None:
        if command.target is None or self._orientation is None:
            return None
        return np.concatenate([command.target[:3], quaternion_from_matrix(self._orientation)])

    def _trajectory(self, command: Command) -> Numbers | None:
        if command.target is None:
            return None
        limits, still = self._settings.limits, np.zeros(len(command.velocity))
        if not self._velocities:
            return np.array([[*command.target, limits.period]])
        if command.kind != "move":
            return np.array([[*command.target, *still, limits.period]])
        # Comes to rest half a period's way further, if nothing more is heard.
        rest = np.clip(command.target + command.velocity * limits.period / 2, limits.lower, limits.upper)
        return np.array([[*command.target, *command.velocity, limits.period], [*rest, *still, 2 * limits.period]])

    def _action(self, command: Command) -> Numbers | None:
        values = command.in_units(self._settings)
        if not np.isfinite(values).all() or (command.kind == "stop" and not self._tells(command)):
            return None
        return values

    def _tells(self, command: Command) -> bool:
        """Whether a stop can be said in the contract's action: its grippers have values only once they had one."""
        return len(command.grippers) == len(self._settings.contract.action.grippers)


class CommandHash:
    """SHA-256 over all that left, in order: which output, its shape, its numbers bit by bit. Not over times."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.messages = 0

    def add(self, left: Sequence[Outgoing]) -> None:
        """More has left."""
        for one in left:
            self._hash.update(f"{one.output}{list(one.values.shape)}".encode())
            self._hash.update(np.ascontiguousarray(one.values, "<f8").tobytes())
            self.messages += 1

    @property
    def hex(self) -> str:
        """So far."""
        return self._hash.hexdigest()


def _turned(rotation: Numbers, vector: Numbers) -> Numbers:
    """[3, 3] turned by a rotation vector [3] about the frame's axes."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return rotation
    axis = vector / angle
    quaternion = [*(axis * np.sin(angle / 2)).tolist(), np.cos(angle / 2)]
    return matrix_from_quaternion(quaternion) @ rotation
