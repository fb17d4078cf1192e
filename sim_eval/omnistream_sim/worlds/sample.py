# SPDX-License-Identifier: Apache-2.0
"""Draw scenes: which family, what stands where, how it moves and looks, and how the camera goes through it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from .config import FAMILIES, WorldConfig
from .draw import Draw, host_uniform
from .families import clutter, outdoor, room, tabletop
from .layout import CAPSULES, N_BOX, N_CAPSULE, N_REVOLUTION, SLOTS, Layout, extent, select
from .looks import Paint, choose_lights, indoor_lights, lens, paint, sun
from .paths import candidates, clearance, drop, path_length
from .scene import Lights, Motion, Scenes, Terrain, Words, object_poses
from .terrain import WAVES

_SALT_FAMILY, _SALT_HILLS = 1, 2


def sample_scenes(
    config: WorldConfig,
    seeds: Sequence[int],
    *,
    frames: int,
    rate: float = 30.0,
    device: torch.device | str = "cpu",
) -> Scenes:
    """One scene per seed, with a camera path of `frames` pictures at `rate` Hz.

    The scene belongs to (config, seed, frames, rate) alone: batch and order do not matter.

    Raises:
        ValueError: no seed, fewer than one frame, a rate not above 0, or a seed outside 0 .. 2^63 - 1.
    """
    if not seeds or frames < 1 or not rate > 0:
        raise ValueError(f"{len(seeds)} seeds, {frames} frames, rate {rate}; expected at least 1, at least 1, above 0")
    stamps = torch.arange(frames + 1, dtype=torch.float64) / rate
    drawn = [family_of(config, seed) for seed in seeds]
    draw = Draw(seeds, device)
    family = torch.tensor([FAMILIES.index(name) for name, _ in drawn]).to(device)
    hilly = torch.tensor([flag for _, flag in drawn]).to(device)
    length = torch.full((len(seeds),), 5.0 * float(stamps[-1]), device=device)
    # every family is laid out for every scene and one is taken: cheaper than one batch after another
    layout = select([tabletop(draw), room(draw), clutter(draw), outdoor(draw, length=length)], family)
    outside = family == FAMILIES.index("outdoor")
    terrain = _hills(draw, layout, hilly)
    looks = paint(draw, layout)
    scenes = _scenes(
        layout,
        looks,
        choose_lights(outside, sun(draw), indoor_lights(draw, layout)),
        _motion(draw, layout, config.moving),
        terrain,
        lens(draw, config.min_fov, config.max_fov),
        stamps,
        seeds,
        tuple(flag for _, flag in drawn),
    )
    poses = candidates(draw, layout, stamps.to(torch.float32).to(device), config.speed, config.min_path)
    poses[..., 2, 3] += ground_height(terrain, poses[..., :2, 3])
    path, active = _choose(config, replace(scenes, T_world_camera=poses[:, 0]), layout, poses)
    return replace(scenes, T_world_camera=path, active=active)


def family_of(config: WorldConfig, seed: int) -> tuple[str, bool]:
    """Family of the scene with that seed, and whether it has a terrain; known without drawing it."""
    weights = {name: getattr(config, name) for name in FAMILIES if getattr(config, name) > 0}
    edges = list(accumulate(weights.values()))
    point = host_uniform(seed, _SALT_FAMILY) * edges[-1]
    name = list(weights)[min(bisect_right(edges, point), len(edges) - 1)]
    return name, name == "outdoor" and host_uniform(seed, _SALT_HILLS) < config.hills


def _hills(draw: Draw, layout: Layout, hilly: Tensor) -> Terrain:
    """Height fields, flat and out of reach where not `hilly` [B]; what stands on the ground is lifted onto it."""
    k = 2 * math.pi / draw.log_uniform(WAVES, low=4.0, high=40.0)
    angle = draw.uniform(WAVES, high=2 * math.pi)
    steep = draw.uniform(1, low=0.03, high=0.16) * draw.uniform(WAVES, low=0.3, high=1.0)
    terrain = Terrain(
        base=torch.zeros(draw.batch, device=draw.device),
        amplitude=torch.where(hilly[:, None], steep / k, 0.0),
        wave=torch.stack([k * torch.cos(angle), k * torch.sin(angle)], -1),
        phase=draw.uniform(WAVES, high=2 * math.pi),
    )
    layout.room_solid = layout.room_solid & ~hilly[:, None]
    layout.room_low[:, 2] = torch.where(hilly, -60.0, layout.room_low[:, 2])
    layout.centre[..., 2] += torch.where(hilly[:, None], ground_height(terrain, layout.centre[..., :2]) - 0.05, 0.0)
    return terrain


def ground_height(terrain: Terrain, at: Tensor) -> Tensor:
    """Height [B, ...] of the terrain at x, y [B, ..., 2]."""
    b = at.shape[0]
    flat = at.reshape(b, -1, 1, 2)
    angle = (flat * terrain.wave[:, None]).sum(-1) + terrain.phase[:, None]
    z = terrain.base[:, None] + (terrain.amplitude[:, None] * torch.sin(angle)).sum(-1)
    return z.reshape(at.shape[:-1])


def _motion(draw: Draw, layout: Layout, share: float) -> Motion:
    """Some loose objects swing, hop or turn."""
    n = SLOTS
    moves = layout.loose & draw.flag(n, share=share)
    size = layout.half.amax(-1)
    way = draw.choice((0.4, 0.25, 0.35), n)
    swings, hops = moves & (way == 0), moves & (way == 1)
    spins = moves & ((way == 2) | draw.flag(n, share=0.3))
    angle = draw.uniform(n, high=2 * math.pi)
    reach = size * draw.uniform(n, low=0.3, high=1.0)
    swing = torch.stack([torch.cos(angle) * reach, torch.sin(angle) * reach, torch.zeros_like(angle)], -1)
    axis = torch.zeros(draw.batch, n, 3, device=draw.device)
    axis[..., 2] = 1.0
    return Motion(
        swing=torch.where(swings[..., None], swing, 0.0),
        omega=draw.uniform(n, low=1.0, high=4.0),
        phase=draw.uniform(n, high=2 * math.pi),
        bounce=torch.where(hops, size * draw.uniform(n, low=0.5, high=2.0), 0.0),
        bounce_omega=draw.uniform(n, low=1.5, high=5.0),
        spin_axis=axis,
        spin_rate=torch.where(spins, draw.uniform(n, low=-3.0, high=3.0), 0.0),
    )


def _choose(config: WorldConfig, scenes: Scenes, layout: Layout, poses: Tensor) -> tuple[Tensor, Tensor]:
    """The candidate path [B, T + 1, 4, 4] that costs the fewest objects, and what stays [B, N]."""
    rotation, centre = object_poses(scenes, scenes.stamps)
    tubes = SLOTS - N_CAPSULE
    bound = torch.cat([layout.half[:, :tubes], extent(layout.half[:, tubes:], CAPSULES)], 1)
    distance = clearance(poses[..., :3, 3], rotation, centre, bound)
    near = (distance < layout.clearance[:, None, None, None]).any(2)
    gone = drop(layout, near)  # [B, C, N]
    cost = (gone & layout.active[:, None]).sum(-1).to(torch.float32)
    cost = cost + 30.0 * (config.min_path - path_length(poses[:, :, :-1])).clamp_min(0.0)
    best = cost.argmin(1)
    rows = torch.arange(poses.shape[0], device=poses.device)
    return poses[rows, best], layout.active & ~gone[rows, best]


def _scenes(
    layout: Layout,
    looks: Paint,
    lights: Lights,
    motion: Motion,
    terrain: Terrain,
    optics: tuple[Tensor, Tensor],
    stamps: Tensor,
    seeds: Sequence[int],
    has_terrain: tuple[bool, ...],
) -> Scenes:
    """All of it in one record, the camera still at the origin."""
    b, device = len(seeds), layout.centre.device
    ids = torch.cat([layout.owner + 7, torch.tensor([1, 2, 3, 4, 5, 6, 5], device=device).expand(b, -1)], 1)
    return Scenes(
        n_box=N_BOX,
        n_revolution=N_REVOLUTION,
        n_capsule=N_CAPSULE,
        centre=layout.centre,
        rotation=layout.rotation,
        half=layout.half,
        active=layout.active,
        profile=layout.profile,
        motion=motion,
        room_centre=0.5 * (layout.room_low + layout.room_high),
        room_half=0.5 * (layout.room_high - layout.room_low),
        room_solid=layout.room_solid,
        materials=looks.rows,
        object_id=ids.to(torch.int32),
        lights=lights,
        terrain=terrain,
        T_world_camera=torch.eye(4, device=device).expand(b, len(stamps), 4, 4),
        focal=optics[0],
        centre_shift=optics[1],
        stamps=stamps,
        words=Words(looks.colour, looks.second, looks.pattern, looks.noun),
        has_terrain=has_terrain,
        seeds=tuple(seeds),
    )
