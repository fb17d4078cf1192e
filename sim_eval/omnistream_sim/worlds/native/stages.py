# SPDX-License-Identifier: Apache-2.0
"""The stages of the native renderer: which torch function runs in which loop, and what it reads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import terrain
from ..materials import MATERIAL_COLUMNS
from ..noise import mix32
from ..shading import FRAME_COLUMNS, MAX_LIGHTS, ambient_end, leave, light_end, picture
from ..shapes import T_MIN, hit_box, hit_capsule, hit_revolution, hit_room
from ..surfaces import GEOMETRY_COLUMNS, surface_at
from ..terrain import TERRAIN_COLUMNS
from ..textures import albedo
from ..vec import Vec, dot, sub
from .emit import Stage

Values = dict[str, Tensor]
_MAP = GEOMETRY_COLUMNS[:12]
_HIT = {
    "box": ((), lambda v, o, d: hit_box(o, d)),
    "revolution": (("q0", "q1", "q2"), lambda v, o, d: hit_revolution(o, d, (v["q0"], v["q1"], v["q2"]))),
    "capsule": (("q0", "length"), lambda v, o, d: hit_capsule(o, d, v["q0"], v["length"])),
}


def _vector(v: Values, name: str) -> Vec:
    return v[f"{name}0"], v[f"{name}1"], v[f"{name}2"]


def _three(name: str) -> tuple[str, str, str]:
    return f"{name}0", f"{name}1", f"{name}2"


def _named(name: str, a: Vec) -> Values:
    return dict(zip(_three(name), a, strict=True))


def _linear(v: Values, a: Vec, prefix: str = "m") -> Vec:
    x, y, z = (dot((v[f"{prefix}{i}0"], v[f"{prefix}{i}1"], v[f"{prefix}{i}2"]), a) for i in range(3))
    return x, y, z


def _affine(v: Values, a: Vec) -> Vec:
    x, y, z = _linear(v, a)
    return x + v["m03"], y + v["m13"], z + v["m23"]


def _see(kind: str) -> Stage:
    """Camera rays against one object: keeps the nearest."""
    columns, hit = _HIT[kind]

    def function(v: Values) -> Values:
        t = hit(v, (v["m03"], v["m13"], v["m23"]), _linear(v, (v["x"], v["y"], torch.ones_like(v["x"]))))
        nearer = t < v["t"]
        return {"t": torch.where(nearer, t, v["t"]), "surface": torch.where(nearer, v["slot"], v["surface"])}

    rays = ("x", "y", "t", "surface")
    return Stage(f"see_{kind}", function, rays=rays, thing=(*_MAP, *columns), arguments=("slot",))


def _block(kind: str) -> Stage:
    """Shadow segments start -> end against one object."""
    columns, hit = _HIT[kind]

    def function(v: Values) -> Values:
        start = _affine(v, _vector(v, "start"))
        t = hit(v, start, sub(_affine(v, _vector(v, "end")), start))
        return {"hidden": torch.where(t < 1 - T_MIN, 1.0, v["hidden"])}

    rays = (*_three("start"), *_three("end"), "hidden")
    return Stage(f"block_{kind}", function, rays=rays, thing=(*_MAP, *columns))


def _room(v: Values) -> Values:
    origin = (v["r03"], v["r13"], v["r23"])
    t, face = hit_room(origin, _linear(v, (v["x"], v["y"], torch.ones_like(v["x"])), "r"))
    return {"t": t, "face": face.to(torch.int32)}


_MARCH = ("begin", "leave", "near", "low", "high")


def _march_start(v: Values) -> Values:
    return asdict_shallow(terrain.start(v, v["x"], v["y"], v["t"]))


def _march_step(v: Values) -> Values:
    return asdict_shallow(terrain.step(v, v["x"], v["y"], terrain.March(*(v[n] for n in _MARCH)), v["fraction"]))


def _march_refine(v: Values) -> Values:
    return asdict_shallow(terrain.refine(v, v["x"], v["y"], terrain.March(*(v[n] for n in _MARCH))))


def _march_finish(v: Values) -> Values:
    t = terrain.finish(terrain.March(*(v[n] for n in _MARCH)))
    nearer = t < v["t"]
    return {"t": torch.where(nearer, t, v["t"]), "surface": torch.where(nearer, v["slot"], v["surface"])}


def asdict_shallow(march: terrain.March) -> Values:
    """The state of the march by name."""
    return {name: getattr(march, name) for name in _MARCH}


def _surface(v: Values) -> Values:
    local, local_normal, n = surface_at(v, v["x"], v["y"], v["t"], _vector(v, "slope"))
    p = (v["t"] * v["x"], v["t"] * v["y"], v["t"])
    return {
        **_named("local", local),
        **_named("face_normal", local_normal),
        **_named("n", n),
        **_named("p", p),
        **_named("start", leave(p, n)),
    }


def _texture(octaves: int) -> Callable[[Values], Values]:
    def function(v: Values) -> Values:
        n = _vector(v, "n")
        facing = (n[0] * v["x"] + n[1] * v["y"] + n[2]).abs() * torch.rsqrt(v["x"] * v["x"] + v["y"] * v["y"] + 1)
        footprint = v["t"] * v["pixel"] / facing.clamp_min(0.15)
        return _named("colour", albedo(v, _vector(v, "local"), _vector(v, "face_normal"), footprint, octaves))

    return function


def _light_end(light: int) -> Stage:
    def function(v: Values) -> Values:
        return _named("end", light_end(v, light, v["hash"], v["index"], v["count"]))

    columns = [c for c in FRAME_COLUMNS if c in (*_three(f"light{light}"), f"radius{light}")]
    return Stage(f"end_at_light{light}", function, rays=("hash",), frame=columns, arguments=("index", "count"))


def _ambient_end(v: Values) -> Values:
    return _named("end", ambient_end(_vector(v, "start"), _vector(v, "n"), v["hash"], v["index"], v["count"]))


def _picture(v: Values) -> Values:
    lit = tuple(v[f"lit{i}"] for i in range(MAX_LIGHTS))
    colour = picture(
        v,
        v["x"],
        v["y"],
        v["t"],
        _vector(v, "n"),
        _vector(v, "colour"),
        v["gloss"],
        v["emission"],
        lit,
        v["closed"],
        v["kind"] != 4,
    )
    return _named("shown", colour)


def _slope(v: Values) -> Values:
    """World slope of the terrain at the hits."""
    x, y, _ = _linear(v, (v["t"] * v["x"], v["t"] * v["y"], v["t"]), "w")
    return _named("slope", terrain.slope(v, x + v["w03"], y + v["w13"]))


def stages(octaves: int) -> list[Stage]:
    """All stages; `octaves` of texture noise are unrolled."""
    light_rays = tuple(f"lit{i}" for i in range(MAX_LIGHTS))
    return [
        *(_see(kind) for kind in _HIT),
        *(_block(kind) for kind in _HIT),
        Stage("see_room", _room, rays=("x", "y"), frame=[c for c in FRAME_COLUMNS if c[0] == "r" and c[1:].isdigit()]),
        Stage("march_start", _march_start, rays=("x", "y", "t"), frame=TERRAIN_COLUMNS),
        Stage("march_step", _march_step, rays=("x", "y", *_MARCH), frame=TERRAIN_COLUMNS, arguments=("fraction",)),
        Stage("march_refine", _march_refine, rays=("x", "y", *_MARCH), frame=TERRAIN_COLUMNS),
        Stage("march_finish", _march_finish, rays=(*_MARCH, "t", "surface"), arguments=("slot",)),
        Stage("slope_of", _slope, rays=("x", "y", "t"), frame=TERRAIN_COLUMNS),
        Stage("surface_of", _surface, rays=("x", "y", "t", "surface", *_three("slope")), record=GEOMETRY_COLUMNS),
        Stage(
            "texture_of",
            _texture(octaves),
            rays=("x", "y", "t", *_three("local"), *_three("face_normal"), *_three("n")),
            record=[c for c in MATERIAL_COLUMNS if c not in ("gloss", "emission")],
            frame=("pixel",),
        ),
        *(_light_end(light) for light in range(MAX_LIGHTS)),
        Stage(
            "end_ambient",
            _ambient_end,
            rays=(*_three("start"), *_three("n"), "hash"),
            arguments=("index", "count"),
        ),
        Stage(
            "picture_of",
            _picture,
            rays=("x", "y", "t", *_three("n"), *_three("colour"), "closed", *light_rays),
            record=("kind", "gloss", "emission"),
            frame=FRAME_COLUMNS,
        ),
        Stage("scramble", lambda v: {"hash": mix32(v["hash"])}, rays=("hash",)),
    ]
