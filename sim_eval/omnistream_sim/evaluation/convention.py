# SPDX-License-Identifier: Apache-2.0
"""From actions as a checkpoint's contract states them (metres, radians) to what a simulator wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Contract, Dimension
from omnistream.errors import ContractError

UNITS = ("m", "m", "m", "rad", "rad", "rad")
GRIPPER = 6


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What seven numbers mean to a simulator: change of position, change of orientation, gripper (+1 opens, -1 closes).

    In a contract the change of orientation is one of roll, pitch and yaw, as CALVIN's and Bridge's data have it.
    """

    rate: float
    """Control rate, Hz."""
    metres: float = 1.0
    """That an action of 1 moves."""
    radians: float = 1.0
    """That an action of 1 turns."""
    rotation: Literal["euler", "axis_angle", "euler_body"] = "euler"
    """How the simulator wants a change of orientation: as it is, as a rotation vector, or as Euler angles XYZ of the
    turning body."""
    frame: str = ""
    """In which positions and angles change; empty: not checked."""
    state: tuple[Dimension, ...] = ()
    """What the simulator's `state` holds, in its order; empty: not checked."""
    resize: bool = False
    """Whether pictures are resized to the contract's size; if not, another size is refused."""

    def check(self, contract: Contract, source: str) -> None:
        """ContractError with both sides unless actions and state mean what they do here; `source` names the former."""
        action = contract.action
        found = [dimension.unit for dimension in action.dimensions[:GRIPPER]]
        grippers = [gripper.index for gripper in action.grippers]
        wrong = []
        if found != list(UNITS) or len(action.dimensions) != GRIPPER + 1 or grippers != [GRIPPER]:
            wrong.append(
                f"{len(action.dimensions)} numbers with units {found} and grippers at {grippers}; "
                f"expected 7: {list(UNITS)} and the gripper last"
            )
        if action.mode != "delta":
            wrong.append(f"mode {action.mode}; expected delta")
        if self.frame and action.frame != self.frame:
            wrong.append(f"frame {action.frame}; expected {self.frame}")
        if self.state and contract.state and contract.state != self.state:
            wrong.append(f"state {_words(contract.state)}; the simulator gives {_words(self.state)}")
        if abs(contract.rate - self.rate) > 1e-6 * self.rate:
            wrong.append(f"{contract.rate:g} Hz; the simulator runs at {self.rate:g} Hz")
        if wrong:
            raise ContractError(f"the actions of {source} do not fit the simulator: {'; '.join(wrong)}")

    def to_simulator(self, actions: NDArray[np.float64], contract: Contract) -> NDArray[np.float64]:
        """[..., 7] in the contract's units to [..., 7] in the simulator's."""
        gripper = contract.action.grippers[0]
        result = np.array(actions, np.float64)
        result[..., :3] /= self.metres
        if self.rotation == "axis_angle":
            result[..., 3:6] = euler_to_axis_angle(result[..., 3:6])
        elif self.rotation == "euler_body":
            result[..., 3:6] = euler_to_body_euler(result[..., 3:6])
        result[..., 3:6] /= self.radians
        opened = (result[..., GRIPPER] - gripper.closed) / (gripper.open - gripper.closed) > 0.5
        result[..., GRIPPER] = np.where(opened, 1.0, -1.0)
        return result


def _words(dimensions: tuple[Dimension, ...]) -> str:
    return ", ".join(f"{dimension.name} [{dimension.unit}]" for dimension in dimensions)


def euler_to_axis_angle(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fixed-axis roll, pitch, yaw [..., 3] (about x first) to a rotation vector [..., 3] of at most pi."""
    half = np.asarray(angles, np.float64) / 2
    (cr, cp, cy), (sr, sp, sy) = (np.moveaxis(f(half), -1, 0) for f in (np.cos, np.sin))
    w = cr * cp * cy + sr * sp * sy
    vector = np.stack((sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy, cr * cp * sy - sr * sp * cy), axis=-1)
    sign = np.where(w < 0, -1.0, 1.0)  # the shorter way round
    w, vector = w * sign, vector * sign[..., None]
    length = np.linalg.norm(vector, axis=-1)
    # 2 atan2(s, w) / s tends to 2 / w as the sine s of half the angle vanishes.
    tiny = length < 1e-12
    factor = np.where(tiny, 2.0, 2 * np.arctan2(length, w) / np.where(tiny, 1.0, length))
    return vector * factor[..., None]


def euler_to_body_euler(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same rotation about the body's axes: R = Rz(yaw) Ry(pitch) Rx(roll) to [a, b, c], R = Rx(a) Ry(b) Rz(c)."""
    (cr, cp, cy), (sr, sp, sy) = (np.moveaxis(f(np.asarray(angles, np.float64)), -1, 0) for f in (np.cos, np.sin))
    r00, r01, r02 = cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr
    r12, r22 = sy * sp * cr - cy * sr, cp * cr
    return np.stack((np.arctan2(-r12, r22), np.arcsin(np.clip(r02, -1, 1)), np.arctan2(-r01, r00)), axis=-1)
