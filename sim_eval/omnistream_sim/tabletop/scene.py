# SPDX-License-Identifier: Apache-2.0
"""A layout in a physics client: bodies that can be put where one wants them, and looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .arm import ARM, FINGERS
from .assets import panda_urdf, quad_mesh, texture_file, urdf_file
from .camera import render
from .furniture import LAMP_OFF, LAMP_ON, link_index, table_urdf
from .layout import BLOCK_SIZE, BLOCKS, Layout
from .physics import Client, data_folder


class Scene:
    """Room, table, blocks, further things and, if wanted, the Panda."""

    def __init__(self, client: Client, layout: Layout, *, arm: bool = True) -> None:
        """Clears the client and builds the layout in it."""
        self.client, self.layout = client, layout
        self.light = layout.light
        self._textures: dict[str, int] = {}
        client.resetSimulation()
        client.setGravity(0, 0, -9.81)
        self._room()
        with urdf_file(table_urdf(layout)) as file:
            self.table = client.loadURDF(str(file), useFixedBase=True)
        for part in ("cabinet", "drawer"):
            self._paint(self.table, link_index(part), part)
        self._paint(self.table, link_index("top"), "table")
        self.blocks = {name: self._block(i, colour) for i, (name, colour) in enumerate(BLOCKS.items())}
        self.extras = [self._extra(i) for i in range(len(layout.extras))]
        self.arm = client.loadURDF(str(panda_urdf()), useFixedBase=True) if arm else None

    def set_arm(self, joints: Sequence[float] | NDArray, opening: float) -> None:
        """Put the Panda there: 7 angles, and the distance between the fingers, metres."""
        if self.arm is None:
            return
        for joint, angle in zip(ARM, joints, strict=True):
            self.client.resetJointState(self.arm, joint, float(angle))
        for joint in FINGERS:
            self.client.resetJointState(self.arm, joint, opening / 2)

    def set_block(self, name: str, position: Sequence[float] | NDArray, quaternion: Sequence[float] | NDArray) -> None:
        """Put a block there: centre, and xyzw."""
        body = self.blocks[name]
        self.client.resetBasePositionAndOrientation(body, list(map(float, position)), list(map(float, quaternion)))

    def set_furniture(self, drawer: float, slider: float, *, lamp: bool = False) -> None:
        """Open the drawer so far, put the slider so far from the middle of its rail (metres), switch the lamp."""
        self.client.resetJointState(self.table, link_index("drawer"), drawer)
        self.client.resetJointState(self.table, link_index("slider"), slider)
        self.set_lamp(lamp)

    def set_lamp(self, on: bool) -> None:
        """Paint the lamp as lit or dark."""
        colour = [*(LAMP_ON if on else LAMP_OFF), 1]
        self.client.changeVisualShape(self.table, link_index("lamp"), rgbaColor=colour)

    def render(
        self, T_world_camera: NDArray, K: NDArray, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """RGB [H, W, 3] and depth [H, W] in metres along the optical axis, NaN where there is nothing."""
        return render(self.client, T_world_camera, K, size, self.light)

    def _room(self) -> None:
        x0, y0, x1, y1 = self.layout.walls
        floor, ceiling = self.layout.floor, self.layout.ceiling
        x, y, z = (x0 + x1) / 2, (y0 + y1) / 2, (floor + ceiling) / 2
        height = ceiling - floor
        self._quad((x1 - x0, y1 - y0), (x, y, floor), (0, 0, 0), "floor")
        half = math.pi / 2
        self._quad((x1 - x0, height), (x, y1, z), (half, 0, 0), "walls")
        self._quad((x1 - x0, height), (x, y0, z), (half, 0, math.pi), "walls")
        self._quad((y1 - y0, height), (x1, y, z), (half, 0, -half), "walls")
        self._quad((y1 - y0, height), (x0, y, z), (half, 0, half), "walls")

    def _quad(
        self, size: tuple[float, float], at: tuple[float, float, float], euler: tuple[float, float, float], what: str
    ) -> None:
        """A single face: closed boxes cost a third more, for sides that nobody sees."""
        shape = self.client.createVisualShape(
            self.client.GEOM_MESH,
            fileName=str(quad_mesh()),
            meshScale=[*size, 1],
            rgbaColor=[*self.layout.colours[what], 1],
        )
        turned = self.client.getQuaternionFromEuler(euler)
        self._paint(self.client.createMultiBody(0, -1, shape, at, turned), -1, what)

    def _block(self, number: int, colour: tuple[float, float, float]) -> int:
        half = [BLOCK_SIZE / 2] * 3
        body = self.client.createMultiBody(
            0.05,
            self.client.createCollisionShape(self.client.GEOM_BOX, halfExtents=half),
            self.client.createVisualShape(self.client.GEOM_BOX, halfExtents=half, rgbaColor=[*colour, 1]),
            [self.layout.block_low[0], 0.1 * number - 0.15, BLOCK_SIZE / 2],
        )
        return int(body)

    def _extra(self, number: int) -> int:
        extra = self.layout.extras[number]
        mesh = {"fileName": str(data_folder() / extra.file), "meshScale": [extra.scale] * 3}
        body = self.client.createMultiBody(
            0.0,
            self.client.createCollisionShape(self.client.GEOM_MESH, **mesh),
            self.client.createVisualShape(self.client.GEOM_MESH, **mesh, rgbaColor=[*extra.colour, 1]),
            extra.position,
            self.client.getQuaternionFromEuler([0, 0, extra.yaw]),
        )
        return int(body)

    def _paint(self, body: int, link: int, what: str) -> None:
        name = self.layout.textures.get(what)
        if name is None:
            return
        if name not in self._textures:
            self._textures[name] = self.client.loadTexture(str(texture_file(name)))
        colour = [*self.layout.colours[what], 1]
        self.client.changeVisualShape(body, link, textureUniqueId=self._textures[name], rgbaColor=colour)
