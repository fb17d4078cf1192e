# SPDX-License-Identifier: Apache-2.0
"""The Panda's kinematics in numpy: exact, independent of any simulation's state, and the same on every machine.

Frames and offsets are those of Franka Emika's URDF, which pybullet_data ships; the tool lies between the finger tips.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .arm import HOME, LOWER, UPPER

_QUARTER = math.pi / 2
_ORIGINS: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((0.0, 0.0, 0.333), 0.0),
    ((0.0, 0.0, 0.0), -_QUARTER),
    ((0.0, -0.316, 0.0), _QUARTER),
    ((0.0825, 0.0, 0.0), _QUARTER),
    ((-0.0825, 0.384, 0.0), -_QUARTER),
    ((0.0, 0.0, 0.0), _QUARTER),
    ((0.088, 0.0, 0.0), _QUARTER),
)
"""Of every joint in the link before: offset, and angle about x."""
FLANGE_TO_TOOL = 0.107 + 0.105
_HAND_ANGLE = -math.pi / 4
DAMPING = 0.02
POSTURE_GAIN = 0.05


def _fixed() -> NDArray[np.float64]:
    """[8, 4, 4]: of every joint in the link before, and of the tool in the last."""
    matrices = np.tile(np.eye(4), (8, 1, 1))
    for i, (offset, angle) in enumerate(_ORIGINS):
        matrices[i, :3, :3] = from_euler(np.array([angle, 0.0, 0.0]))
        matrices[i, :3, 3] = offset
    matrices[7, :3, :3] = from_euler(np.array([0.0, 0.0, _HAND_ANGLE]))
    matrices[7, 2, 3] = FLANGE_TO_TOOL
    return matrices


def _chain(joints: NDArray) -> NDArray[np.float64]:
    """[8, 4, 4]: frames of the seven joints, turned, and of the tool."""
    frames = np.empty((8, 4, 4))
    pose = np.eye(4)
    for i in range(7):
        cos, sin = math.cos(joints[i]), math.sin(joints[i])
        pose = pose @ _FIXED[i]
        turned = pose.copy()
        turned[:, 0] = cos * pose[:, 0] + sin * pose[:, 1]
        turned[:, 1] = cos * pose[:, 1] - sin * pose[:, 0]
        frames[i] = pose = turned
    frames[7] = pose @ _FIXED[7]
    return frames


def forward(joints: NDArray) -> NDArray[np.float64]:
    """T_world_tool [4, 4] for seven angles."""
    return _chain(joints)[7]


def solve(pose: NDArray, start: NDArray, iterations: int = 30, tolerance: float = 1e-5) -> NDArray[np.float64]:
    """Angles [7] near `start` that bring the tool to T_world_tool [4, 4], or as near as it goes.

    Damped least squares (Nakamura and Hanafusa 1986); what the six equations leave free is drawn towards HOME.
    """
    joints = np.array(start, float)
    for _ in range(iterations):
        frames = _chain(joints)
        tool = frames[7]
        error = np.concatenate([pose[:3, 3] - tool[:3, 3], rotation_vector(pose[:3, :3] @ tool[:3, :3].T)])
        axes = frames[:7, :3, 2]
        jacobian = np.concatenate([np.cross(axes, tool[:3, 3] - frames[:7, :3, 3]), axes], 1).T
        inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING**2 * np.eye(6))
        free = POSTURE_GAIN * (HOME - joints)
        free -= np.linalg.pinv(jacobian) @ (jacobian @ free)
        step = inverse @ np.clip(error, -0.2, 0.2) + free
        joints = np.clip(joints + np.clip(step, -0.3, 0.3), LOWER, UPPER)
        if np.abs(error).max() < tolerance:
            break
    return joints


def rotation_vector(matrix: NDArray) -> NDArray[np.float64]:
    """Axis times angle [3] of a rotation [3, 3]."""
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]) / 2
    sin, cos = float(np.linalg.norm(axis)), (float(np.trace(matrix)) - 1) / 2
    if sin < 1e-9:
        if cos > 0:
            return axis
        return math.pi * np.sqrt(np.clip((np.diag(matrix) + 1) / 2, 0, 1))  # half a turn: either way
    return axis / sin * math.atan2(sin, cos)


def from_euler(angles: NDArray) -> NDArray[np.float64]:
    """Rotation [3, 3]: turned about the fixed x, then y, then z (PyBullet's and CALVIN's order)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    return np.array(
        [
            [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
            [-sy, cy * sx, cy * cx],
        ]
    )


def to_euler(matrix: NDArray) -> NDArray[np.float64]:
    """The angles of `from_euler`; the first lies in 0 .. 2 pi, so that a tool pointing down is at pi, not at +-pi."""
    x = math.atan2(matrix[2, 1], matrix[2, 2]) % (2 * math.pi)
    y = math.asin(max(-1.0, min(1.0, -matrix[2, 0])))
    return np.array([x, y, math.atan2(matrix[1, 0], matrix[0, 0])])


def tool_pose(position: NDArray, angles: NDArray) -> NDArray[np.float64]:
    """T_world_tool [4, 4] from position and Euler angles."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = from_euler(np.asarray(angles)), position
    return pose


_FIXED = _fixed()
