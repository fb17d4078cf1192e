# SPDX-License-Identifier: Apache-2.0
"""Where things stand: the pieces that all families of scenes are laid out with.

A layout fills the slots of B scenes of one family: centres, sizes, rotations, which exist, what they are called and
what rests on what. Objects get cells of a grid in a random order, so that they never stand inside each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .draw import Draw
from .scene import axis_angle
from .shapes import PROFILES

N_BOX, N_REVOLUTION, N_CAPSULE = 18, 10, 4
SLOTS = N_BOX + N_REVOLUTION + N_CAPSULE
BOXES, REVOLUTIONS, CAPSULES = range(N_BOX), range(N_BOX, N_BOX + N_REVOLUTION), range(N_BOX + N_REVOLUTION, SLOTS)

NOUNS = (
    "box", *PROFILES, "capsule", "table", "cupboard", "building", "left wall", "right wall", "near wall", "far wall",
    "floor", "ceiling", "ground",
)  # fmt: skip
"""Words for what a surface belongs to."""
NOUN = {name: i for i, name in enumerate(NOUNS)}
ROLES = ("small", "furniture", "building", "wall", "floor", "ceiling", "ground")
"""What a surface is, for the choice of its paint."""
ROLE = {name: i for i, name in enumerate(ROLES)}


@dataclass
class Layout:
    """B scenes of one family, filled in step by step. Tensors as in `scene.Scenes`."""

    centre: Tensor  # [B, N, 3]
    rotation: Tensor  # [B, N, 3, 3]
    half: Tensor  # [B, N, 3]
    active: Tensor  # [B, N] bool
    profile: Tensor  # [B, N_REVOLUTION, 3]
    noun: Tensor  # [B, N] index into NOUNS
    role: Tensor  # [B, N] index into ROLES
    owner: Tensor  # [B, N] slot of the object that this is a part of (itself for most)
    base: Tensor  # [B, N] slot of the object that this stands on (itself: on the floor)
    loose: Tensor  # [B, N] bool: may move by itself
    room_low: Tensor  # [B, 3]
    room_high: Tensor  # [B, 3]
    room_solid: Tensor  # [B, 6]
    stand_low: Tensor  # [B, 3] where a camera may be
    stand_high: Tensor  # [B, 3]
    look_low: Tensor  # [B, 3] what it looks at
    look_high: Tensor  # [B, 3]
    orbit_radius: Tensor  # [B] for paths around the middle of what it looks at
    clearance: Tensor  # [B] metres that every surface stays away from the camera
    paths: Tensor  # [B, 4] weights of paths.PATHS
    speeds: Tensor  # [B, 2] m/s, range of the camera's speed


def blank(draw: Draw, low: Tensor, high: Tensor, *, paths: tuple[float, ...], speeds: tuple[float, float]) -> Layout:
    """A room from low to high [B, 3] with nothing in it; random shapes for the surfaces of revolution."""
    b, device = draw.batch, draw.device

    def same(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, device=device).expand(b, -1)

    shape = draw.index(len(PROFILES), N_REVOLUTION)
    table = torch.tensor(list(PROFILES.values()), device=device)
    noun = torch.full((b, SLOTS), NOUN["box"], device=device)
    noun[:, N_BOX : N_BOX + N_REVOLUTION] = shape + NOUN["sphere"]
    noun[:, N_BOX + N_REVOLUTION :] = NOUN["capsule"]
    itself = torch.arange(SLOTS, device=device).expand(b, -1).clone()
    eye = torch.eye(3, device=device)
    return Layout(
        centre=torch.zeros(b, SLOTS, 3, device=device),
        rotation=eye.expand(b, SLOTS, 3, 3).clone(),
        half=torch.full((b, SLOTS, 3), 0.1, device=device),
        active=torch.zeros(b, SLOTS, dtype=torch.bool, device=device),
        profile=table[shape],
        noun=noun,
        role=torch.full((b, SLOTS), ROLE["small"], device=device),
        owner=itself,
        base=itself.clone(),
        loose=torch.zeros(b, SLOTS, dtype=torch.bool, device=device),
        room_low=low,
        room_high=high,
        room_solid=torch.ones(b, 6, dtype=torch.bool, device=device),
        stand_low=low + 0.35,
        stand_high=high - 0.35,
        look_low=low,
        look_high=high,
        orbit_radius=torch.ones(b, device=device),
        clearance=torch.full((b,), 0.25, device=device),
        paths=same(paths),
        speeds=same(speeds),
    )


def select(layouts: Sequence[Layout], which: Tensor) -> Layout:
    """Scene b from layouts[which[b]]."""
    chosen = {}
    for field in fields(Layout):
        values = [getattr(layout, field.name) for layout in layouts]
        merged = values[0]
        for i, value in enumerate(values[1:], 1):
            merged = torch.where((which == i).reshape(-1, *([1] * (merged.dim() - 1))), value, merged)
        chosen[field.name] = merged.clone()
    return Layout(**chosen)


def yaw(angle: Tensor) -> Tensor:
    """Rotations about the vertical, [..., 3, 3]."""
    axis = torch.zeros(*angle.shape, 3, device=angle.device)
    axis[..., 2] = 1.0
    return axis_angle(axis, angle)


def tumble(draw: Draw, count: int) -> Tensor:
    """Any rotation, [B, count, 3, 3]."""
    return axis_angle(draw.direction(count), draw.uniform(count, high=2 * math.pi))


def sizes(draw: Draw, count: int, low: float, high: float, *, elongation: float = 2.0) -> Tensor:
    """Half sizes [B, count, 3]: log-uniform, each axis up to `elongation` times another."""
    size = draw.log_uniform(count, low=low, high=high)[..., None]
    return size * draw.log_uniform(count, 3, low=1 / math.sqrt(elongation), high=math.sqrt(elongation))


def fit_kind(half: Tensor, kind: range) -> Tensor:
    """Half sizes made possible for the kind: capsules are (radius, radius, half length of the axis), round across."""
    if kind is CAPSULES:
        radius = half[..., :1] * 0.5
        return torch.cat([radius, radius, half[..., 2:]], -1)
    return half


def extent(half: Tensor, kind: range) -> Tensor:
    """Half sizes of the bounding box: a capsule is longer than its axis by its radius."""
    if kind is CAPSULES:
        return torch.cat([half[..., :2], half[..., 2:] + half[..., :1]], -1)
    return half


def cells(draw: Draw, counts: tuple[int, int], wanted: int) -> tuple[Tensor, Tensor]:
    """Centres [B, wanted, 2] of different random cells of a grid over [-1, 1]^2, and the half size [2] of a cell."""
    order = draw.permutation(counts[0] * counts[1])[:, :wanted]
    size = torch.tensor([1.0 / counts[0], 1.0 / counts[1]], device=draw.device)
    column, row = order % counts[0], order // counts[0]
    at = torch.stack([2 * column + 1, 2 * row + 1], -1) * size - 1
    return at, size


def put(layout: Layout, first: int, centre: Tensor, half: Tensor, rotation: Tensor, active: Tensor) -> None:
    """Fill the slots from `first` on: [B, n, ...]."""
    rows = slice(first, first + centre.shape[1])
    layout.centre[:, rows] = centre
    layout.half[:, rows] = half
    layout.rotation[:, rows] = rotation
    layout.active[:, rows] = active


def lying(draw: Draw, count: int) -> Tensor:
    """Rotations [B, count, 3, 3] that lay the z axis of an object down, in any direction."""
    across = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]], device=draw.device)
    turn = yaw(draw.uniform(count, high=2 * math.pi))
    return (turn[..., :, :, None] * across[None, None, None]).sum(-2)
