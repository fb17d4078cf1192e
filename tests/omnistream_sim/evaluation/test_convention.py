# SPDX-License-Identifier: Apache-2.0
"""Actions of a checkpoint in a simulator's units."""

from __future__ import annotations

import numpy as np
import pytest

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper
from omnistream.errors import ContractError
from omnistream_sim.evaluation.convention import Convention, euler_to_axis_angle, euler_to_body_euler


def contract(rate: float = 30.0, closed: float = -1.0, mode: str = "delta", unit: str = "m") -> Contract:
    moves = [Dimension(f"d{name}", unit) for name in "xyz"] + [Dimension(f"d{name}", "rad") for name in "rpq"]
    action = Action((*moves, Dimension("gripper", "1")), mode, "world", (Gripper(6, 1.0, closed),))
    return Contract(rate=rate, cameras=(Camera("static", 200, 200),), state=(), action=action)


CALVIN = Convention(rate=30.0, metres=0.02, radians=0.05)
SIMPLER = Convention(rate=5.0, rotation="axis_angle")


def test_the_data_sets_units_come_back():
    """rel_actions of CALVIN, read as metres and radians, become rel_actions again."""
    rel = np.random.default_rng(0).uniform(-1, 1, (50, 7))
    rel[:, 6] = np.sign(rel[:, 6])
    stored = rel * np.array([0.02] * 3 + [0.05] * 3 + [1.0])
    assert CALVIN.to_simulator(stored, contract()) == pytest.approx(rel, abs=1e-12)


@pytest.mark.parametrize(("closed", "value", "expected"), [(-1, 0.1, 1), (-1, -0.1, -1), (0, 0.6, 1), (0, 0.4, -1)])
def test_the_gripper_is_open_or_closed(closed, value, expected):
    action = CALVIN.to_simulator(np.array([0, 0, 0, 0, 0, 0, value]), contract(closed=closed))
    assert action[6] == expected


def test_axis_angle_is_the_same_rotation():
    angles = np.random.default_rng(1).uniform(-1.5, 1.5, (200, 3))
    for angle, vector in zip(angles, euler_to_axis_angle(angles), strict=True):
        assert matrix_of_vector(vector) == pytest.approx(matrix_of_euler(angle), abs=1e-12)


def test_body_angles_are_the_same_rotation():
    angles = np.random.default_rng(2).uniform(-1.5, 1.5, (200, 3))
    for angle, body in zip(angles, euler_to_body_euler(angles), strict=True):
        about = [matrix_of_euler(np.eye(3)[axis] * body[axis]) for axis in range(3)]
        assert about[0] @ about[1] @ about[2] == pytest.approx(matrix_of_euler(angle), abs=1e-12)


@pytest.mark.parametrize(
    ("euler", "vector"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((0.3, 0, 0), (0.3, 0, 0)),
        ((0, -0.3, 0), (0, -0.3, 0)),
        ((0, 0, 3.5), (0, 0, 3.5 - 2 * np.pi)),
        ((1e-15, 2e-15, 0), (1e-15, 2e-15, 0)),
    ],
)
def test_axis_angles_by_hand(euler, vector):
    assert euler_to_axis_angle(np.array(euler)) == pytest.approx(vector, abs=1e-17, rel=1e-9)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rate": 20.0}, "20 Hz; the simulator runs at 30 Hz"),
        ({"mode": "absolute"}, "mode absolute; expected delta"),
        ({"unit": "unspecified"}, "unspecified"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused(wrong, words):
    CALVIN.check(contract(), "policy")
    with pytest.raises(ContractError, match=words):
        CALVIN.check(contract(**wrong), "policy")


def matrix_of_euler(angles):
    (cr, cp, cy), (sr, sp, sy) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return z @ y @ x


def matrix_of_vector(vector):
    """Rodrigues."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
