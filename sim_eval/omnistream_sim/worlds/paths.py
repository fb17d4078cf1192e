# SPDX-License-Identifier: Apache-2.0
"""Smooth camera paths: several candidates per scene, of which the one that disturbs the scene least is taken.

Positions and the points looked at are sums of a few slow sines, so a path is smooth, has parallax and stays in its
part of the scene for as long as the clip lasts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .builder import look_at
from .draw import Draw
from .layout import Layout

PATHS = ("hand-held", "orbit", "wrist", "drive")
CANDIDATES = 4


def _wander(draw: Draw, times: Tensor, speed: Tensor, amplitude: Tensor) -> Tensor:
    """[B, C, T, 3] offsets about zero, of `amplitude` [B, C, 3], moving at about `speed` [B, C] per second."""
    ratios = torch.tensor([1.0, 1.7, 2.9], device=draw.device)
    strength = torch.tensor([1.0, 0.4, 0.15], device=draw.device)
    phase = draw.uniform(CANDIDATES, 3, 3, high=2 * math.pi)  # wave, axis
    detune = draw.uniform(CANDIDATES, 1, 3, low=0.75, high=1.3)
    size = amplitude.norm(dim=-1).clamp_min(1e-3)
    omega = (speed * math.sqrt(2) / size).clamp_max(6.0)[..., None, None] * ratios[:, None] * detune
    wave = torch.sin(omega[:, :, None] * times[..., None, None] + phase[:, :, None])  # [B, C, T, wave, axis]
    return (wave * strength[:, None]).sum(-2) * amplitude[:, :, None] / 1.2


def _inside(p: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Soft clamp of points [B, C, T, 3] into boxes [B, 3]: smooth, and almost the identity in the middle."""
    middle, half = 0.5 * (low + high)[:, None, None], 0.5 * (high - low).clamp_min(1e-3)[:, None, None]
    return middle + half * torch.tanh((p - middle) / half)


def candidates(draw: Draw, layout: Layout, times: Tensor, speed_factor: float, min_path: float = 0.0) -> Tensor:
    """Poses T_world_camera [B, CANDIDATES, T + 1, 4, 4] at `times` [T + 1] (float32 seconds).

    Paths of T frames shorter than `min_path` metres are run through faster, until they are that long.
    """
    times = times.expand(draw.batch, CANDIDATES, -1)
    if min_path > 0 and times.shape[-1] > 2:
        for _ in range(3):  # a faster run is longer in proportion, but for the corners that its frames cut
            poses = _poses(draw.replay(), layout, times, speed_factor)
            travelled = path_length(poses[:, :, :-1]).clamp_min(1e-3)
            times = times * (1.05 * min_path / travelled).clamp_min(1.0)[..., None]
    return _poses(draw, layout, times, speed_factor)


def path_length(poses: Tensor) -> Tensor:
    """Metres travelled along poses [..., T, 4, 4]."""
    return (poses[..., 1:, :3, 3] - poses[..., :-1, :3, 3]).norm(dim=-1).sum(-1)


def _poses(draw: Draw, layout: Layout, times: Tensor, speed_factor: float) -> Tensor:
    """Poses [B, C, T, 4, 4] at `times` [B, C, T]."""
    b, c = draw.batch, CANDIDATES
    speed = draw.log_uniform(c, low=layout.speeds[:, :1], high=layout.speeds[:, 1:]) * speed_factor
    low, high = layout.stand_low[:, None], layout.stand_high[:, None]
    look = layout.look_low[:, None] + draw.uniform(c, 3) * (layout.look_high - layout.look_low)[:, None]
    look_speed = speed * draw.uniform(c, low=0.1, high=0.6)
    gaze = look[:, :, None] + _wander(
        draw, times, look_speed, 0.35 * (layout.look_high - layout.look_low)[:, None].expand(b, c, 3)
    )

    # hand-held: wandering about a place
    place = low + draw.uniform(c, 3) * (high - low)
    room = (high - low).clamp_max(3.0)
    walk = place[:, :, None] + _wander(draw, times, speed, room * draw.uniform(c, 3, low=0.2, high=0.6))
    hand = _inside(walk, layout.stand_low, layout.stand_high)

    # orbit: round the middle of what there is to see
    pivot = 0.5 * (layout.look_low + layout.look_high)[:, None, None]
    radius = layout.orbit_radius[:, None] * draw.uniform(c, low=0.9, high=1.15)
    turn = (speed / radius)[..., None] * times * draw.sign(c)[..., None] + draw.uniform(c, 1, high=2 * math.pi)
    rise = draw.uniform(c, 1, low=0.05, high=0.95) + 0.15 * torch.sin(0.7 * turn)
    breath = radius[..., None] * (1 + 0.08 * torch.sin(1.3 * turn))
    level = layout.stand_low[:, None, None, 2] + rise * (layout.stand_high - layout.stand_low)[:, None, None, 2]
    flat = pivot[..., :2] + breath[..., None] * torch.stack([torch.cos(turn), torch.sin(turn)], -1)
    orbit = torch.cat([flat, level[..., None]], -1)

    # wrist: close above what is looked at, any way round
    above = gaze.clone()
    lean = draw.uniform(c, 2, low=-0.25, high=0.25)[:, :, None] + 0.05
    above[..., :2] = above[..., :2] + lean
    lift = draw.uniform(c, 1, low=0.15, high=0.5)
    wrist = above + _wander(draw, times, speed * 0.7, torch.full((b, c, 3), 0.12, device=draw.device))
    wrist[..., 2] = layout.look_low[:, None, None, 2] + lift + 0.25 * (wrist[..., 2] - gaze[..., 2]).clamp(-0.3, 0.3)

    # drive: round the room on an ellipse, or along the road; looking ahead
    drive, ahead = _drive(draw, layout, times, speed)

    kind = draw.choice(layout.paths[:, None], c)[..., None, None]
    position = torch.where(kind == 0, hand, torch.where(kind == 1, orbit, torch.where(kind == 2, wrist, drive)))
    target = torch.where(kind == 3, ahead, gaze)
    shake = torch.where(kind == 3, 0.004, 0.006)
    position = position + _wander(
        draw, times, torch.full((b, c), 0.05, device=draw.device), shake.expand(b, c, 1, 1)[..., 0].expand(b, c, 3)
    )
    roll = 0.06 * torch.sin(times * draw.uniform(c, 1, low=0.5, high=2.5) + draw.uniform(c, 1, high=2 * math.pi))
    spun = draw.uniform(c, 1, high=2 * math.pi)
    return look_at(position, _not_straight_down(position, target), torch.where(kind[..., 0] == 2, roll + spun, roll))


def _drive(draw: Draw, layout: Layout, times: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and points looked at, [B, C, T, 3]."""
    c = CANDIDATES
    long = (layout.room_high[:, 0] > 50)[:, None, None]  # a road, not a room
    half = 0.5 * (layout.stand_high - layout.stand_low)[:, None, :2] * draw.uniform(c, 2, low=0.45, high=0.95)
    middle = 0.5 * (layout.stand_low + layout.stand_high)[:, None, :2]
    height = layout.stand_low[:, None, 2] + draw.uniform(c) * 0.5 * (layout.stand_high - layout.stand_low)[:, None, 2]
    start, way = draw.uniform(c, 1, high=2 * math.pi), draw.sign(c)[..., None]
    angle = start + way * (speed / half.mean(-1))[..., None] * times
    loop = middle[:, :, None] + half[:, :, None] * torch.stack([torch.cos(angle), torch.sin(angle)], -1)
    heading_loop = half[:, :, None] * torch.stack([-torch.sin(angle), torch.cos(angle)], -1) * way[..., None]
    weave = layout.stand_high[:, None, 1, None] * 0.8
    rate = 0.15 * speed[..., None] * draw.uniform(c, 1, low=0.3, high=1.0)
    phase = draw.uniform(c, 1, high=2 * math.pi)
    road = torch.stack([speed[..., None] * times, weave * torch.sin(rate * times + phase)], -1)
    heading_road = torch.stack(
        [speed[..., None].expand_as(road[..., 0]), weave * rate * torch.cos(rate * times + phase)], -1
    )
    flat = torch.where(long[..., None], road, loop)
    heading = torch.nn.functional.normalize(torch.where(long[..., None], heading_road, heading_loop), dim=-1)
    side = draw.uniform(c, 1, low=-0.7, high=0.7) + 0.2 * torch.sin(times * draw.uniform(c, 1, low=0.3, high=1.2))
    cos, sin = torch.cos(side), torch.sin(side)
    heading = torch.stack(
        [cos * heading[..., 0] - sin * heading[..., 1], sin * heading[..., 0] + cos * heading[..., 1]], -1
    )
    up = height[..., None].expand_as(flat[..., 0])
    pitch = draw.uniform(c, 1, low=-0.45, high=0.02).expand_as(up)
    position = torch.cat([flat, up[..., None]], -1)
    return position, position + torch.cat([heading, pitch[..., None]], -1)


def _not_straight_down(position: Tensor, target: Tensor) -> Tensor:
    """Targets moved a little where they are right below or above the camera: "upright" means nothing there."""
    flat = target[..., :2] - position[..., :2]
    length = flat.norm(dim=-1, keepdim=True)
    least = 0.12 * (target[..., 2:] - position[..., 2:]).abs() + 1e-3
    sideways = torch.zeros_like(flat)
    sideways[..., 0] = 1.0
    direction = torch.where(length > 1e-6, flat / length.clamp_min(1e-6), sideways)
    return torch.cat([position[..., :2] + direction * torch.maximum(length, least), target[..., 2:]], -1)


def clearance(position: Tensor, rotation: Tensor, centre: Tensor, bound: Tensor) -> Tensor:
    """Distance [B, C, T, N] from camera positions [B, C, T, 3] to the boxes around moving objects.

    rotation [B, T, N, 3, 3], centre [B, T, N, 3], bound [B, N, 3] half sizes of the boxes.
    """
    away = position[:, :, :, None] - centre[:, None]
    local = (rotation[:, None] * away[..., :, None]).sum(-2).abs() - bound[:, None, None]
    return local.clamp_min(0).norm(dim=-1)


def drop(layout: Layout, near: Tensor) -> Tensor:
    """Objects that must go, [B, ..., N] bool: those too near the camera, their other parts, and what stands on them."""
    shape = near.shape

    def at(index: Tensor) -> Tensor:
        wide = index.reshape(shape[0], *([1] * (len(shape) - 2)), shape[-1]).expand(shape)
        return wide

    gone = near & layout.active.reshape(shape[0], *([1] * (len(shape) - 2)), shape[-1])
    owner, base = at(layout.owner), at(layout.base)
    whole = torch.zeros(shape, device=near.device).scatter_reduce(-1, owner, gone.to(torch.float32), "amax") > 0
    gone = torch.gather(whole, -1, owner)
    for _ in range(2):  # things on things on a table
        gone = gone | torch.gather(gone, -1, base)
    return gone
