# SPDX-License-Identifier: Apache-2.0
"""A scripted policy that is told the scene's true state: it shows that simulator, oracle and evaluator go together, and
demonstrates the task to policies that learn.

What it does follows from where hand and block are now, without stages of its own: whatever disturbs it, it goes on from
there, and what it does is something that a policy can learn from pictures.
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from omnistream_sim.evaluation.protocols import EvaluationError, Observation

from .tasks import COLOURS

METRES, RADIANS = 0.02, 0.05
"""What an action of 1 means, per control period: calvin_env's max_rel_pos and max_rel_orn."""
UNITS = np.array([METRES] * 3 + [RADIANS] * 3)
ABOVE_M = 0.08
"""Height over the block while the hand is not over it."""
FUNNEL_M = 0.035
"""How far aside the hand may be while it comes down; the closer, the lower."""
NEAR_M, NEAR_RAD = 0.008, 0.10
"""Close enough to grasp."""
STOOD_M = 0.001
"""A hand that moves less in a control period stands, and a finger too."""
STUCK_M, CLEAR_M = 0.03, 0.05
"""Heights over the block's middle: of a hand that stands on it, at most; and that is clear of it, at least."""
OPEN_M, EMPTY_M = 0.07, 0.015
"""Between the fingers: open; closed on nothing."""
HELD_M = 0.025
"""From the hand to a block that it holds."""


class LiftBlock:
    """Grasps the block whose colour is in the instruction, from above, and lifts it.

    It keeps its own copy of the target pose that calvin_env adds actions to: the arm's lag is then no error to correct.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A new task: the next observation is where the arm rests."""
        self._target: NDArray[np.float64] | None = None  # x, y, z, roll, pitch, yaw
        self._before = np.zeros(6)
        self._place = np.full(3, math.inf)
        self._width = math.inf
        self._rises = False

    def __call__(self, observation: Observation, instruction: str) -> NDArray[np.float64]:
        """One action [7]. EvaluationError where the instruction names no colour or the scene is not given."""
        colours = re.findall("|".join(COLOURS), instruction)
        if len(colours) != 1 or "scene" not in observation:
            raise EvaluationError(
                f"{instruction!r}: expected one of {', '.join(COLOURS)}, and `scene` in the observation"
            )
        begin = 6 + 6 * COLOURS.index(colours[0])
        state, block = observation["state"], observation["scene"][begin : begin + 6]
        if self._target is None:
            self._target = state[:6].copy()
        self._before = self._target
        action = self._decide(state, block, self._before)
        self.sent(action)
        self._place, self._width = state[:3].copy(), float(state[6])
        return action

    def sent(self, action: NDArray[np.float64]) -> None:
        """The robot was told this instead of the last answer."""
        self._target = self._before + UNITS * action[:6]

    def _decide(
        self, state: NDArray[np.float64], block: NDArray[np.float64], target: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        hand, width, closed = state[:3], float(state[6]), state[14] < 0
        away = hand - block[:3]
        if closed and width > EMPTY_M and np.linalg.norm(away) < HELD_M:
            grasped = abs(width - self._width) < STOOD_M
            return np.array([0.0, 0.0, 1.0 if grasped else 0.0, 0.0, 0.0, 0.0, -1.0])
        aside, height = float(np.hypot(*away[:2])), float(away[2])
        turn = _half_turn(block[5] - state[5])
        over = aside < NEAR_M and abs(turn) < NEAR_RAD and width > OPEN_M
        stands = float(np.linalg.norm(hand - self._place)) < STOOD_M
        if over and (abs(height) < NEAR_M or (stands and height < STUCK_M)):
            return np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
        self._rises = height < CLEAR_M and (self._rises or (stands and not over))  # a finger stands on its edge
        share = float(np.clip((aside - NEAR_M) / (FUNNEL_M - NEAR_M), 0, 1))
        if self._rises or width < OPEN_M or abs(turn) > 2 * NEAR_RAD:  # fingers closed or turned away would hit it
            share = 1.0
        goal = block[:3] + np.array([0.0, 0.0, ABOVE_M * share])
        move = np.clip((goal - target[:3]) / METRES, -1, 1)
        spin = float(np.clip(_half_turn(block[5] - target[5]) / RADIANS, -1, 1))
        return np.array([*move, 0.0, 0.0, spin, 1.0])


def random_moves(observation: Observation, instruction: str) -> NDArray[np.float64]:
    """The baseline: any action, the gripper open or closed by chance. Seeded by the evaluator."""
    return np.append(np.random.uniform(-1, 1, 6), np.random.choice([-1.0, 1.0]))  # noqa: NPY002


def _half_turn(angle: float) -> float:
    """The same up to half turns, within a quarter turn: a gripper has two equal sides."""
    return (angle + math.pi / 2) % math.pi - math.pi / 2
