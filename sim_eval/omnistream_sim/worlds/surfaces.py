# SPDX-License-Identifier: Apache-2.0
"""What a ray has hit: point and normal, from the numbers of one surface.

A *record* is one row of numbers per surface and frame: the map from the camera into the unit space of the surface,
its sizes, its kind and its material. Both renderers gather the record of the surface that a ray has hit and go on
from there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .materials import MATERIAL_COLUMNS
from .shapes import normal_box, normal_capsule, normal_revolution
from .vec import Vec, choose, dot, mul, normalise, scale

KINDS = ("box", "revolution", "capsule", "terrain", "nothing")
"""Names of the kinds in the column `kind`; the faces of the room count as boxes."""

GEOMETRY_COLUMNS = (
    "m00", "m01", "m02", "m03", "m10", "m11", "m12", "m13", "m20", "m21", "m22", "m23",  # camera -> unit space
    "h0", "h1", "h2",  # metres per unit
    "q0", "q1", "q2",  # profile of a surface of revolution; q0: radius of a capsule
    "length",  # half length of a capsule
    "kind",
)  # fmt: skip
RECORD_COLUMNS = GEOMETRY_COLUMNS + MATERIAL_COLUMNS
Columns = dict[str, Tensor]


def row_vectors(c: Columns) -> tuple[Vec, Vec, Vec]:
    """The three rows of the linear part of the map."""
    return (c["m00"], c["m01"], c["m02"]), (c["m10"], c["m11"], c["m12"]), (c["m20"], c["m21"], c["m22"])


def surface_at(c: Columns, x: Tensor, y: Tensor, t: Tensor, slope: Vec) -> tuple[Vec, Vec, Vec]:
    """Of the hit at depth t on the ray (x, y, 1): the point in the frame of the object (metres), the unit normal
    there, and the unit normal in the camera frame, turned towards the camera.

    c: geometry columns of the surface; slope: upward normal of the terrain there (used where kind is terrain). All of
    the same shape. Where kind is nothing, the normals are zero.
    """
    rows = row_vectors(c)
    at = (t * x, t * y, t)
    p = dot(rows[0], at) + c["m03"], dot(rows[1], at) + c["m13"], dot(rows[2], at) + c["m23"]
    normal = choose(c["kind"] == 1, normal_revolution(p, (c["q0"], c["q1"], c["q2"])), normal_box(p))
    normal = choose(c["kind"] == 2, normal_capsule(p, c["length"]), normal)
    normal = choose(c["kind"] == 3, slope, normal)
    seen = normalise(
        (
            rows[0][0] * normal[0] + rows[1][0] * normal[1] + rows[2][0] * normal[2],
            rows[0][1] * normal[0] + rows[1][1] * normal[1] + rows[2][1] * normal[2],
            rows[0][2] * normal[0] + rows[1][2] * normal[1] + rows[2][2] * normal[2],
        )
    )
    away = seen[0] * x + seen[1] * y + seen[2] > 0
    seen = scale(seen, torch.where(away, -1.0, 1.0))
    half = (c["h0"], c["h1"], c["h2"])
    local = normalise((normal[0] / half[0], normal[1] / half[1], normal[2] / half[2]))
    return mul(p, half), local, seen
