# SPDX-License-Identifier: Apache-2.0
"""The renderer in plain torch, for any device: each operation over all frames, pixels and primitives of a kind at once.

On a GPU it never waits for the device; on a CPU the native renderer does the same arithmetic many times faster, and
this one is the reference that it is tested against.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from . import terrain
from .noise import mix32
from .quality import Job, Pictures, Quality
from .shading import MAX_LIGHTS, ambient_end, leave, light_end, picture
from .shapes import T_MIN, hit_box, hit_capsule, hit_revolution, hit_room
from .surfaces import GEOMETRY_COLUMNS, RECORD_COLUMNS, surface_at
from .tables import FRAME_AT, RECORD_AT, FrameTables
from .textures import albedo
from .vec import Vec, add, dot, stack, sub

Columns = dict[str, Tensor]


class TorchRenderer:
    """Renders the frames of tables, a bounded number of rays at a time."""

    def __init__(self, pairs_at_once: int | None = None) -> None:
        """pairs_at_once: rays times objects per operation; default: what fits a core's cache, or keeps a GPU busy."""
        self._pairs = pairs_at_once

    def __call__(self, tables: FrameTables, job: Job) -> Pictures:
        """Pictures of all frames of the tables."""
        limit = self._pairs or (1 << 19 if tables.frame.device.type == "cpu" else 1 << 28)
        rays = max(1, limit // max(tables.slots, 1))
        rows = max(1, min(job.height, rays // job.width))
        frames = max(1, rays // (job.height * job.width))
        parts = []
        for first in range(0, tables.frames, frames):
            last = min(first + frames, tables.frames)
            some, cut = tables.part(first, last), replace(job, lens=job.lens[first:last], number=job.number[first:last])
            bands = [self._band(some, cut, v, min(v + rows, job.height)) for v in range(0, job.height, rows)]
            parts.append({name: torch.cat([band[name] for band in bands], 1) for name in bands[0]})
        out = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return Pictures(**{field.name: out.get(field.name) for field in fields(Pictures)})

    def _band(self, tables: FrameTables, job: Job, top: int, bottom: int) -> dict[str, Tensor]:
        """The rows top .. bottom - 1 of all frames, [F, rows, W, ...]."""
        frame = {name: tables.frame[:, i, None] for name, i in FRAME_AT.items()}
        objects = _Objects(tables)
        out: dict[str, Tensor] = {}
        offsets = job.quality.offsets()
        if job.depth or job.surface or job.normals or len(offsets) == 1:
            x, y = _rays(job, top, bottom, 0.0, 0.0)
            t, surface = objects.nearest(frame, tables, x, y)
            if job.depth:
                out["depth"] = torch.where(torch.isfinite(t), t, torch.nan)
            if job.surface:
                out["surface"] = surface.to(torch.int32)
            if job.normals:
                out["normals"] = stack(self._hit(tables, frame, x, y, t, surface)[3])
        if job.rgb:
            total: Vec | None = None
            pixel = torch.arange(top * job.width, bottom * job.width, device=tables.frame.device, dtype=torch.int32)
            random = mix32(pixel + job.number[:, None] * 9973)
            for sample, (du, dv) in enumerate(offsets):
                if len(offsets) > 1:
                    x, y = _rays(job, top, bottom, du, dv)
                    t, surface = objects.nearest(frame, tables, x, y)
                shown = self._colour(tables, frame, objects, job.quality, sample, x, y, t, surface, random)
                total = shown if total is None else add(total, shown)
            assert total is not None
            out["rgb"] = (stack(total) * (255.0 / len(offsets)) + 0.5).to(torch.uint8)
        return {name: value.unflatten(1, (bottom - top, job.width)) for name, value in out.items()}

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
        objects: _Objects,
        quality: Quality,
        sample: int,
        x: Tensor,
        y: Tensor,
        t: Tensor,
        surface: Tensor,
        random: Tensor,
    ) -> Vec:
        """Display colours in [0, 1] of the rays."""
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
                lit[light] = lit[light] - objects.blocked(start, end) / quality.shadow_rays
        closed = torch.zeros_like(t)
        for i in range(quality.ambient_rays):
            index, count = sample * quality.ambient_rays + i, quality.samples * quality.ambient_rays
            closed = closed + objects.blocked(start, ambient_end(start, n, random, index, count)) / quality.ambient_rays
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


def _rays(job: Job, top: int, bottom: int, du: float, dv: float) -> tuple[Tensor, Tensor]:
    """Ray directions x, y [F, rows * W] through points beside the pixel centres of the rows top .. bottom - 1."""
    device, (f, cu, cv) = job.lens.device, job.lens.unbind(1)
    u = torch.arange(job.width, device=device, dtype=torch.float32) + du
    v = torch.arange(top, bottom, device=device, dtype=torch.float32) + dv
    x = ((u - cu[:, None]) / f[:, None])[:, None].expand(-1, bottom - top, -1)
    y = ((v - cv[:, None]) / f[:, None])[:, :, None].expand(-1, -1, job.width)
    return x.flatten(1), y.flatten(1)
