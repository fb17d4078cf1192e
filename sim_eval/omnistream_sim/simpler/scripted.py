# SPDX-License-Identifier: Apache-2.0
"""A scripted policy that is told the scene's true state: it grasps the source from above and sets it on the target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnistream_sim.evaluation.protocols import EvaluationError, Observation

STEP_M, STEP_RAD = 0.03, 0.3
"""Greatest change of the target pose per control period of 0.2 s."""
NEAR_M, NEAR_RAD = 0.01, 0.08
GAIN = 0.6
PATIENCE = 12
"""Control periods after which a stage ends wherever the arm is."""


@dataclass(frozen=True)
class Heights:
    """Of the tool, m."""

    above: float
    """Over the source, before it goes down."""
    carry: float
    """Over where the source lay."""
    release: float
    """Over the target, when it lets go."""


TABLE, SINK = Heights(0.08, 0.12, 0.035), Heights(0.12, 0.17, 0.09)
"""The sink has walls, and a basket."""
HELD = {"close": 4, "open": 2}
"""Control periods that the gripper needs."""
STAGES = ("above", "down", "close", "lift", "over", "lower", "open", "away", "done")


class PickPlace:
    """Any of the four tasks. `scene` is source, target and tool (xyz, wxyz in the world), 21 numbers.

    The robot's base is turned by half a turn about the world's z axis, so x and y change sign between the two.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A new episode."""
        self._stage, self._waited, self._turned = 0, 0, 0.0
        self._told = False
        self._pick = self._place = np.zeros(3)
        self._turn = 0.0
        self._heights = TABLE

    def __call__(self, observation: Observation, instruction: str) -> NDArray[np.float64]:
        """One action [7]. EvaluationError where the scene is not given."""
        if "scene" not in observation:
            raise EvaluationError("the scripted policy needs the scene's true state")
        source, target, tool = observation["scene"].reshape(3, 7)
        if not self._told:
            self._told = True
            self._pick, self._place = source[:3].copy(), target[:3].copy()
            self._turn = _half_turn(_long_axis(source[3:]))
            self._heights = SINK if "basket" in instruction else TABLE
        goal = self._goal()
        self._advance(tool[:3], goal)
        move = GAIN * (goal - tool[:3])  # added to the target, it takes away what gravity makes the arm sag
        move *= min(1.0, STEP_M / max(float(np.linalg.norm(move)), 1e-9))
        spin = float(np.clip(self._turn - self._turned, -STEP_RAD, STEP_RAD)) if self._stage == 0 else 0.0
        self._turned += spin
        closed = STAGES[self._stage] in ("close", "lift", "over", "lower")
        return np.array([-move[0], -move[1], move[2], 0.0, 0.0, spin, -1.0 if closed else 1.0])

    def _goal(self) -> NDArray[np.float64]:
        stage = STAGES[self._stage]
        if stage in ("above", "down", "close", "lift"):
            rise = {"above": self._heights.above, "lift": self._heights.carry}.get(stage, 0.0)
            return self._pick + np.array([0.0, 0.0, rise])
        rise = self._heights.release if stage in ("lower", "open") else self._heights.carry
        return self._place + np.array([0.0, 0.0, rise])

    def _advance(self, tool: NDArray[np.float64], goal: NDArray[np.float64]) -> None:
        stage = STAGES[self._stage]
        self._waited += 1
        if stage in HELD:
            ready = self._waited > HELD[stage]
        else:
            near = float(np.linalg.norm(tool - goal)) < NEAR_M and abs(self._turn - self._turned) < NEAR_RAD
            ready = near or self._waited > PATIENCE
        if ready and stage != "done":
            self._stage, self._waited = self._stage + 1, 0


def random_moves(observation: Observation, instruction: str) -> NDArray[np.float64]:
    """The baseline: moves of up to the script's size, the gripper open or closed by chance. Seeded by the evaluator."""
    moves = np.random.uniform(-1, 1, 6) * ([STEP_M] * 3 + [STEP_RAD] * 3)  # noqa: NPY002
    return np.append(moves, np.random.choice([-1.0, 1.0]))  # noqa: NPY002


def _long_axis(wxyz: NDArray[np.float64]) -> float:
    """Direction of a thing's own x axis, along which all of them are longest, seen from above, rad."""
    w, x, y, z = wxyz
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def _half_turn(angle: float) -> float:
    """The same up to half turns, within a quarter turn: a gripper has two equal sides."""
    return (angle + math.pi / 2) % math.pi - math.pi / 2
