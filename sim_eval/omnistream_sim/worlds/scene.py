# SPDX-License-Identifier: Apache-2.0
"""A batch of scenes as plain tensors, and where everything is in each frame.

World frame: z up, metres. Camera frame: OpenCV (x right, y down, z forward). Slots of the object axis N are ordered
by kind: boxes, surfaces of revolution, capsules. A *surface* is a slot, one of the six room faces or the terrain:
axis S = N + 7.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

ROOM_FACES = ("left wall", "right wall", "near wall", "far wall", "floor", "ceiling")
N_EXTRA = 7
"""Surfaces after the object slots: six room faces and the terrain."""


@dataclass(frozen=True)
class Motion:
    """Smooth motion of the objects, all [B, N, ...]: swing on a line, bounce, and turning about an axis.

    position(t) = centre + swing * sin(omega t + phase) + (0, 0, bounce * |sin(bounce_omega t + phase)|)
    rotation(t) = R(spin_axis, spin_rate t) @ rotation       (world axis, radians per second)
    """

    swing: Tensor  # [B, N, 3] metres
    omega: Tensor  # [B, N] rad/s
    phase: Tensor  # [B, N] rad
    bounce: Tensor  # [B, N] metres
    bounce_omega: Tensor  # [B, N] rad/s
    spin_axis: Tensor  # [B, N, 3] unit
    spin_rate: Tensor  # [B, N] rad/s

    @staticmethod
    def still(batch: int, slots: int) -> Motion:
        """Nothing moves."""
        zero = torch.zeros(batch, slots)
        axis = torch.zeros(batch, slots, 3)
        axis[..., 2] = 1.0
        return Motion(torch.zeros(batch, slots, 3), zero, zero, zero, zero, axis, zero)


@dataclass(frozen=True)
class Lights:
    """Area lights that throw shadows and one ambient term."""

    position: Tensor  # [B, L, 3] metres, world
    colour: Tensor  # [B, L, 3] linear, irradiance at one metre-free scale (see shading.py)
    radius: Tensor  # [B, L] metres: size of the lamp, softness of its shadow
    ambient_up: Tensor  # [B, 3] from above (also the horizon of the sky)
    ambient_down: Tensor  # [B, 3] from below
    zenith: Tensor  # [B, 3] sky overhead
    exposure: Tensor  # [B, 3] camera gain per channel (exposure and white balance)


@dataclass(frozen=True)
class Terrain:
    """Height field z = base + sum_k amplitude_k sin(kx_k x + ky_k y + phase_k), in world coordinates."""

    base: Tensor  # [B]
    amplitude: Tensor  # [B, K] metres
    wave: Tensor  # [B, K, 2] rad/m
    phase: Tensor  # [B, K]


@dataclass(frozen=True)
class Words:
    """What the surfaces are, as numbers; `describe` turns them into words. All [B, S] int64."""

    colour: Tensor  # index into the palette
    second: Tensor
    pattern: Tensor  # index into materials.PATTERNS
    noun: Tensor  # index into layout.NOUNS


@dataclass(frozen=True)
class Scenes:
    """B scenes with N object slots over T frames (and one more, for the motion out of the last frame)."""

    n_box: int
    n_revolution: int
    n_capsule: int
    centre: Tensor  # [B, N, 3]
    rotation: Tensor  # [B, N, 3, 3] world from object
    half: Tensor  # [B, N, 3] half sizes; capsule: (radius, radius, half length of the axis)
    active: Tensor  # [B, N] bool
    profile: Tensor  # [B, n_revolution, 3] see shapes.PROFILES
    motion: Motion
    room_centre: Tensor  # [B, 3]
    room_half: Tensor  # [B, 3]
    room_solid: Tensor  # [B, 6] bool; False: sky, no surface
    materials: Tensor  # [B, N + 7, len(MATERIAL_COLUMNS)]
    object_id: Tensor  # [B, N + 7] int32; parts of one object share an id; 0 is nothing (sky)
    lights: Lights
    terrain: Terrain | None
    T_world_camera: Tensor  # [B, T + 1, 4, 4]
    focal: Tensor  # [B] focal length / image width
    centre_shift: Tensor  # [B, 2] principal point away from the image centre / image width
    stamps: Tensor  # [T + 1] float64 seconds
    words: Words | None = None
    names: tuple[dict[int, str], ...] = ()  # per scene: object id -> words, where they were given by hand
    has_terrain: tuple[bool, ...] = ()  # per scene; known on the host so that no device is asked
    seeds: tuple[int, ...] = ()  # per scene: the index that reproduces it
    first_frame: int = 0  # number of the first frame, for the random numbers of pictures

    @property
    def batch(self) -> int:
        """B."""
        return self.centre.shape[0]

    @property
    def slots(self) -> int:
        """N."""
        return self.centre.shape[1]

    @property
    def frames(self) -> int:
        """T."""
        return self.T_world_camera.shape[1] - 1

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.centre.device

    def to(self, device: torch.device | str) -> Scenes:
        """The same scenes on another device."""
        return _map(self, lambda t: t.to(device, non_blocking=True))

    def window(self, first: int, count: int) -> Scenes:
        """The frames first .. first + count - 1 only."""
        last = first + count + 1
        return replace(
            self,
            T_world_camera=self.T_world_camera[:, first:last],
            stamps=self.stamps[first:last],
            first_frame=self.first_frame + first,
        )

    def take(self, indices: list[int]) -> Scenes:
        """Some scenes of the batch, by index (repeats allowed)."""
        rows = torch.tensor(indices, device=self.device)
        taken = _map(self, lambda t: t.index_select(0, rows), skip=("stamps",))
        return replace(
            taken,
            names=tuple(self.names[i] for i in indices) if self.names else (),
            has_terrain=tuple(self.has_terrain[i] for i in indices),
            seeds=tuple(self.seeds[i] for i in indices) if self.seeds else (),
        )


def _map(record: Any, function: Any, skip: tuple[str, ...] = ()) -> Any:
    """Apply a function to every tensor of a dataclass, nested dataclasses included."""
    changed: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name in skip:
            continue
        if isinstance(value, Tensor):
            changed[field.name] = function(value)
        elif isinstance(value, Motion | Lights | Terrain | Words):
            changed[field.name] = _map(value, function)
    return replace(record, **changed)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Small matrix product in full float32 whatever the global matmul precision is (a GPU's TF32 keeps 10 bits)."""
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def axis_angle(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] from unit axes [..., 3] and angles [...] (Rodrigues)."""
    c, s = torch.cos(angle)[..., None, None], torch.sin(angle)[..., None, None]
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=axis.dtype, device=axis.device)
    return c * eye + s * k + (1 - c) * axis[..., :, None] * axis[..., None, :]


def object_poses(scenes: Scenes, times: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation [B, T, N, 3, 3] and centre [B, T, N, 3] of the objects at `times` [T] in seconds."""
    m = scenes.motion
    t = times.to(scenes.device, torch.float32)[None, :, None]
    wave = torch.sin(m.omega[:, None] * t + m.phase[:, None])
    up = m.bounce[:, None] * torch.sin(m.bounce_omega[:, None] * t + m.phase[:, None]).abs()
    centre = scenes.centre[:, None] + m.swing[:, None] * wave[..., None]
    centre = torch.cat([centre[..., :2], centre[..., 2:] + up[..., None]], -1)
    axis = m.spin_axis[:, None].expand(-1, t.shape[1], -1, -1)
    return matmul(axis_angle(axis, m.spin_rate[:, None] * t), scenes.rotation[:, None]), centre


def intrinsics(scenes: Scenes, height: int, width: int) -> Tensor:
    """K [B, 3, 3] for images of this size; integer coordinates are pixel centres, pixels are square."""
    k = torch.zeros(scenes.batch, 3, 3, device=scenes.device)
    k[:, 0, 0] = k[:, 1, 1] = scenes.focal * width
    k[:, 0, 2] = (width - 1) / 2 + scenes.centre_shift[:, 0] * width
    k[:, 1, 2] = (height - 1) / 2 + scenes.centre_shift[:, 1] * width
    k[:, 2, 2] = 1.0
    return k
