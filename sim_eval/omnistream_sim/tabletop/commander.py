# SPDX-License-Identifier: Apache-2.0
"""What the arm does next, of what was asked for: relative actions, velocities and gripper commands that arrive whenever
they like become one action [7] per control period. A velocity that is not renewed ends by itself."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.errors import InputError
from omnistream.geometry.rotations import matrix_from_quaternion

from .env import STEP, TURN
from .kinematics import from_euler, to_euler
from .state import State

OPEN = 1.0


class Commander:
    """Commands in from any thread, actions out to the one that steps.

    Args:
        rate: control periods per second.
        timeout: seconds of a steady clock for which a velocity holds.
        clock: seconds, steady; replaced in tests.
    """

    def __init__(self, rate: float, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._period, self._timeout, self._clock = 1.0 / rate, timeout, clock
        self._lock = threading.Lock()
        self._action: NDArray[np.float64] | None = None
        self._twist: tuple[NDArray[np.float64], bool] | None = None
        self._twist_until = 0.0
        self._gripper = OPEN
        self.commanded = False
        """Whether a command has moved the arm since `forget`; one to stand still has not."""
        self.accepted = self.superseded = self.clipped = 0
        """Commands taken; actions replaced before a period used them; periods whose action was too large."""

    def act(self, values: Sequence[float] | ArrayLike) -> None:
        """A relative action [7] of the environment, for one period.

        Raises:
            InputError: not 7 finite numbers.
        """
        action = _finite(values, 7, "action")
        with self._lock:
            self.superseded += self._action is not None
            self._action = action
            self.accepted += 1

    def move(self, velocity: Sequence[float] | ArrayLike, in_tool: bool = False) -> None:
        """Velocity [6] of the tool, m/s and rad/s, along and about the axes of the world, or of the tool itself.

        Raises:
            InputError: not 6 finite numbers.
        """
        twist = _finite(velocity, 6, "velocity")
        with self._lock:
            self._twist, self._twist_until = (twist, in_tool), self._clock() + self._timeout
            self.accepted += 1

    def grip(self, value: float) -> None:
        """Above 0 opens, else closes; holds until the next. Raises InputError for NaN or infinity."""
        (gripper,) = _finite([value], 1, "gripper command")
        with self._lock:
            self._gripper = float(gripper)
            self.accepted += 1

    def forget(self) -> None:
        """Nothing is asked for, and the gripper is open: an episode begins."""
        with self._lock:
            self._action = self._twist = None
            self._gripper, self.commanded = OPEN, False

    def next(self, state: Callable[[], State | None]) -> NDArray[np.float64]:
        """The action [7], in -1 .. 1, of the period that begins. `state` is asked only if a velocity needs it."""
        with self._lock:
            action, self._action = self._action, None
            if action is not None:
                self._gripper = float(action[6])
            elif self._twist is not None and self._clock() < self._twist_until:
                action = self._of_twist(state())
            else:
                action = np.zeros(7)
            self.commanded = self.commanded or bool(action[:6].any())
            action[6] = self._gripper
            self.clipped += bool((np.abs(action[:6]) > 1 + 1e-9).any())
            return np.clip(action, -1.0, 1.0)

    def _of_twist(self, state: State | None) -> NDArray[np.float64]:
        assert self._twist is not None
        twist, in_tool = self._twist
        action = np.zeros(7)
        if state is None:
            return action
        turned = from_euler(state.target_euler)
        linear, angular = (turned @ part if in_tool else part for part in (twist[:3], twist[3:]))
        action[:3] = linear * self._period / STEP
        if angular.any():
            # The environment adds to Euler angles, so a rotation about an axis has to be said in their terms.
            change = to_euler(_rotation(angular * self._period) @ turned) - to_euler(turned)
            action[3:6] = (change + math.pi) % (2 * math.pi) - math.pi
            action[3:6] /= TURN
        return action


def _rotation(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3, 3] about the axis `vector` [3], by its length."""
    angle = float(np.linalg.norm(vector))
    axis = vector / max(angle, 1e-12)
    return matrix_from_quaternion([*(math.sin(angle / 2) * axis), math.cos(angle / 2)])


def _finite(values: Sequence[float] | ArrayLike, count: int, name: str) -> NDArray[np.float64]:
    array = np.array(values, np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise InputError(f"{name} is {array.tolist()}; expected {count} finite numbers")
    return array
