# SPDX-License-Identifier: Apache-2.0
"""The physics of the tabletop: the arm follows joint angles, drawer, slider and button give way, the button switches
the lamp."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from . import arm as panda
from .furniture import LINKS, link_index
from .layout import BLOCK_SIZE, BUTTON_TRAVEL, CABINET_HEIGHT, DRAWER_TRAVEL, SLIDER_TRAVEL, Layout
from .physics import Client
from .scene import Scene
from .state import Pose

PHYSICS_RATE = 240
"""Hz."""
FORCES = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0]) * 3
"""Newton metres; thrice the data sheet's: the joints follow stiffly, as the real controller does with its model."""
POSITION_GAIN = 0.25
GRIP_FORCE = 25.0
"""Newton per finger."""
FINGER_SPEED = 0.15
"""Metres per second."""
_PASSIVE = {"drawer": 1.5, "slider": 1.0}
"""Friction, Newton."""
_BUTTON_SPRING = 1.5
_PRESSED, _RELEASED = 0.6 * BUTTON_TRAVEL, 0.3 * BUTTON_TRAVEL


class Simulation:
    """A scene that moves. Deterministic: the same layout and commands give the same bits."""

    def __init__(self, client: Client, layout: Layout) -> None:
        """Clears the client and builds the layout in it."""
        self.scene = Scene(client, layout)
        self.client = client
        self.lamp = False
        self.down = False
        client.setPhysicsEngineParameter(
            fixedTimeStep=1 / PHYSICS_RATE,
            numSolverIterations=60,
            deterministicOverlappingPairs=1,
        )
        self._names = {body: name for name, body in self.scene.blocks.items()}
        for body in self._names:
            client.changeDynamics(
                body, -1, lateralFriction=0.9, spinningFriction=0.002, rollingFriction=0.0002, linearDamping=0.04
            )
        for link in panda.FINGERS:
            client.changeDynamics(self._arm, link, lateralFriction=1.6, spinningFriction=0.01)
        self._couple_fingers()
        for link in range(-1, len(LINKS) - 1):
            client.changeDynamics(self.scene.table, link, lateralFriction=0.6)
        for name, friction in _PASSIVE.items():
            client.setJointMotorControl2(
                self.scene.table, link_index(name), client.VELOCITY_CONTROL, targetVelocity=0, force=friction
            )
        client.setJointMotorControl2(
            self.scene.table,
            link_index("button"),
            client.POSITION_CONTROL,
            targetPosition=0,
            positionGain=0.2,
            force=_BUTTON_SPRING,
        )

    @property
    def _arm(self) -> int:
        assert self.scene.arm is not None
        return self.scene.arm

    def _couple_fingers(self) -> None:
        """Both fingers move alike, as the real hand's do: what is held comes to lie in the middle."""
        left, right = panda.FINGERS
        none = [0, 0, 0]
        gear = self.client.createConstraint(
            self._arm, left, self._arm, right, self.client.JOINT_GEAR, [1, 0, 0], none, none
        )
        self.client.changeConstraint(gear, gearRatio=-1, erp=0.2, maxForce=200)

    def place(
        self, joints: NDArray, opening: float, blocks: Mapping[str, Pose], drawer: float, slider: float, lamp: bool
    ) -> None:
        """Put everything somewhere, at rest."""
        self.scene.set_arm(joints, opening)
        for name, pose in blocks.items():
            self.scene.set_block(name, pose.position, pose.quaternion)
            self.client.resetBaseVelocity(self.scene.blocks[name], [0, 0, 0], [0, 0, 0])
        self.scene.set_furniture(drawer, slider, lamp=lamp)
        self.client.resetJointState(self.scene.table, link_index("button"), 0.0)
        self.lamp, self.down = lamp, False

    def advance(self, joints: NDArray, opening: float, steps: int) -> None:
        """Follow the angles [7] and the opening for so many physics steps."""
        client = self.client
        client.setJointMotorControlArray(
            self._arm,
            panda.ARM,
            client.POSITION_CONTROL,
            targetPositions=joints.tolist(),
            forces=FORCES.tolist(),
            positionGains=[POSITION_GAIN] * 7,
            velocityGains=[1.0] * 7,
        )
        for finger in panda.FINGERS:
            client.setJointMotorControl2(
                self._arm,
                finger,
                client.POSITION_CONTROL,
                targetPosition=opening / 2,
                force=GRIP_FORCE,
                maxVelocity=FINGER_SPEED,
                positionGain=0.2,
            )
        for _ in range(steps):
            client.stepSimulation()
            self._switch()

    def _switch(self) -> None:
        pressed = self.furniture("button")
        if not self.down and pressed > _PRESSED:
            self.down, self.lamp = True, not self.lamp
            self.scene.set_lamp(self.lamp)
        elif self.down and pressed < _RELEASED:
            self.down = False

    def furniture(self, name: str) -> float:
        """Position of the joint of "drawer", "slider" or "button"."""
        limits = {
            "drawer": (0.0, DRAWER_TRAVEL),
            "slider": (-SLIDER_TRAVEL / 2, SLIDER_TRAVEL / 2),
            "button": (0.0, BUTTON_TRAVEL),
        }
        return float(np.clip(self.client.getJointState(self.scene.table, link_index(name))[0], *limits[name]))

    def joints(self) -> NDArray[np.float64]:
        """Angles [7]."""
        return np.array([state[0] for state in self.client.getJointStates(self._arm, panda.ARM)])

    def opening(self) -> float:
        """Between the fingers."""
        return float(sum(state[0] for state in self.client.getJointStates(self._arm, panda.FINGERS)))

    def hand_camera(self) -> NDArray[np.float64]:
        """T_world_camera of the camera on the hand."""
        return panda.link_pose(self.client, self._arm, panda.HAND) @ panda.T_HAND_CAMERA

    def blocks(self) -> dict[str, Pose]:
        """Where the blocks are."""
        return {
            name: Pose(*self.client.getBasePositionAndOrientation(body)) for name, body in self.scene.blocks.items()
        }

    def landmarks(self) -> dict[str, NDArray[np.float64]]:
        """Where the drawer's handle, the slider's knob and the button's top are, [3] each."""
        layout = self.scene.layout
        return {
            "handle": np.array([layout.drawer_xy[0] - 0.055 - self.furniture("drawer"), layout.drawer_xy[1], 0.0725]),
            "knob": np.array(
                [layout.slider_xy[0], layout.slider_xy[1] + self.furniture("slider"), CABINET_HEIGHT + 0.047]
            ),
            "button_top": np.array([*layout.button_xy, 0.032 - self.furniture("button")]),
        }

    def contacts(self) -> frozenset[tuple[str, str]]:
        """Pairs of names that touch, see `State.contacts`."""
        pairs = set()
        for point in self.client.getContactPoints() or ():
            if point[8] > 1e-3:  # apart: predicted, not touching
                continue
            one, other = self._name(point[1], point[3]), self._name(point[2], point[4])
            if one != other:
                pairs.add((one, other) if one < other else (other, one))
        return frozenset(pairs)

    def _name(self, body: int, link: int) -> str:
        if body in self._names:
            return self._names[body]
        if body == self._arm:
            return {panda.FINGERS[0]: "left_finger", panda.FINGERS[1]: "right_finger"}.get(link, "arm")
        if body == self.scene.table:
            name = LINKS[link + 1]
            return {"top": "table", "legs": "table", "button_base": "table", "lamp": "cabinet"}.get(name, name)
        return "thing" if body in self.scene.extras else "floor"


def resting(position: tuple[float, float], yaw: float = 0.0, on: float = 0.0) -> Pose:
    """A block that lies at (x, y) on a surface of height `on`."""
    return Pose((*position, on + BLOCK_SIZE / 2), (0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))))
