# SPDX-License-Identifier: Apache-2.0
"""The Panda: which joint is which, where it rests, inverse kinematics, and smooth motion about a pose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .physics import Client

ARM = tuple(range(7))
"""PyBullet's indices of the joints of the arm."""
HAND = 8
"""Link at the flange; its z axis points along the fingers."""
FINGERS = (9, 10)
TOOL = 11
"""Link between the finger tips; z along the fingers, y from finger to finger."""
LINKS = tuple(range(12))
MAX_OPENING = 0.08
"""Metres between the fingers when open."""

HOME = np.array([0.0, -0.215, 0.0, -2.57, 0.0, 2.356, math.pi / 4])
"""Tool pointing down above the table, about (0.31, 0, 0.49)."""
LOWER = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
UPPER = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
"""Radians (Franka Emika's data sheet)."""
DOWN = (1.0, 0.0, 0.0, 0.0)
"""Quaternion xyzw of a tool that points down, fingers apart along y."""


def inverse_kinematics(
    client: Client,
    arm: int,
    position: Sequence[float] | NDArray,
    quaternion: Sequence[float] | NDArray,
    iterations: int = 60,
) -> NDArray[np.float64]:
    """Joint angles [7], starting at the present ones, that bring the tool nearest to the pose."""
    solution = client.calculateInverseKinematics(
        arm,
        TOOL,
        list(map(float, position)),
        list(map(float, quaternion)),
        lowerLimits=LOWER.tolist(),
        upperLimits=UPPER.tolist(),
        jointRanges=(UPPER - LOWER).tolist(),
        restPoses=HOME.tolist(),
        maxNumIterations=iterations,
        residualThreshold=1e-5,
    )
    return np.clip(np.array(solution[:7]), LOWER, UPPER)


def link_pose(client: Client, arm: int, link: int) -> NDArray[np.float64]:
    """T_world_link [4, 4] for the joints as they are."""
    state = client.getLinkState(arm, link, computeForwardKinematics=1)
    pose = np.eye(4)
    pose[:3, :3] = np.reshape(client.getMatrixFromQuaternion(state[5]), (3, 3))
    pose[:3, 3] = state[4]
    return pose


def link_positions(client: Client, arm: int) -> NDArray[np.float64]:
    """Origins [12, 3] of the links."""
    states = client.getLinkStates(arm, list(LINKS), computeForwardKinematics=1)
    return np.array([state[4] for state in states])


class Sway:
    """Smooth motion of the joints about a pose: a sum of slow sines."""

    def __init__(self, rng: np.random.Generator, centre: NDArray, strength: float) -> None:
        self.centre, self.strength = centre, strength
        self._omega = 2 * math.pi * rng.uniform(0.12, 0.55, (3, 7))
        self._phase = rng.uniform(0, 2 * math.pi, (3, 7))
        self._size = rng.dirichlet(np.ones(3), 7).T * np.array([0.6, 0.4, 0.35, 0.4, 0.4, 0.4, 0.7])

    def __call__(self, times: NDArray) -> NDArray[np.float64]:
        """Joint angles [T, 7] at `times` [T], seconds."""
        waves = self._size * np.sin(times[:, None, None] * self._omega + self._phase)
        return np.clip(self.centre + self.strength * waves.sum(1), LOWER, UPPER)


def _hand_camera() -> NDArray[np.float64]:
    """T_hand_camera: in front of the hand, upright for a robot that looks along +x, the finger tips in view."""
    eye, target, up = np.array([0.075, 0.0, 0.0]), np.array([0.045, 0.0, 0.16]), np.array([1.0, 0.0, 0.0])
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = eye
    return pose


T_HAND_CAMERA = _hand_camera()
