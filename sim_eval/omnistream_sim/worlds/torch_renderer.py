# SPDX-License-Identifier: Apache-2.0
"""The renderer in plain torch, for any device: each operation over all frames, pixels and primitives of a kind at once.

On a GPU it never waits for the device; on a CPU the native renderer does the same arithmetic many times faster, and
this one is the reference that it is tested against.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import terrain
from .noise import mix32
from .quality import Job, Pictures
from .shading import MAX_LIGHTS, ambient_end, leave, light_end, picture
from .shapes import T_MIN, hit_box, hit_capsule, hit_revolution, hit_room
from .surfaces import GEOMETRY_COLUMNS, RECORD_COLUMNS, surface_at
from .tables import FRAME_AT, RECORD_AT, FrameTables
from .textures import albedo
from .vec import Vec, dot, stack, sub

Columns = dict[str, Tensor]


class TorchRenderer:
    """Renders the frames of tables in batches of rays."""

    def __call__(self, tables: FrameTables, job: Job) -> Pictures:
        """Pictures of all frames of the tables."""
        frame = {name: tables.frame[:, i, None] for name, i in FRAME_AT.items()}
        kinds = _Objects(tables)
        f, h, w = tables.frames, job.height, job.width
        depth = surface_map = normals = rgb = None
        offsets = job.quality.offsets()
        if job.depth or job.surface or job.normals or len(offsets) == 1:
            x, y = _rays(job, 0.0, 0.0)
            t, surface = kinds.nearest(frame, tables, x, y)
            if job.depth:
                depth = torch.where(torch.isfinite(t), t, torch.nan).reshape(f, h, w)
            if job.surface:
                surface_map = surface.to(torch.int32).reshape(f, h, w)
            if job.normals:
                normals = stack(self._hit(tables, frame, x, y, t, surface)[3]).reshape(f, h, w, 3)
        if job.rgb:
            total: Vec | None = None
            pixel = torch.arange(h * w, device=tables.frame.device, dtype=torch.int32)
            random = mix32(pixel + job.number[:, None] * 9973)
            for sample, (du, dv) in enumerate(offsets):
                if len(offsets) > 1:
                    x, y = _rays(job, du, dv)
                    t, surface = kinds.nearest(frame, tables, x, y)
                shown = self._colour(tables, frame, kinds, job, sample, x, y, t, surface, random)
                total = shown if total is None else (total[0] + shown[0], total[1] + shown[1], total[2] + shown[2])
            assert total is not None
            rgb = (stack(total) * (255.0 / len(offsets)) + 0.5).to(torch.uint8).reshape(f, h, w, 3)
        return Pictures(depth, surface_map, normals, rgb)

    @staticmethod
    def _hit(
        tables: FrameTables, frame: Columns, x: Tensor, y: Tensor, t: Tensor, surface: Tensor
    ) -> tuple[Tensor, Vec, Vec, Vec]:
        """Finite t, point and normal in the object, normal in the camera."""
        columns = _gather(tables, GEOMETRY_COLUMNS, surface)
        t = torch.where(torch.isfinite(t), t, 1.0)
        slope = (torch.zeros_like(t), torch.zeros_like(t), torch.ones_like(t))
        if tables.has_terrain:
            px, py = (
                t * (frame[f"w{i}0"] * x + frame[f"w{i}1"] * y + frame[f"w{i}2"]) + frame[f"w{i}3"] for i in (0, 1)
            )
            slope = terrain.slope(frame, px, py)
        return t, *surface_at(columns, x, y, t, slope)

    def _colour(
        self,
        tables: FrameTables,
        frame: Columns,
        kinds: _Objects,
        job: Job,
        sample: int,
        x: Tensor,
        y: Tensor,
        t: Tensor,
        surface: Tensor,
        random: Tensor,
    ) -> Vec:
        """Display colours in [0, 1] of the rays."""
        quality = job.quality
        t, local, face_normal, n = self._hit(tables, frame, x, y, t, surface)
        material = _gather(tables, RECORD_COLUMNS[len(GEOMETRY_COLUMNS) :], surface)
        facing = (n[0] * x + n[1] * y + n[2]).abs() * torch.rsqrt(x * x + y * y + 1)
        colour = albedo(material, local, face_normal, t * frame["pixel"] / facing.clamp_min(0.15), quality.octaves)
        start = leave((t * x, t * y, t), n)
        lit = [torch.ones_like(t) for _ in range(MAX_LIGHTS)]
        count = quality.samples * quality.shadow_rays
        for light in range(tables.n_light if quality.shadow_rays else 0):
            for i in range(quality.shadow_rays):
                end = light_end(frame, light, random, sample * quality.shadow_rays + i, count)
                lit[light] = lit[light] - kinds.blocked(start, end) / quality.shadow_rays
        closed = torch.zeros_like(t)
        for i in range(quality.ambient_rays):
            index, count = sample * quality.ambient_rays + i, quality.samples * quality.ambient_rays
            closed = closed + kinds.blocked(start, ambient_end(start, n, random, index, count)) / quality.ambient_rays
        hit = surface != tables.slots + 7
        return picture(frame, x, y, t, n, colour, material["gloss"], material["emission"], tuple(lit), closed, hit)


class _Objects:
    """The objects of all frames by kind, components [F, n, 1] against rays [F, 1, P]."""

    def __init__(self, tables: FrameTables) -> None:
        a, b, c = tables.n_box, tables.n_box + tables.n_revolution, tables.slots
        self._parts: list[tuple[str, int, Columns]] = []
        for kind, first, last in (("box", 0, a), ("revolution", a, b), ("capsule", b, c)):
            if last > first:
                block = tables.records[:, first:last]
                self._parts.append(
                    (kind, first, {name: block[:, :, RECORD_AT[name], None] for name in GEOMETRY_COLUMNS})
                )

    @staticmethod
    def _hit(kind: str, c: Columns, o: Vec, d: Vec) -> Tensor:
        if kind == "box":
            return hit_box(o, d)
        if kind == "revolution":
            return hit_revolution(o, d, (c["q0"], c["q1"], c["q2"]))
        return hit_capsule(o, d, c["q0"], c["length"])

    def nearest(self, frame: Columns, tables: FrameTables, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (inf: nothing) and row of the records (int64), [F, P]."""
        n = tables.slots
        ray = (x, y, torch.ones_like(x))
        d = tuple(dot((frame[f"r{i}0"], frame[f"r{i}1"], frame[f"r{i}2"]), ray) for i in range(3))
        t, face = hit_room((frame["r03"], frame["r13"], frame["r23"]), d)  # type: ignore[arg-type]
        solid = torch.gather(tables.solid, 1, face) > 0
        t = torch.where(solid, t, torch.inf)
        surface = torch.where(solid, n + face, n + 7)
        if tables.has_terrain:
            ground = terrain.hit(frame, x, y, t)
            surface = torch.where(ground < t, n + 6, surface)
            t = torch.minimum(t, ground)
        wide = (x[:, None], y[:, None], ray[2][:, None])
        for kind, first, c in self._parts:
            direction = tuple(dot((c[f"m{i}0"], c[f"m{i}1"], c[f"m{i}2"]), wide) for i in range(3))
            hits = self._hit(kind, c, (c["m03"], c["m13"], c["m23"]), direction)  # type: ignore[arg-type]
            t_kind, index = hits.min(1)
            nearer = t_kind < t
            t, surface = torch.where(nearer, t_kind, t), torch.where(nearer, index + first, surface)
        return t, surface

    def blocked(self, p: Vec, q: Vec) -> Tensor:
        """1.0 [F, P] where an object stands between p and q, else 0."""
        found = torch.zeros_like(p[0], dtype=torch.bool)
        for kind, _, c in self._parts:
            start, end = self._to_unit(c, p), self._to_unit(c, q)
            found = found | (self._hit(kind, c, start, sub(end, start)).amin(1) < 1 - T_MIN)
        return found.to(torch.float32)

    @staticmethod
    def _to_unit(c: Columns, a: Vec) -> Vec:
        wide = (a[0][:, None], a[1][:, None], a[2][:, None])
        x, y, z = (dot((c[f"m{i}0"], c[f"m{i}1"], c[f"m{i}2"]), wide) + c[f"m{i}3"] for i in range(3))
        return x, y, z


def _gather(tables: FrameTables, names: tuple[str, ...], surface: Tensor) -> Columns:
    """Columns of the records of the surfaces that the rays hit, each [F, P]."""
    return {name: torch.gather(tables.records[..., RECORD_AT[name]], 1, surface) for name in names}


def _rays(job: Job, du: float, dv: float) -> tuple[Tensor, Tensor]:
    """Ray directions x, y [F, H * W] through points beside the pixel centres."""
    device, (f, cu, cv) = job.lens.device, job.lens.unbind(1)
    u = torch.arange(job.width, device=device, dtype=torch.float32) + du
    v = torch.arange(job.height, device=device, dtype=torch.float32) + dv
    x = ((u - cu[:, None]) / f[:, None])[:, None].expand(-1, job.height, -1)
    y = ((v - cv[:, None]) / f[:, None])[:, :, None].expand(-1, -1, job.width)
    return x.flatten(1), y.flatten(1)
