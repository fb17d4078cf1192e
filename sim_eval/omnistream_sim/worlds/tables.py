# SPDX-License-Identifier: Apache-2.0
"""Scenes turned into the small tables that rays are tested against: one set of numbers per frame.

Everything is brought into the camera frame, so that a ray is (x, y, 1) and its parameter t is the z-depth.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .materials import COLUMN
from .scene import N_EXTRA, Scenes, matmul, object_poses
from .shading import FRAME_COLUMNS as SHADING_COLUMNS
from .shading import MAX_LIGHTS
from .surfaces import KINDS, RECORD_COLUMNS
from .terrain import TERRAIN_COLUMNS, WAVES

FRAME_COLUMNS = SHADING_COLUMNS + TERRAIN_COLUMNS
RECORD_AT = {name: i for i, name in enumerate(RECORD_COLUMNS)}
FRAME_AT = {name: i for i, name in enumerate(FRAME_COLUMNS)}

FAR_AWAY = 9.0
"""Unit-space position of an inactive object; its zero direction can never bring a ray there."""
SURFACES_AFTER = N_EXTRA + 1
"""Rows of the records after the N objects: six room faces, the terrain, nothing."""


@dataclass(frozen=True)
class FrameTables:
    """F frames with N object slots (boxes, then surfaces of revolution, then capsules)."""

    n_box: int
    n_revolution: int
    n_capsule: int
    records: Tensor  # [F, N + 8, len(RECORD_COLUMNS)]
    frame: Tensor  # [F, len(FRAME_COLUMNS)]
    solid: Tensor  # [F, 6] float: 1 where a room face is a surface
    to_camera: Tensor  # [F, N, 3, 4] unit space (capsule: metric) -> camera
    bound: Tensor  # [F, N, 3] half size of the bounding box in unit space
    active: Tensor  # [F, N] bool
    has_terrain: bool
    n_light: int

    @property
    def slots(self) -> int:
        """N."""
        return self.n_box + self.n_revolution + self.n_capsule

    @property
    def frames(self) -> int:
        """F."""
        return self.records.shape[0]

    def part(self, first: int, last: int) -> FrameTables:
        """The frames first .. last - 1."""
        changed = {f.name: getattr(self, f.name)[first:last] for f in fields(self) if f.type == "Tensor"}
        return replace(self, **changed)


def affine(rotation: Tensor, offset: Tensor) -> Tensor:
    """[..., 3, 4] from [..., 3, 3] and [..., 3]."""
    return torch.cat([rotation, offset[..., None]], -1)


def times_vector(m: Tensor, v: Tensor) -> Tensor:
    """m @ v for [..., 3, 3] and [..., 3] (broadcast), in full float32."""
    return (m * v[..., None, :]).sum(-1)


def per_frame(x: Tensor, count: int) -> Tensor:
    """[B, ...] -> [B * count, ...]."""
    return x.repeat_interleave(count, 0)


def frame_tables(scenes: Scenes, first: int, count: int, pixel: Tensor) -> FrameTables:
    """Tables of the frames first .. first + count - 1 of all scenes, F = B * count (scene-major).

    pixel [B]: width of a pixel at one metre.
    """
    n = scenes.slots
    n_tube = n - scenes.n_capsule
    rotation, centre = object_poses(scenes, scenes.stamps[first : first + count])
    pose = scenes.T_world_camera[:, first : first + count]
    r_wc, t_wc = pose[..., :3, :3], pose[..., :3, 3]
    size = torch.cat([scenes.half[:, :n_tube], torch.ones_like(scenes.half[:, n_tube:])], 1)  # capsules stay metric
    inverse = rotation.transpose(-1, -2)
    turn = matmul(inverse, r_wc[:, :, None])
    offset = times_vector(inverse, t_wc[:, :, None] - centre)
    back = turn.transpose(-1, -2)
    to_camera = affine(back * size[:, None, :, None, :], -times_vector(back, offset))
    to_unit = affine(turn, offset) / size[:, None, :, :, None]
    nowhere = torch.zeros(3, 4, device=scenes.device)
    nowhere[:, 3] = FAR_AWAY
    to_unit = torch.where(scenes.active[:, None, :, None, None], to_unit, nowhere)
    room = affine(r_wc, t_wc - scenes.room_centre[:, None]) / scenes.room_half[:, None, :, None]
    maps = torch.cat(
        [to_unit, room[:, :, None].expand(-1, -1, 6, -1, -1), affine(r_wc, t_wc)[:, :, None], 0 * room[:, :, None]], 2
    )
    tubes = scenes.half[:, n_tube:]
    bound = torch.cat([torch.ones_like(scenes.half[:, :n_tube]), tubes], 1)
    bound[:, n_tube:, 2] += tubes[..., 0]
    return FrameTables(
        n_box=scenes.n_box,
        n_revolution=scenes.n_revolution,
        n_capsule=scenes.n_capsule,
        records=torch.cat([maps.flatten(0, 1).flatten(2), per_frame(_still_columns(scenes, size), count)], -1),
        frame=_frame_rows(scenes, r_wc, t_wc, room, pixel),
        solid=per_frame(scenes.room_solid.to(torch.float32), count),
        to_camera=to_camera.flatten(0, 1),
        bound=per_frame(bound, count),
        active=per_frame(scenes.active, count),
        has_terrain=any(scenes.has_terrain),
        n_light=scenes.lights.radius.shape[1],
    )


def _still_columns(scenes: Scenes, size: Tensor) -> Tensor:
    """The columns of the records that do not change from frame to frame: [B, N + 8, C - 12]."""
    b, n = scenes.batch, scenes.slots
    rows = n + SURFACES_AFTER
    still = torch.zeros(b, rows, len(RECORD_COLUMNS) - 12, device=scenes.device)
    at = {name: i - 12 for i, name in enumerate(RECORD_COLUMNS)}
    still[..., at["h0"] : at["h2"] + 1] = 1.0
    still[:, :n, at["h0"] : at["h2"] + 1] = size
    still[:, n : n + 6, at["h0"] : at["h2"] + 1] = scenes.room_half[:, None]
    a, c = scenes.n_box, scenes.n_box + scenes.n_revolution
    still[:, a:c, at["q0"] : at["q2"] + 1] = scenes.profile
    still[:, c:n, at["q0"]] = scenes.half[:, c:, 0]
    still[:, c:n, at["length"]] = scenes.half[:, c:, 2]
    still[:, a:c, at["kind"]] = KINDS.index("revolution")
    still[:, c:n, at["kind"]] = KINDS.index("capsule")
    still[:, n + 6, at["kind"]] = KINDS.index("terrain")
    still[:, n + 7, at["kind"]] = KINDS.index("nothing")
    still[:, : n + N_EXTRA, at["r0"] :] = scenes.materials
    for name in ("fu", "fv", "stretch", "poster_w", "poster_h"):  # divisors: harmless for "nothing"
        still[:, n + 7, at["r0"] + COLUMN[name]] = 1.0
    return still


def _frame_rows(scenes: Scenes, r_wc: Tensor, t_wc: Tensor, room: Tensor, pixel: Tensor) -> Tensor:
    """[F, len(FRAME_COLUMNS)]: lights in the camera frame, ambient colours, the room."""
    b, count = r_wc.shape[:2]
    lights = scenes.lights
    back = r_wc.transpose(-1, -2)
    position = times_vector(back[:, :, None], lights.position[:, None] - t_wc[:, :, None])

    def same(x: Tensor) -> Tensor:
        return x[:, None].expand(b, count, *x.shape[1:])

    colour, radius = same(lights.colour), same(lights.radius)
    missing = MAX_LIGHTS - lights.radius.shape[1]
    if missing < 0:
        raise ValueError(f"the scenes have {lights.radius.shape[1]} lights; at most {MAX_LIGHTS} are supported")
    dark = torch.zeros(b, count, missing, 3, device=r_wc.device)
    position, colour = torch.cat([position, dark], 2), torch.cat([colour, dark], 2)
    radius = torch.cat([radius, dark[..., 0]], 2)
    row = torch.cat(
        [
            r_wc[..., 2, :],
            *(same(x) for x in (lights.ambient_up, lights.ambient_down, lights.zenith, lights.exposure)),
            torch.cat([position, colour], -1).flatten(2),
            radius,
            same(pixel[:, None]),
            room.flatten(2),
            same(scenes.room_half),
            affine(r_wc, t_wc).flatten(2),
            same(_terrain_row(scenes)),
        ],
        -1,
    )
    assert row.shape[-1] == len(FRAME_COLUMNS)
    return row.flatten(0, 1).contiguous()


def _terrain_row(scenes: Scenes) -> Tensor:
    """[B, 2 + 4 * WAVES]: base, top and waves; far below everything where a scene has none."""
    if scenes.terrain is None:
        row = torch.zeros(scenes.batch, 2 + 4 * WAVES, device=scenes.device)
        row[:, :2] = -1e6
        return row
    t = scenes.terrain
    if t.amplitude.shape[1] != WAVES:
        raise ValueError(f"the terrain has {t.amplitude.shape[1]} waves; expected {WAVES}")
    top = t.base + t.amplitude.abs().sum(1)
    waves = torch.cat([t.amplitude[..., None], t.wave, t.phase[..., None]], -1).flatten(1)
    return torch.cat([t.base[:, None], top[:, None], waves], 1)
