# SPDX-License-Identifier: Apache-2.0
"""How things look: paint for every surface by its role, light, lens."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .draw import Draw
from .layout import N_BOX, N_CAPSULE, NOUN, ROLE, Layout
from .materials import COLUMN, MATERIAL_COLUMNS, PALETTE, PATTERNS
from .scene import Lights

# plain, checker, stripes, clouds, wood, marble, speckle, tiles, dots, print
_PATTERN_WEIGHTS = {
    "small": (0.20, 0.10, 0.12, 0.09, 0.12, 0.07, 0.07, 0.04, 0.07, 0.12),
    "furniture": (0.16, 0.03, 0.06, 0.10, 0.42, 0.06, 0.06, 0.06, 0.02, 0.03),
    "building": (0.12, 0.06, 0.10, 0.14, 0.05, 0.03, 0.06, 0.38, 0.02, 0.04),
    "wall": (0.26, 0.02, 0.15, 0.26, 0.06, 0.05, 0.08, 0.10, 0.02, 0.00),
    "floor": (0.04, 0.12, 0.04, 0.14, 0.24, 0.10, 0.10, 0.20, 0.02, 0.00),
    "ceiling": (0.60, 0.02, 0.03, 0.17, 0.06, 0.02, 0.05, 0.05, 0.00, 0.00),
    "ground": (0.00, 0.02, 0.02, 0.46, 0.00, 0.10, 0.24, 0.16, 0.00, 0.00),
}
# metres, smallest and largest period of a pattern
_PERIODS = {
    "small": (0.012, 0.10),
    "furniture": (0.04, 0.30),
    "building": (0.25, 1.5),
    "wall": (0.08, 0.7),
    "floor": (0.08, 0.7),
    "ceiling": (0.1, 0.8),
    "ground": (0.3, 2.0),
}
_COLOURS = tuple(PALETTE)


@dataclass(frozen=True)
class Paint:
    """Materials of B scenes, and the words for them. S surfaces: objects, six room faces, ground."""

    rows: Tensor  # [B, S, len(MATERIAL_COLUMNS)]
    colour: Tensor  # [B, S] index into the palette
    second: Tensor  # [B, S] index of the second colour
    pattern: Tensor  # [B, S] index into PATTERNS
    noun: Tensor  # [B, S] index into layout.NOUNS


def paint(draw: Draw, layout: Layout) -> Paint:
    """Random materials; parts of one object are painted alike."""
    b, device = draw.batch, draw.device
    faces = ["wall"] * 4 + ["floor", "ceiling", "ground"]
    extra = torch.tensor([ROLE[name] for name in faces], device=device).expand(b, -1)
    role = torch.cat([layout.role, extra], 1)
    s = role.shape[1]
    names = ["left wall", "right wall", "near wall", "far wall", "floor", "ceiling", "ground"]
    noun = torch.cat([layout.noun, torch.tensor([NOUN[n] for n in names], device=device).expand(b, -1)], 1)
    edges = torch.tensor([_PATTERN_WEIGHTS[r] for r in ROLE], device=device).cumsum(1)
    edges = edges / edges[:, -1:]
    pattern = (draw.uniform(s)[..., None] >= edges[role][..., :-1]).sum(-1)
    periods = torch.tensor([_PERIODS[r] for r in ROLE], device=device).log()[role]
    period = torch.exp(periods[..., 0] + draw.uniform(s) * (periods[..., 1] - periods[..., 0]))
    colour, second = draw.index(len(_COLOURS), s), draw.index(len(_COLOURS), s)
    calm = (role != ROLE["small"]) & draw.flag(s, share=0.7)  # rooms are rarely purple
    quiet = torch.tensor([_COLOURS.index(n) for n in ("white", "grey", "brown", "white")], device=device)
    colour = torch.where(calm, quiet[draw.index(4, s)], colour)
    palette = torch.tensor(list(PALETTE.values()), device=device)
    first_rgb = palette[colour] * draw.uniform(s, 1, low=0.7, high=1.15) * draw.uniform(s, 3, low=0.9, high=1.1)
    contrast = draw.flag(s, 1, share=0.65)
    shade = first_rgb * draw.uniform(s, 1, low=0.35, high=0.75)
    second_rgb = torch.where(contrast, palette[second] * draw.uniform(s, 1, low=0.7, high=1.1), shade)
    second = torch.where(contrast[..., 0], second, colour)

    rows = torch.zeros(b, s, len(MATERIAL_COLUMNS), device=device)

    def put(name: str, value: Tensor | float) -> None:
        rows[..., COLUMN[name]] = value  # type: ignore[index]

    for i, (one, two) in enumerate((("r0", "r1"), ("g0", "g1"), ("b0", "b1"))):
        put(one, first_rgb[..., i].clamp(0, 0.95))
        put(two, second_rgb[..., i].clamp(0, 0.95))
    put("pattern", pattern.to(torch.float32))
    wood, printed = pattern == PATTERNS.index("wood"), pattern == PATTERNS.index("print")
    sideways = draw.flag(s, share=0.5)
    along, across = 1 / period, draw.uniform(s, low=0.4, high=1.6) / period
    half = torch.cat([layout.half, torch.ones(b, 7, 3, device=device)], 1)
    fu = torch.where(wood, along, torch.where(printed, 0.5 / torch.maximum(half[..., 0], half[..., 1]), along))
    fv = torch.where(wood, along * 0.04, torch.where(printed, 0.5 / half[..., 2], across))
    stripes = pattern == PATTERNS.index("stripes")
    put("fu", torch.where(stripes & sideways, 1e-3, fu))
    put("fv", torch.where(stripes & ~sideways, 1e-3, fv))
    put("fn", draw.uniform(s, low=0.5, high=1.6) * torch.where(wood, 0.7, 1.0) / period)
    put("stretch", torch.where(wood, draw.uniform(s, low=4.0, high=9.0), 1.0))
    put("amount", draw.uniform(s, low=0.1, high=1.0))
    put("seed", torch.floor(draw.uniform(s, high=65536.0)))
    put("gloss", draw.uniform(s) ** 2 * torch.where(role == ROLE["small"], 0.8, 0.3))
    round_kinds = torch.zeros(s, dtype=torch.bool, device=device)
    round_kinds[N_BOX : layout.half.shape[1] - N_CAPSULE] = True
    put("round", torch.where(round_kinds, half[..., 0], 0.0))
    posters = draw.flag(s, share=0.55) & ((role == ROLE["wall"]) | (role == ROLE["building"]))
    put("poster_w", draw.uniform(s, low=0.5, high=1.4))
    put("poster_h", draw.uniform(s, low=0.5, high=1.3))
    put("poster_v", draw.uniform(s, low=-0.7, high=0.1))
    put("poster_p", torch.where(posters, draw.uniform(s, low=0.3, high=0.9), 0.0))
    owner = torch.cat([layout.owner, torch.arange(s - 7, s, device=device).expand(b, -1)], 1)
    rows = torch.gather(rows, 1, owner[..., None].expand_as(rows))
    rows[..., COLUMN["round"]] = torch.where(round_kinds, half[..., 0], 0.0)

    def of_owner(x: Tensor) -> Tensor:
        return torch.gather(x, 1, owner)

    return Paint(rows, of_owner(colour), of_owner(second), of_owner(pattern), noun)


def indoor_lights(draw: Draw, layout: Layout) -> Lights:
    """Lamps near the ceiling or beside a wall; one is the brighter one."""
    low, high = layout.room_low[:, None], layout.room_high[:, None]
    where = torch.stack(
        [
            draw.uniform(2, low=0.08, high=0.92),
            draw.uniform(2, low=0.08, high=0.92),
            draw.uniform(2, low=0.62, high=0.97),
        ],
        -1,
    )
    position = low + where * (high - low)
    middle = 0.5 * (layout.look_low + layout.look_high)[:, None]
    distance2 = ((position - middle) ** 2).sum(-1).clamp_min(0.5)
    warm = draw.uniform(2, low=-0.18, high=0.18)
    tint = torch.stack([1 + warm, torch.ones_like(warm), 1 - warm], -1)
    strength = draw.log_uniform(2, low=0.35, high=1.5) * torch.tensor([1.0, 0.5], device=draw.device)
    ambient = draw.log_uniform(1, low=0.12, high=0.55)
    up = ambient * draw.uniform(3, low=0.85, high=1.15)
    return Lights(
        position=position,
        colour=tint * (strength * distance2)[..., None],
        radius=draw.log_uniform(2, low=0.03, high=0.4),
        ambient_up=up,
        ambient_down=up * draw.uniform(1, low=0.45, high=0.9) * draw.uniform(3, low=0.9, high=1.1),
        zenith=_sky(draw),
        exposure=_exposure(draw),
    )


def sun(draw: Draw) -> Lights:
    """The sun, far away, and a sky that lights the shadows; the second light is off."""
    b = draw.batch
    angle, rise = draw.uniform(high=2 * math.pi), draw.uniform(low=0.35, high=1.3)
    distance = 900.0
    direction = torch.stack(
        [torch.cos(rise) * torch.cos(angle), torch.cos(rise) * torch.sin(angle), torch.sin(rise)], -1
    )
    warm = draw.uniform(low=-0.05, high=0.2)
    tint = torch.stack([1 + warm, torch.ones_like(warm), 1 - warm], -1)
    strength = draw.log_uniform(1, low=0.45, high=1.6)
    position = torch.zeros(b, 2, 3, device=draw.device)
    position[:, 0], position[:, 1, 2] = direction * distance, distance
    colour = torch.zeros(b, 2, 3, device=draw.device)
    colour[:, 0] = tint * strength * distance**2
    radius = torch.zeros(b, 2, device=draw.device) + 0.01 * distance
    horizon = draw.uniform(1, low=0.35, high=0.8) * draw.uniform(3, low=0.9, high=1.1)
    return Lights(
        position, colour, radius, horizon, horizon * draw.uniform(1, low=0.3, high=0.7), _sky(draw), _exposure(draw)
    )


def choose_lights(condition: Tensor, a: Lights, b: Lights) -> Lights:
    """Light a where the condition [B] holds, else b."""
    values = {}
    for field in fields(Lights):
        x, y = getattr(a, field.name), getattr(b, field.name)
        values[field.name] = torch.where(condition.reshape(-1, *([1] * (x.dim() - 1))), x, y)
    return Lights(**values)


def _sky(draw: Draw) -> Tensor:
    blue = torch.tensor([0.18, 0.36, 0.75], device=draw.device)
    overcast = torch.tensor([0.55, 0.58, 0.62], device=draw.device)
    return (blue + draw.uniform(1) * (overcast - blue)) * draw.uniform(1, low=0.6, high=1.2)


def _exposure(draw: Draw) -> Tensor:
    return draw.log_uniform(1, low=0.6, high=1.4) * draw.uniform(3, low=0.92, high=1.08)


def lens(draw: Draw, min_fov: float, max_fov: float) -> tuple[Tensor, Tensor]:
    """Focal length [B] and shift of the principal point [B, 2], both as shares of the picture's width."""
    angle = draw.uniform(low=math.radians(min_fov), high=math.radians(max_fov))
    return 0.5 / torch.tan(angle / 2), draw.uniform(2, low=-0.015, high=0.015)
