# SPDX-License-Identifier: Apache-2.0
"""A scripted policy that is told the scene's true state: it shows that simulator, oracle and evaluator go together."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from omnistream_sim.evaluation.protocols import EvaluationError, Observation

from .tasks import COLOURS

METRES, RADIANS = 0.02, 0.05
"""What an action of 1 means, per control period."""
ABOVE_M, LIFT_M = 0.08, 0.12
NEAR_M, NEAR_RAD = 0.006, 0.06
CLOSE_STEPS = 8


class LiftBlock:
    """Grasps the block whose colour is in the instruction, from above, and lifts it.

    It keeps its own copy of the target pose that calvin_env adds actions to: the arm's lag is then no error to correct.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A new task: the next observation is where the arm rests."""
        self._phase, self._waited = "above", 0
        self._target: NDArray[np.float64] | None = None
        self._grasp = np.zeros(3)

    def __call__(self, observation: Observation, instruction: str) -> NDArray[np.float64]:
        """One action [7]. EvaluationError where the instruction names no colour or the scene is not given."""
        colours = re.findall("|".join(COLOURS), instruction)
        if len(colours) != 1 or "scene" not in observation:
            raise EvaluationError(
                f"{instruction!r}: expected one of {', '.join(COLOURS)}, and `scene` in the observation"
            )
        tool = observation["state"][:6]
        if self._target is None:
            self._target = np.array([*tool[:3], tool[5]])
        begin = 6 + 6 * COLOURS.index(colours[0])
        block, yaw = observation["scene"][begin : begin + 3], observation["scene"][begin + 5]
        goal = self._goal(block)
        turn = _half_turn(yaw - self._target[3])
        move = np.clip((goal - self._target[:3]) / METRES, -1, 1)
        spin = float(np.clip(turn / RADIANS, -1, 1)) if self._phase == "above" else 0.0
        self._advance(tool, goal, turn)
        self._target = self._target + np.array([*(METRES * move), RADIANS * spin])
        return np.array([*move, 0.0, 0.0, spin, -1.0 if self._phase in ("close", "lift") else 1.0])

    def _goal(self, block: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._phase in ("above", "down"):  # afterwards the block moves with the hand
            self._grasp = block.copy()
        rise = {"above": ABOVE_M, "down": 0.0, "close": 0.0, "lift": LIFT_M}[self._phase]
        return self._grasp + np.array([0.0, 0.0, rise])

    def _advance(self, tool: NDArray[np.float64], goal: NDArray[np.float64], turn: float) -> None:
        near = float(np.linalg.norm(tool[:3] - goal)) < NEAR_M
        self._waited += 1
        if self._phase == "above" and near and abs(turn) < NEAR_RAD:
            self._phase, self._waited = "down", 0
        elif self._phase == "down" and (near or self._waited > 30):  # the fingers may rest on something
            self._phase, self._waited = "close", 0
        elif self._phase == "close" and self._waited > CLOSE_STEPS:
            self._phase = "lift"


def _half_turn(angle: float) -> float:
    """The same up to half turns, within a quarter turn: a gripper has two equal sides."""
    return (angle + math.pi / 2) % math.pi - math.pi / 2
