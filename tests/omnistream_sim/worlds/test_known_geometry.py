# SPDX-License-Identifier: Apache-2.0
"""Depth and normals of every primitive, against what geometry says: closed forms, and the definition of "first hit"."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnistream_sim.worlds import Clip, Material, SceneBuilder, look_at, render
from omnistream_sim.worlds.builder import euler
from omnistream_sim.worlds.scene import Terrain
from omnistream_sim.worlds.terrain import WAVES

SIZE = (48, 64)
GREY = Material(colour="grey")
CENTRE = np.array([0.1, -0.05, 1.05])
Inside = Callable[[NDArray[np.float64]], NDArray[np.bool_]]


def _room() -> SceneBuilder:
    return SceneBuilder(room_min=(-4, -3, 0), room_max=(3.5, 3, 2.5))


def _look(room: SceneBuilder, camera: Tensor, backend: str, want: tuple[str, ...] = ("depth", "ids")) -> Clip:
    return render(room.build(camera, focal=0.9), SIZE, frames=1, want=want, backend=backend)


def _rays(clip: Clip) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Origin [3] and direction [H, W, 3] of the rays in the world, in float64; the parameter is the z-depth."""
    k, pose = clip.K[0].double().numpy(), clip.T_world_camera[0, 0].double().numpy()
    v, u = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    d = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones(SIZE)], -1)
    return pose[:3, 3], d @ pose[:3, :3].T


# inside(p) of every shape in its own frame, written from its definition
def _ball(r: float) -> Inside:
    return lambda p: (p**2).sum(-1) < r * r


def _cuboid(half: tuple[float, float, float]) -> Inside:
    return lambda p: (np.abs(p) < half).all(-1)


def _tube(radius: Callable[[NDArray[np.float64]], NDArray[np.float64]], h: float) -> Inside:
    return lambda p: (np.abs(p[..., 2]) < h) & (np.hypot(p[..., 0], p[..., 1]) < radius(p[..., 2]))


def _pill(r: float, h: float) -> Inside:
    def inside(p: NDArray[np.float64]) -> NDArray[np.bool_]:
        axis = np.clip(p[..., 2], -h, h)
        return p[..., 0] ** 2 + p[..., 1] ** 2 + (p[..., 2] - axis) ** 2 < r * r

    return inside


SHAPES: dict[str, tuple[Callable[[SceneBuilder, tuple[float, float, float]], int], Inside]] = {
    "box": (lambda s, turn: s.box(CENTRE, (0.4, 0.25, 0.3), GREY, turn=turn), _cuboid((0.4, 0.25, 0.3))),
    "sphere": (lambda s, turn: s.revolution("sphere", CENTRE, (0.4, 0.4, 0.4), GREY, turn=turn), _ball(0.4)),
    "ellipsoid": (
        lambda s, turn: s.revolution("sphere", CENTRE, (0.5, 0.3, 0.2), GREY, turn=turn),
        lambda p: ((p / (0.5, 0.3, 0.2)) ** 2).sum(-1) < 1,
    ),
    "cylinder": (
        lambda s, turn: s.revolution("cylinder", CENTRE, (0.3, 0.3, 0.4), GREY, turn=turn),
        _tube(lambda z: 0.3 + 0 * z, 0.4),
    ),
    "cone": (
        lambda s, turn: s.revolution("cone", CENTRE, (0.35, 0.35, 0.4), GREY, turn=turn),
        _tube(lambda z: 0.35 * (1 - z / 0.4) / 2, 0.4),
    ),
    "frustum": (
        lambda s, turn: s.revolution("frustum", CENTRE, (0.4, 0.4, 0.3), GREY, turn=turn),
        _tube(lambda z: 0.4 * (0.8 - 0.2 * z / 0.3), 0.3),
    ),
    "hourglass": (
        lambda s, turn: s.revolution("hourglass", CENTRE, (0.4, 0.4, 0.5), GREY, turn=turn),
        _tube(lambda z: 0.4 * np.sqrt(0.3 + 0.7 * (z / 0.5) ** 2), 0.5),
    ),
    "capsule": (lambda s, turn: s.capsule(CENTRE, 0.2, 0.35, GREY, turn=turn), _pill(0.2, 0.35)),
}


@pytest.mark.parametrize("turn", [(0, 0, 0), (35, -50, 110)])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_depth_is_the_first_point_inside_the_shape(
    shape: str, turn: tuple[float, float, float], camera: Tensor, backend: str
) -> None:
    put, inside = SHAPES[shape]
    room = _room()
    object_id = put(room, turn)
    clip = _look(room, camera, backend)
    assert clip.depth is not None and clip.ids is not None
    origin, direction = _rays(clip)
    depth, hit = clip.depth[0, 0].double().numpy(), clip.ids[0, 0].numpy() == object_id
    assert 0.01 < hit.mean() < 0.6
    rotation = euler(turn).double().numpy()

    def at(t: NDArray[np.float64]) -> NDArray[np.bool_]:
        return inside((origin + t[..., None] * direction - CENTRE) @ rotation)

    step = np.linspace(0, 1, 400)[:, None, None]
    tolerance = 2e-4
    assert not at(step * (depth - tolerance)).any(), "a point before the hit is inside"
    # just behind the hit: grazing rays leave at once, so a few may not be inside
    assert at(depth + tolerance)[hit].mean() > 0.97
    assert not at(step * 6)[:, ~hit].any(), "a ray that missed goes through the shape"


def test_the_centre_of_a_ball_is_one_radius_nearer(backend: str) -> None:
    camera = torch.eye(4).expand(2, 4, 4)
    room = SceneBuilder(room_min=(-3, -3, -3), room_max=(3, 3, 9))
    room.revolution("sphere", (0, 0, 4), (0.5, 0.5, 0.5), GREY)
    clip = render(room.build(camera, focal=1.0), (33, 33), frames=1, want=("depth",), backend=backend)
    assert clip.depth is not None
    assert clip.depth[0, 0, 16, 16] == pytest.approx(3.5, abs=1e-5)
    assert clip.depth[0, 0, 0, 0] == pytest.approx(3 / (16 / 33), abs=1e-5)  # the wall at x = -3


def test_walls_floor_and_ceiling_are_planes(camera: Tensor, backend: str) -> None:
    clip = _look(_room(), camera, backend)
    assert clip.depth is not None and clip.ids is not None
    origin, direction = _rays(clip)
    planes = {1: (0, -4.0), 2: (0, 3.5), 3: (1, -3.0), 4: (1, 3.0), 5: (2, 0.0), 6: (2, 2.5)}
    ids, depth = clip.ids[0, 0].numpy(), clip.depth[0, 0].numpy()
    assert len(np.unique(ids)) >= 4
    for number, (axis, place) in planes.items():
        expected = (place - origin[axis]) / direction[..., axis]
        assert depth[ids == number] == pytest.approx(expected[ids == number], rel=2e-5)


def test_a_far_away_ball_keeps_its_precision(backend: str) -> None:
    """Naive quadratics lose all digits at 1,000 radii."""
    camera = torch.eye(4).expand(2, 4, 4)
    room = SceneBuilder(room_min=(-500, -500, -500), room_max=(500, 500, 500))
    room.revolution("sphere", (0, 0, 100), (0.1, 0.1, 0.1), GREY)
    room.capsule((10 / (40 * 65) * 100, 0, 100), 0.1, 0.1, GREY)  # seen at pixel 42, end on
    scenes = room.build(camera, focal=40.0)
    clip = render(scenes, (65, 65), frames=1, want=("depth",), backend=backend)
    assert clip.depth is not None
    assert clip.depth[0, 0, 32, 32] == pytest.approx(99.9, abs=1e-4)
    assert clip.depth[0, 0, 32, 42] == pytest.approx(99.8, abs=2e-4)


def test_open_sky_is_nan_and_id_zero(camera: Tensor, backend: str) -> None:
    room = _room()
    room.sky = ("ceiling", "far wall", "right wall", "left wall", "near wall")
    clip = _look(room, camera, backend, ("depth", "ids", "normals", "rgb"))
    assert clip.depth is not None and clip.ids is not None and clip.normals is not None and clip.rgb is not None
    sky = clip.ids[0, 0] == 0
    assert 0.1 < sky.float().mean() < 0.9
    assert torch.equal(torch.isnan(clip.depth[0, 0]), sky)
    assert (clip.normals[0, 0][sky] == 0).all()
    assert clip.rgb[0, 0][sky].float().mean() > 20  # it is not black


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_are_those_of_the_depth(shape: str, camera: Tensor, backend: str) -> None:
    """Unit, towards the camera, and at right angles to the surface that neighbouring pixels see."""
    room = _room()
    object_id = SHAPES[shape][0](room, (20, 15, 40))
    scenes = room.build(camera, focal=0.9)
    clip = render(scenes, (192, 256), frames=1, want=("depth", "ids", "normals"), backend=backend)
    assert clip.depth is not None and clip.ids is not None and clip.normals is not None
    z, n, ids = clip.depth[0, 0].double(), clip.normals[0, 0].double(), clip.ids[0, 0]
    assert n.norm(dim=-1) == pytest.approx(1.0, abs=1e-4)
    k = clip.K[0].double()
    v, u = torch.meshgrid(torch.arange(192.0), torch.arange(256.0), indexing="ij")
    p = torch.stack([(u - k[0, 2]) / k[0, 0] * z, (v - k[1, 2]) / k[1, 1] * z, z], -1)
    assert ((n * p).sum(-1) <= 1e-6).all()
    across, down = p[1:-1, 2:] - p[1:-1, :-2], p[2:, 1:-1] - p[:-2, 1:-1]
    measured = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    agree = (measured * n[1:-1, 1:-1]).sum(-1)
    for number in (object_id, 5):
        inner = _eroded(ids == number)[1:-1, 1:-1]
        assert inner.sum() > 20
        assert torch.quantile(agree[inner], 0.1) > 0.99  # edges between faces are the rest


def _eroded(mask: Tensor) -> Tensor:
    away = torch.nn.functional.max_pool2d((~mask)[None, None].float(), 5, 1, 2)[0, 0]
    return away == 0


def test_terrain_is_where_its_formula_says(backend: str) -> None:
    generator = torch.Generator().manual_seed(3)
    terrain = Terrain(
        base=torch.tensor([0.2]),
        amplitude=torch.tensor([[0.3, 0.2, 0.1, 0.05, 0.05]]),
        wave=torch.randn(1, WAVES, 2, generator=generator),
        phase=torch.rand(1, WAVES, generator=generator) * 2 * math.pi,
    )
    camera = look_at(torch.tensor([[0.0, 0.0, 2.5]]).expand(2, 3), torch.tensor([6.0, 2.0, 0.0]))
    room = SceneBuilder(room_min=(-100, -100, -20), room_max=(100, 100, 100))
    room.sky = ("left wall", "right wall", "near wall", "far wall", "floor", "ceiling")
    scenes = room.build(camera, focal=0.8, terrain=terrain)
    clip = render(scenes, SIZE, frames=1, want=("depth", "normals"), backend=backend)
    assert clip.depth is not None and clip.normals is not None
    origin, direction = _rays(clip)
    depth = clip.depth[0, 0].double().numpy()
    seen = np.isfinite(depth) & (depth < 30)
    assert seen.mean() > 0.3

    def height(p: NDArray[np.float64]) -> NDArray[np.float64]:
        wave = np.sin(p[..., :2] @ terrain.wave[0].double().numpy().T + terrain.phase[0].double().numpy())
        return 0.2 + (terrain.amplitude[0].double().numpy() * wave).sum(-1)

    points = origin + depth[..., None] * direction
    assert points[seen][:, 2] == pytest.approx(height(points[seen]), abs=2e-3)
    before = origin + depth[None, ..., None] * np.linspace(0, 0.995, 300)[:, None, None, None] * direction
    above = before[..., 2] - height(before)
    assert (above[:, seen] > -1e-3).all(0).mean() > 0.97  # grazed crests may be stepped over
