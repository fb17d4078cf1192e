# SPDX-License-Identifier: Apache-2.0
"""Put a scene together by hand, one object at a time: the shipped recording, the tests, your own experiments.

room = SceneBuilder(room_min=(-2, -2, 0), room_max=(2, 2, 2.5))
room.box((0, 0, 0.4), (0.6, 0.4, 0.02), Material(colour="brown", pattern="wood"), name="table")
scenes = room.build(camera=T_world_camera, focal=0.9, rate=30.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .materials import Material
from .scene import Lights, Motion, Scenes, Terrain, axis_angle
from .shapes import PROFILES

Point = Sequence[float]


@dataclass
class _Part:
    kind: str
    centre: Point
    half: Point
    rotation: Tensor
    profile: Point
    material: Material
    object_id: int


@dataclass
class SceneBuilder:
    """Collects objects; `build` returns `Scenes` with a batch of one."""

    room_min: Point = (-3.0, -3.0, 0.0)
    room_max: Point = (3.0, 3.0, 2.6)
    walls: dict[str, Material] = field(default_factory=dict)  # "floor", "ceiling", "walls" or a name of ROOM_FACES
    sky: tuple[str, ...] = ()  # room faces that are open
    _parts: list[_Part] = field(default_factory=list)
    _names: dict[int, str] = field(default_factory=dict)
    _lights: list[tuple[Point, Point, float]] = field(default_factory=list)

    def _add(
        self, kind: str, centre: Point, half: Point, material: Material, name: str | None, turn: Point, profile: Point
    ) -> int:
        """Objects with the same name are one object."""
        known = {v: k for k, v in self._names.items()}
        object_id = known.get(name or "", len(self._names) + 7)
        self._names[object_id] = name or f"{kind} {object_id}"
        self._parts.append(_Part(kind, centre, half, euler(turn), profile, material, object_id))
        return object_id

    def box(
        self, centre: Point, half: Point, material: Material, name: str | None = None, turn: Point = (0, 0, 0)
    ) -> int:
        """An oriented box; turn: degrees about x, y, z, applied in that order. Returns its object id."""
        return self._add("box", centre, half, material, name, turn, (0, 0, 0))

    def revolution(
        self,
        shape: str,
        centre: Point,
        half: Point,
        material: Material,
        name: str | None = None,
        turn: Point = (0, 0, 0),
    ) -> int:
        """A surface of revolution about its z axis, see `shapes.PROFILES`."""
        if shape not in PROFILES:
            raise ValueError(f"shape is {shape!r}; expected one of {', '.join(PROFILES)}")
        return self._add("revolution", centre, half, material, name, turn, PROFILES[shape])

    def capsule(
        self,
        centre: Point,
        radius: float,
        half_length: float,
        material: Material,
        name: str | None = None,
        turn: Point = (0, 0, 0),
    ) -> int:
        """A capsule along its z axis."""
        return self._add("capsule", centre, (radius, radius, half_length), material, name, turn, (0, 0, 0))

    def light(self, position: Point, colour: Point, radius: float = 0.1) -> None:
        """An area light; colour is its intensity (irradiance at one metre)."""
        self._lights.append((position, colour, radius))

    def build(
        self,
        camera: Tensor,
        *,
        focal: float,
        rate: float = 30.0,
        ambient: tuple[Point, Point] = ((0.5, 0.5, 0.5), (0.3, 0.28, 0.26)),
        zenith: Point = (0.25, 0.45, 0.8),
        exposure: Point = (1.0, 1.0, 1.0),
        motion: Motion | None = None,
        terrain: Terrain | None = None,
    ) -> Scenes:
        """One scene. camera: T_world_camera [T, 4, 4]; focal: focal length / image width.

        ambient: light from above and from below.
        motion: slots in the order boxes, revolutions, capsules, each in the order they were added (default: still).
        """
        parts = [p for kind in ("box", "revolution", "capsule") for p in self._parts if p.kind == kind]
        count = {kind: sum(p.kind == kind for p in parts) for kind in ("box", "revolution", "capsule")}
        lo, hi = torch.tensor(self.room_min), torch.tensor(self.room_max)
        faces = ("left wall", "right wall", "near wall", "far wall", "floor", "ceiling")
        default = {"floor": Material(colour="brown"), "ceiling": Material(colour="white")}
        shell = [
            self.walls.get(f, self.walls.get("walls", Material(colour="white")) if "wall" in f else default[f])
            for f in faces
        ]
        rows = [p.material.row() for p in parts] + [m.row() for m in shell]
        rows.append(self.walls.get("terrain", Material(colour="green", pattern="clouds", noise=1.0)).row())
        lights = self._lights or [((0.0, 0.0, 2.4), (3.0, 3.0, 3.0), 0.2)]

        def vector(x: Point) -> Tensor:
            return torch.tensor([list(map(float, x))])

        return Scenes(
            n_box=count["box"],
            n_revolution=count["revolution"],
            n_capsule=count["capsule"],
            centre=torch.tensor([[list(map(float, p.centre)) for p in parts]]).reshape(1, -1, 3),
            rotation=torch.stack([p.rotation for p in parts])[None] if parts else torch.zeros(1, 0, 3, 3),
            half=torch.tensor([[list(map(float, p.half)) for p in parts]]).reshape(1, -1, 3),
            active=torch.ones(1, len(parts), dtype=torch.bool),
            profile=torch.tensor([[list(p.profile) for p in parts if p.kind == "revolution"]]).reshape(1, -1, 3),
            motion=motion or Motion.still(1, len(parts)),
            room_centre=((lo + hi) / 2)[None].float(),
            room_half=((hi - lo) / 2)[None].float(),
            room_solid=torch.tensor([[f not in self.sky for f in faces]]),
            materials=torch.tensor([rows]),
            object_id=torch.tensor([[p.object_id for p in parts] + [1, 2, 3, 4, 5, 6, 5]], dtype=torch.int32),
            lights=Lights(
                position=torch.tensor([[list(map(float, p)) for p, _, _ in lights]]),
                colour=torch.tensor([[list(map(float, c)) for _, c, _ in lights]]),
                radius=torch.tensor([[float(r) for _, _, r in lights]]),
                ambient_up=vector(ambient[0]),
                ambient_down=vector(ambient[1]),
                zenith=vector(zenith),
                exposure=vector(exposure),
            ),
            terrain=terrain,
            T_world_camera=torch.cat([camera, camera[-1:]])[None].float(),
            focal=torch.tensor([float(focal)]),
            centre_shift=torch.zeros(1, 2),
            stamps=torch.arange(camera.shape[0] + 1, dtype=torch.float64) / rate,
            names=({**dict(enumerate(faces, 1)), **self._names},),
            has_terrain=(terrain is not None,),
            seeds=(0,),
        )


def euler(degrees: Point) -> Tensor:
    """Rotation matrix of roll, pitch, yaw in degrees: Rz(yaw) Ry(pitch) Rx(roll)."""
    angles = torch.deg2rad(torch.tensor([float(a) for a in degrees]))
    x, y, z = (axis_angle(torch.eye(3)[i], angles[i]) for i in range(3))
    return z @ y @ x


def look_at(position: Tensor, target: Tensor, roll: Tensor | float = 0.0) -> Tensor:
    """T_world_camera [..., 4, 4] at `position`, looking at `target` [..., 3], upright up to `roll` (radians)."""
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    down = torch.zeros_like(forward)
    down[..., 2] = -1.0
    right = torch.nn.functional.normalize(torch.linalg.cross(down, forward, dim=-1), dim=-1)
    below = torch.linalg.cross(forward, right, dim=-1)
    roll = torch.as_tensor(roll, dtype=position.dtype).expand(position.shape[:-1])[..., None]
    c, s = torch.cos(roll), torch.sin(roll)
    pose = torch.zeros(*position.shape[:-1], 4, 4, dtype=position.dtype)
    pose[..., :3, 0] = c * right + s * below
    pose[..., :3, 1] = -s * right + c * below
    pose[..., :3, 2] = forward
    pose[..., :3, 3] = position
    pose[..., 3, 3] = 1.0
    return pose
