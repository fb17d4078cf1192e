# SPDX-License-Identifier: Apache-2.0
"""Rules between what a policy says about the gripper and what the simulator is told. They move scores: name them.

Each takes how far open the policy wants it (0 closed, 1 open) and returns a command in -1 .. 1.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError
from omnistream_sim.evaluation.protocols import Observation, Policy


class GripperRule(Protocol):
    """One decision per control period."""

    def reset(self) -> None:
        """A new episode."""
        ...

    def __call__(self, opened: float) -> float:
        """Decide."""
        ...


class Threshold:
    """SIMPLER's widowx_bridge: +1 (open) above one half, else -1."""

    def reset(self) -> None:
        """It remembers nothing."""

    def __call__(self, opened: float) -> float:
        return 1.0 if opened > 0.5 else -1.0


class LateClose:
    """Closes after so many wishes to close in a row (VLM4VLA: 2); opens at once."""

    def __init__(self, wishes: int = 2) -> None:
        if wishes < 1:
            raise ConfigError(f"late close after {wishes} wishes; expected at least 1")
        self._wishes = wishes
        self.reset()

    def reset(self) -> None:
        """Open, no wish yet."""
        self._row = 0

    def __call__(self, opened: float) -> float:
        self._row = self._row + 1 if opened <= 0.5 else 0
        return -1.0 if self._row >= self._wishes else 1.0


class Sticky:
    """SIMPLER's google_robot: the command is the change of the wish, held for so many steps (15); +1 closes there."""

    def __init__(self, repeat: int = 15, change: float = 0.5) -> None:
        self._repeat, self._change = repeat, change
        self.reset()

    def reset(self) -> None:
        """No wish before, nothing held."""
        self._before: float | None = None
        self._held, self._left = 0.0, 0

    def __call__(self, opened: float) -> float:
        command = 0.0 if self._before is None else self._before - opened
        self._before = opened
        if abs(command) > self._change and not self._left:
            self._held, self._left = command, self._repeat
        if self._left:
            self._left -= 1
            return self._held
        return command


class WithGripper:
    """A policy whose gripper column (+1 open, -1 closed) goes through a rule, row by row as they are carried out."""

    def __init__(self, policy: Policy, rule: GripperRule) -> None:
        self._policy, self._rule = policy, rule

    def reset(self) -> None:
        """Both."""
        self._rule.reset()
        if (reset := getattr(self._policy, "reset", None)) is not None:
            reset()

    def observe(self, observation: Observation) -> None:
        """To the policy, if it wants it."""
        if (observe := getattr(self._policy, "observe", None)) is not None:
            observe(observation)

    def __call__(self, observation: Observation, instruction: str) -> NDArray[np.float64]:
        return np.array(self._policy(observation, instruction), np.float64, ndmin=2)

    def carry_out(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rule counts periods, not predictions: rows of a chunk that a newer one replaces are none."""
        return np.append(row[:-1], self._rule((row[-1] + 1) / 2))

    def describe(self) -> dict[str, Any]:
        """The policy's own description, and the rule."""
        return getattr(self._policy, "describe", dict)() | {"gripper_rule": type(self._rule).__name__}
