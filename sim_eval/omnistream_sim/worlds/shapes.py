# SPDX-License-Identifier: Apache-2.0
"""Ray intersection with the primitive kinds, each in its own unit space.

A ray is brought into the space of a primitive by the affine map of that primitive, which keeps the ray parameter t; so
an oriented box is the cube [-1, 1]^3, an ellipsoid the unit sphere. Kinds:

- box: the cube.
- revolution: x^2 + y^2 = q0 + q1 z + q2 z^2 for |z| <= 1, closed by its end discs. Sphere, cylinder, cone, frustum,
  barrel and hourglass are the same six lines with other numbers (`PROFILES`).
- capsule: metric (rigid map): radius and half length.
- room: the cube seen from inside.

All functions return t (float32, `inf` where the ray misses or the hit is not beyond `T_MIN`) and accept any shapes that
broadcast. Origins outside the primitive are assumed, as they are for every camera and shadow ray here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .vec import Vec, along, dot

T_MIN = 1e-4
_HUGE = 1e12
_TINY = 1e-20

# (q0, q1, q2) of named surfaces of revolution
PROFILES: dict[str, tuple[float, float, float]] = {
    "sphere": (1.0, 0.0, -1.0),
    "cylinder": (1.0, 0.0, 0.0),
    "cone": (0.25, -0.5, 0.25),
    "frustum": (0.64, -0.32, 0.04),
    "cup": (0.7569, 0.2262, 0.0169),
    "barrel": (1.0, 0.0, -0.45),
    "hourglass": (0.30, 0.0, 0.70),
}


def _inverse(d: Tensor) -> Tensor:
    return torch.reciprocal(d).clamp(-_HUGE, _HUGE)  # a ray parallel to a face: huge, never 0 * inf


def _slabs(o: Vec, d: Vec) -> tuple[Vec, Vec]:
    ix, iy, iz = _inverse(d[0]), _inverse(d[1]), _inverse(d[2])
    mx, my, mz = o[0] * ix, o[1] * iy, o[2] * iz
    kx, ky, kz = ix.abs(), iy.abs(), iz.abs()
    return (-mx - kx, -my - ky, -mz - kz), (kx - mx, ky - my, kz - mz)


def hit_box(o: Vec, d: Vec) -> Tensor:
    """Entry into the cube [-1, 1]^3."""
    enter, leave = _slabs(o, d)
    t0 = torch.maximum(torch.maximum(enter[0], enter[1]), enter[2])
    t1 = torch.minimum(torch.minimum(leave[0], leave[1]), leave[2])
    return torch.where((t1 >= t0) & (t0 > T_MIN), t0, torch.inf)


def hit_room(o: Vec, d: Vec) -> tuple[Tensor, Tensor]:
    """Exit from the cube seen from inside: t and the face, 0..5 = -x, +x, -y, +y, -z, +z."""
    _, leave = _slabs(o, d)
    t = torch.minimum(torch.minimum(leave[0], leave[1]), leave[2])
    on_x, on_y = leave[0] <= t, leave[1] <= t
    axis = torch.where(on_x, 0, torch.where(on_y, 2, 4))
    along_axis = torch.where(on_x, d[0], torch.where(on_y, d[1], d[2]))
    return t, axis + (along_axis > 0)


def _closest_approach(o: Vec, d: Vec) -> tuple[Tensor, Vec]:
    """Ray parameter and point nearest to the origin: solving from there keeps float32 exact for far-away primitives."""
    t = -dot(o, d) / dot(d, d).clamp_min(_TINY)  # the direction is zero for inactive objects
    return t, along(o, d, t)


def hit_revolution(o: Vec, d: Vec, q: Vec) -> Tensor:
    """First hit of the capped surface of revolution with profile q (see the module docstring)."""
    t0, p = _closest_approach(o, d)
    q0, q1, q2 = q
    a = d[0] * d[0] + d[1] * d[1] - q2 * d[2] * d[2]
    b = p[0] * d[0] + p[1] * d[1] - d[2] * (q2 * p[2] + 0.5 * q1)
    c = p[0] * p[0] + p[1] * p[1] - (q0 + p[2] * (q1 + q2 * p[2]))
    disc = b * b - a * c
    s = disc.clamp_min(0.0).sqrt()
    w = -(b + torch.where(b < 0, -s, s))  # the two roots without cancellation: w / a and c / w

    def valid(r: Tensor, inside: Tensor) -> Tensor:
        return torch.where(inside & (t0 + r > T_MIN), r, torch.inf)

    r1, r2 = w / a, c / w
    real = disc >= 0
    r1 = valid(r1, real & ((p[2] + r1 * d[2]).abs() <= 1))
    r2 = valid(r2, real & ((p[2] + r2 * d[2]).abs() <= 1))
    side = torch.where(d[2] > 0, -1.0, 1.0)  # the end disc that faces the ray is met first
    r3 = (side - p[2]) * _inverse(d[2])
    x, y = p[0] + r3 * d[0], p[1] + r3 * d[1]
    r3 = valid(r3, x * x + y * y <= q0 + side * q1 + q2)
    return t0 + torch.minimum(torch.minimum(r1, r2), r3)


def hit_capsule(o: Vec, d: Vec, radius: Tensor, half_length: Tensor) -> Tensor:
    """First hit of the capsule along z: a cylinder of `half_length` with hemispheres of `radius` (all metric)."""
    t0, p = _closest_approach(o, d)
    r2 = radius * radius
    a = (d[0] * d[0] + d[1] * d[1]).clamp_min(_TINY)
    b = p[0] * d[0] + p[1] * d[1]
    c = p[0] * p[0] + p[1] * p[1] - r2
    disc = b * b - a * c
    t_side = (-b - disc.clamp_min(0.0).sqrt()) / a
    z = p[2] + t_side * d[2]
    on_side = (disc >= 0) & (z.abs() <= half_length)
    # the hemisphere on the side where the ray meets (or passes) the infinite cylinder
    oz = p[2] - torch.where(z > 0, half_length, -half_length)
    dd = dot(d, d)
    bs = b + oz * d[2]
    ds = bs * bs - dd * (c + oz * oz)
    t_ball = (-bs - ds.clamp_min(0.0).sqrt()) / dd
    r = torch.where(on_side, t_side, torch.where((disc >= 0) & (ds >= 0), t_ball, torch.inf))
    return torch.where(t0 + r > T_MIN, t0 + r, torch.inf)


def normal_box(p: Vec) -> Vec:
    """Outward normal at a point on the cube."""
    ax, ay, az = p[0].abs(), p[1].abs(), p[2].abs()
    on_x = (ax >= ay) & (ax >= az)
    on_y = ~on_x & (ay >= az)
    zero = torch.zeros_like(p[0])
    return (
        torch.where(on_x, p[0].sign(), zero),
        torch.where(on_y, p[1].sign(), zero),
        torch.where(on_x | on_y, zero, p[2].sign()),
    )


def normal_revolution(p: Vec, q: Vec) -> Vec:
    """Outward normal (not of unit length) in unit space: of the side or, where nearer, of the end disc."""
    q0, q1, q2 = q
    side_error = (p[0] * p[0] + p[1] * p[1] - (q0 + p[2] * (q1 + q2 * p[2]))).abs()
    on_cap = (p[2].abs() - 1).abs() * 2 < side_error
    zero = torch.zeros_like(p[0])
    return (
        torch.where(on_cap, zero, p[0]),
        torch.where(on_cap, zero, p[1]),
        torch.where(on_cap, p[2].sign(), -(0.5 * q1 + q2 * p[2])),
    )


def normal_capsule(p: Vec, half_length: Tensor) -> Vec:
    """Outward normal (length = radius) of the capsule."""
    return p[0], p[1], p[2] - torch.maximum(torch.minimum(p[2], half_length), -half_length)
