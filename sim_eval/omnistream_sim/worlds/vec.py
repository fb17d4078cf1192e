# SPDX-License-Identifier: Apache-2.0
"""Three-vectors as tuples of component tensors.

Every per-ray quantity of the ray caster is a `Vec`: three tensors of equal (or broadcastable) shape. Components stay
separate because that is what vector units and fused kernels want: no stride of three, no stacking, no reductions.
"""

from __future__ import annotations

import torch
from torch import Tensor

Vec = tuple[Tensor, Tensor, Tensor]


def dot(a: Vec, b: Vec) -> Tensor:
    """Inner product, shape of the broadcast components."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def add(a: Vec, b: Vec) -> Vec:
    """a + b."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def sub(a: Vec, b: Vec) -> Vec:
    """a - b."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def mul(a: Vec, b: Vec) -> Vec:
    """Component-wise product (colours, scales)."""
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


def scale(a: Vec, s: Tensor | float) -> Vec:
    """a * s."""
    return a[0] * s, a[1] * s, a[2] * s


def along(origin: Vec, direction: Vec, t: Tensor) -> Vec:
    """The point origin + t * direction."""
    return origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2]


def mix(a: Vec, b: Vec, w: Tensor) -> Vec:
    """Linear blend, a where w = 0 and b where w = 1."""
    return a[0] + (b[0] - a[0]) * w, a[1] + (b[1] - a[1]) * w, a[2] + (b[2] - a[2]) * w


def choose(condition: Tensor, a: Vec, b: Vec) -> Vec:
    """a where the condition holds, else b."""
    return torch.where(condition, a[0], b[0]), torch.where(condition, a[1], b[1]), torch.where(condition, a[2], b[2])


def normalise(a: Vec) -> Vec:
    """Unit vector; the zero vector stays zero."""
    return scale(a, torch.rsqrt(dot(a, a).clamp_min(1e-24)))


def rows(m: Tensor) -> tuple[Vec, Vec, Vec]:
    """Rows of matrices given with the two matrix axes first, [3, 3 or 4, ...]."""
    return (m[0, 0], m[0, 1], m[0, 2]), (m[1, 0], m[1, 1], m[1, 2]), (m[2, 0], m[2, 1], m[2, 2])


def rotate(m: Tensor, a: Vec) -> Vec:
    """m @ a for m [3, 3 or 4, ...]; a fourth column is ignored."""
    r = rows(m)
    return dot(r[0], a), dot(r[1], a), dot(r[2], a)


def rotate_transposed(m: Tensor, a: Vec) -> Vec:
    """m^T @ a for m [3, 3 or 4, ...]."""
    r = rows(m)
    return (
        r[0][0] * a[0] + r[1][0] * a[1] + r[2][0] * a[2],
        r[0][1] * a[0] + r[1][1] * a[1] + r[2][1] * a[2],
        r[0][2] * a[0] + r[1][2] * a[1] + r[2][2] * a[2],
    )


def transform(m: Tensor, a: Vec) -> Vec:
    """m[:, :3] @ a + m[:, 3] for m [3, 4, ...]."""
    x, y, z = rotate(m, a)
    return x + m[0, 3], y + m[1, 3], z + m[2, 3]


def stack(a: Vec) -> Tensor:
    """[..., 3] from the components."""
    return torch.stack(torch.broadcast_tensors(*a), dim=-1)
