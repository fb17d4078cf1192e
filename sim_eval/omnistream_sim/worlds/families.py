# SPDX-License-Identifier: Apache-2.0
"""The four families of scenes, each a function that lays out B scenes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .draw import Draw
from .layout import (
    BOXES,
    CAPSULES,
    N_BOX,
    N_CAPSULE,
    N_REVOLUTION,
    NOUN,
    REVOLUTIONS,
    ROLE,
    SLOTS,
    Layout,
    blank,
    cells,
    extent,
    fit_kind,
    lying,
    put,
    sizes,
    tumble,
    yaw,
)

KINDS = (BOXES, REVOLUTIONS, CAPSULES)


def _vector(*parts: Tensor) -> Tensor:
    return torch.stack(parts, -1)


def _room(
    draw: Draw, half_low: float, half_high: float, *, paths: tuple[float, ...], speeds: tuple[float, float]
) -> Layout:
    half = draw.uniform(2, low=half_low, high=half_high)
    height = draw.uniform(low=2.2, high=3.4)
    zero = torch.zeros_like(height)
    low, high = _vector(-half[:, 0], -half[:, 1], zero), _vector(half[:, 0], half[:, 1], height)
    return blank(draw, low, high, paths=paths, speeds=speeds)


def _table(draw: Draw, layout: Layout) -> Tensor:
    """A table in slots 0 .. 4; returns the half sizes of its top [B, 3], with the height of the surface as third."""
    b = draw.batch
    half = torch.stack([draw.uniform(low=0.4, high=0.9), draw.uniform(low=0.3, high=0.65)], -1)
    top = draw.uniform(low=0.4, high=1.0)
    thick = draw.uniform(low=0.012, high=0.035)
    leg = draw.uniform(low=0.02, high=0.045)
    turn = draw.uniform(high=2 * math.pi)
    corner = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], device=draw.device)
    feet = corner * (half - leg[:, None] - 0.01)[:, None]
    length = (top - 2 * thick) / 2
    centre = torch.zeros(b, 5, 3, device=draw.device)
    centre[:, 0, 2] = top - thick
    centre[:, 1:, :2], centre[:, 1:, 2] = feet, length[:, None]
    size = _vector(half[:, 0], half[:, 1], thick)[:, None].expand(-1, 5, -1).clone()
    size[:, 1:] = _vector(leg, leg, length)[:, None]
    rotation = yaw(turn)[:, None].expand(-1, 5, -1, -1)
    centre = (rotation * centre[..., None, :]).sum(-1)
    pedestal = draw.flag(share=0.25)[:, None]  # one thick leg instead of four
    centre[:, 1, :2] = torch.where(pedestal, 0.0, centre[:, 1, :2])
    size[:, 1, :2] = torch.where(pedestal, 0.25 * half, size[:, 1, :2])
    active = torch.ones(b, 5, dtype=torch.bool, device=draw.device)
    active[:, 2:] = ~pedestal
    put(layout, 0, centre, size, rotation, active)
    layout.noun[:, :5], layout.role[:, :5] = NOUN["table"], ROLE["furniture"]
    layout.owner[:, :5], layout.base[:, 1:5] = 0, 0
    return _vector(half[:, 0], half[:, 1], top)


def _on_table(draw: Draw, layout: Layout, top: Tensor) -> None:
    """Small things on the table: boxes 5 .. 10, seven surfaces of revolution, two capsules; some boxes are stacked."""
    counts = ((5, 6), (N_BOX, 7), (N_BOX + N_REVOLUTION, 2))
    total = sum(count for _, count in counts)
    at, cell = cells(draw, (5, 3), total)
    room = (cell * top[:, None, :2]).amin(-1)  # [B, 1] half width of the smaller side of a cell
    share = draw.uniform(1, low=0.35, high=1.0)
    turn = layout.rotation[:, :1]
    first = 0
    for (slot, count), kind in zip(counts, KINDS, strict=True):
        half = sizes(draw, count, 0.018, 0.075, elongation=2.5)
        half[..., 2] *= draw.uniform(count, low=0.7, high=1.8)
        half = fit_kind(half, kind)
        flat = draw.flag(count, share=0.85 if kind is CAPSULES else 0.15 if kind is REVOLUTIONS else 0.0)
        upright = yaw(draw.uniform(count, high=2 * math.pi))
        rotation = torch.where(flat[..., None, None], lying(draw, count), upright)
        size = extent(half, kind)
        across = torch.where(flat, torch.maximum(size[..., 2], size[..., 1]), size[..., :2].norm(dim=-1))
        shrink = (0.95 * room / across).clamp_max(1.0)[..., None]
        half, size, across = half * shrink, size * shrink, across * shrink[..., 0]
        jitter = draw.uniform(count, 2, low=-1.0, high=1.0) * (cell * top[:, None, :2] - across[..., None]).clamp_min(0)
        spot = at[:, first : first + count] * top[:, None, :2] + jitter
        height = torch.where(flat, size[..., 0], size[..., 2]) + top[:, 2:]
        spot3 = torch.cat([spot, torch.zeros_like(height)[..., None]], -1)
        centre = (turn * spot3[..., None, :]).sum(-1)
        centre[..., 2] = height
        put(layout, slot, centre, half, rotation, draw.flag(count, share=share))
        layout.base[:, slot : slot + count] = 0
        layout.loose[:, slot : slot + count] = True
        first += count
    for upper, lower in ((9, 5), (10, 6)):  # a box on a box
        stacked = (draw.flag(share=0.4) & layout.active[:, lower] & layout.active[:, upper])[:, None]
        under, over = layout.centre[:, lower], layout.half[:, upper]
        small = torch.minimum(over, layout.half[:, lower])
        layout.half[:, upper] = torch.where(stacked, small, over)
        above = under[:, 2] + layout.half[:, lower, 2] + layout.half[:, upper, 2]
        layout.centre[:, upper] = torch.where(
            stacked, _vector(under[:, 0], under[:, 1], above), layout.centre[:, upper]
        )
        layout.base[:, upper] = torch.where(stacked[:, 0], lower, layout.base[:, upper])
        for slot in (upper, lower):
            layout.loose[:, slot] &= ~stacked[:, 0]


def _along_walls(draw: Draw, layout: Layout, first: int, count: int) -> None:
    """Cupboards and shelves: boxes with their backs to the walls, count <= 8 of them."""
    half_room = (layout.room_high - layout.room_low)[:, None, :2] / 2
    wall = draw.permutation(8)[:, :count]  # two places per wall
    side, place = wall // 2, wall % 2
    width = draw.uniform(count, low=0.25, high=0.6) * half_room.amin(-1) * 0.8
    depth = draw.uniform(count, low=0.12, high=0.35)
    height = draw.uniform(count, low=0.25, high=1.05)
    normal_axis = side // 2
    sign = torch.where(side % 2 == 0, -1.0, 1.0)
    along = (place * 2.0 - 1) * half_room.amin(-1) * 0.45 + draw.uniform(count, low=-0.1, high=0.1)
    away_x, away_y = sign * (half_room[..., 0] - depth - 0.01), sign * (half_room[..., 1] - depth - 0.01)
    on_x = normal_axis == 0
    centre = _vector(torch.where(on_x, away_x, along), torch.where(on_x, along, away_y), height)
    size = _vector(torch.where(on_x, depth, width), torch.where(on_x, width, depth), height)
    eye = torch.eye(3, device=draw.device).expand(draw.batch, count, 3, 3)
    put(layout, first, centre, size, eye, draw.flag(count, share=draw.uniform(1, low=0.3, high=1.0)))
    layout.noun[:, first : first + count] = NOUN["cupboard"]
    layout.role[:, first : first + count] = ROLE["furniture"]


def _on_floor(draw: Draw, layout: Layout, slots: tuple[tuple[int, int, range], ...], low: float, high: float) -> None:
    """Things that stand on the floor, away from the middle; slots: (first, count, kind)."""
    half_room = (layout.room_high - layout.room_low)[:, None, :2] / 2
    at, cell = cells(draw, (5, 5), sum(count for _, count, _ in slots))
    first = 0
    for slot, count, kind in slots:
        half = fit_kind(sizes(draw, count, low, high, elongation=3.0), kind)
        size = extent(half, kind)
        inner = half_room * 0.82
        jitter = draw.uniform(count, 2, low=-0.5, high=0.5) * cell * inner
        spot = at[:, first : first + count] * inner + jitter
        centre = torch.cat([spot, size[..., 2:]], -1)
        rotation = yaw(draw.uniform(count, high=2 * math.pi))
        put(layout, slot, centre, half, rotation, draw.flag(count, share=draw.uniform(1, low=0.2, high=0.9)))
        layout.loose[:, slot : slot + count] = True
        first += count


def tabletop(draw: Draw) -> Layout:
    """A table with small things in a room; the camera is near the table, like a person's or a robot's."""
    layout = _room(draw, 1.7, 3.2, paths=(0.4, 0.3, 0.3, 0.0), speeds=(0.35, 1.0))
    top = _table(draw, layout)
    _on_table(draw, layout, top)
    _along_walls(draw, layout, 11, 7)
    _on_floor(draw, layout, ((N_BOX + 7, 3, REVOLUTIONS), (N_BOX + N_REVOLUTION + 2, 2, CAPSULES)), 0.12, 0.3)
    reach = top[:, :2].amax(-1)
    high = top[:, 2]
    layout.stand_low = torch.maximum(_vector(-reach - 0.7, -reach - 0.7, high + 0.18), layout.room_low + 0.3)
    layout.stand_high = torch.minimum(_vector(reach + 0.7, reach + 0.7, high + 0.95), layout.room_high - 0.3)
    spread = 0.6 * top[:, :2].amin(-1)
    layout.look_low = _vector(-spread, -spread, high)
    layout.look_high = _vector(spread, spread, high + 0.12)
    layout.orbit_radius = reach + draw.uniform(low=0.05, high=0.6)
    layout.clearance = draw.uniform(low=0.08, high=0.2)
    return layout


def room(draw: Draw) -> Layout:
    """Furniture along the walls, a table sometimes, things on the floor; the camera walks or drives through."""
    layout = _room(draw, 1.8, 4.5, paths=(0.5, 0.15, 0.0, 0.35), speeds=(0.5, 1.5))
    top = _table(draw, layout)
    _on_table(draw, layout, top)
    shift = (layout.room_high[:, :2] - 1.2).clamp_min(0.0) * draw.uniform(2, low=-0.9, high=0.9)
    with_table = draw.flag(share=0.6)[:, None]
    furniture = torch.arange(SLOTS, device=draw.device)
    on_it = (layout.base == 0) | (furniture < 5) | (layout.base == 5) | (layout.base == 6)
    layout.centre[..., :2] += torch.where(on_it[..., None], shift[:, None], 0.0)
    layout.active &= with_table | ~on_it
    _along_walls(draw, layout, 11, 7)
    _on_floor(draw, layout, ((N_BOX + 7, 3, REVOLUTIONS), (N_BOX + N_REVOLUTION + 2, 2, CAPSULES)), 0.12, 0.4)
    layout.stand_low = _vector(
        layout.room_low[:, 0] + 0.4, layout.room_low[:, 1] + 0.4, draw.uniform(low=0.3, high=1.2)
    )
    layout.stand_high = _vector(
        layout.room_high[:, 0] - 0.4,
        layout.room_high[:, 1] - 0.4,
        torch.minimum(layout.room_high[:, 2] - 0.3, draw.uniform(low=1.4, high=2.0)),
    )
    layout.look_low = layout.room_low * 0.8 + 0.0
    layout.look_high = _vector(
        layout.room_high[:, 0] * 0.8, layout.room_high[:, 1] * 0.8, draw.uniform(low=0.8, high=1.6)
    )
    layout.orbit_radius = draw.uniform(low=0.5, high=1.0) * (layout.room_high[:, :2].amin(-1) - 0.5)
    return layout


def clutter(draw: Draw) -> Layout:
    """Primitives of all sizes anywhere in the air, in a room or under the sky: nothing may be taken for granted."""
    layout = _room(draw, 1.6, 4.0, paths=(0.5, 0.4, 0.0, 0.1), speeds=(0.4, 1.4))
    b, device = draw.batch, draw.device
    grid = (4, 4, 3)
    order = draw.permutation(math.prod(grid))[:, :SLOTS]
    index = _vector(order % 4, order // 4 % 4, order // 16)
    counts = torch.tensor(grid, device=device, dtype=torch.float32)
    low, high = layout.room_low[:, None], layout.room_high[:, None]
    pitch = (high - low) / counts
    centre = low + (index + 0.5) * pitch
    share = draw.uniform(1, low=0.25, high=0.9)
    first = 0
    for kind, count in zip(KINDS, (N_BOX, N_REVOLUTION, N_CAPSULE), strict=True):
        half = sizes(draw, count, 0.05, 0.4, elongation=4.0)
        limit = 0.5 * pitch.amin(-1)  # [B, 1]
        half = fit_kind(half * (limit / half.norm(dim=-1)).clamp_max(1.0)[..., None], kind)
        spot = centre[:, first : first + count] + draw.uniform(count, 3, low=-0.2, high=0.2) * pitch
        put(layout, first, spot, half, tumble(draw, count), draw.flag(count, share=share))
        first += count
    layout.loose[:] = True
    open_air = draw.flag(share=0.3)
    solid = torch.ones(b, 6, dtype=torch.bool, device=device)
    solid[:, :4], solid[:, 5] = ~open_air[:, None], ~open_air
    layout.room_solid = solid
    layout.look_low, layout.look_high = layout.room_low * 0.5, layout.room_high * 0.5
    layout.look_high[:, 2] = layout.room_high[:, 2] * 0.8
    layout.stand_low[:, 2] = 0.3
    layout.orbit_radius = 0.75 * layout.room_high[:, :2].amin(-1)
    return layout


def outdoor(draw: Draw, *, length: Tensor) -> Layout:
    """A road under the sky with buildings beside it, boxes and cones on it. length [B]: metres of the drive."""
    b, device = draw.batch, draw.device
    wide = torch.full((b,), 150.0, device=device)
    zero = torch.zeros(b, device=device)
    layout = blank(
        draw, _vector(-wide, -wide, zero), _vector(wide, wide, wide), paths=(0.25, 0.0, 0.0, 0.75), speeds=(1.0, 5.0)
    )
    layout.room_solid = torch.tensor([False, False, False, False, True, False], device=device).expand(b, 6).clone()
    road = draw.uniform(low=2.2, high=5.0)
    span = length + draw.uniform(low=25.0, high=50.0)

    def row(count: int, offset: Tensor) -> Tensor:
        """x, y [B, count, 2]: alternating sides, spread along the drive, `offset` [B, count] from the middle."""
        step = torch.arange(count, device=device) + draw.uniform(count, low=-0.35, high=0.35)
        x = -4 + span[:, None] * (step + 0.5) / count
        side = torch.where(torch.arange(count, device=device) % 2 == 0, 1.0, -1.0) * draw.sign(1)
        return torch.stack([x, side * offset], -1)

    houses = 10
    half = _vector(
        draw.uniform(houses, low=1.5, high=5),
        draw.uniform(houses, low=1.5, high=4),
        draw.log_uniform(houses, low=1, high=6),
    )
    spot = row(houses, road[:, None] + half[..., 1] + draw.log_uniform(houses, low=0.5, high=8.0))
    turn = yaw(draw.uniform(houses, low=-0.12, high=0.12))
    put(
        layout,
        0,
        torch.cat([spot, half[..., 2:]], -1),
        half,
        turn,
        draw.flag(houses, share=draw.uniform(1, low=0.3, high=1)),
    )
    layout.noun[:, :houses], layout.role[:, :houses] = NOUN["building"], ROLE["building"]
    for first, count, kind in (
        (houses, N_BOX - houses, BOXES),
        (N_BOX, N_REVOLUTION, REVOLUTIONS),
        (N_BOX + N_REVOLUTION, N_CAPSULE, CAPSULES),
    ):
        half = sizes(draw, count, 0.15, 0.9, elongation=2.0)
        half[..., 2] *= draw.uniform(count, low=0.8, high=2.5)
        half = fit_kind(half, kind)
        spot = row(count, road[:, None] * draw.uniform(count, low=0.45, high=1.25))
        centre = torch.cat([spot, extent(half, kind)[..., 2:]], -1)
        put(layout, first, centre, half, yaw(draw.uniform(count, high=2 * math.pi)), draw.flag(count, share=0.8))
        layout.loose[:, first : first + count] = True
    height = draw.uniform(low=0.5, high=1.9)
    quarter = 0.3 * road
    layout.stand_low = _vector(zero, -quarter, height)
    layout.stand_high = _vector(length, quarter, height + 0.6)
    layout.look_low = _vector(zero + 4, -road, zero)
    layout.look_high = _vector(length + 12, road, height + 0.5)
    layout.orbit_radius = zero + 4.0
    layout.clearance = zero + 0.5
    return layout
