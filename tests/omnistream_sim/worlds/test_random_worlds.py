# SPDX-License-Identifier: Apache-2.0
"""Random worlds: reproducible, all different, with a camera that is where a camera can be."""

from __future__ import annotations

import math

import pytest
import torch

from omnistream_sim.worlds import WorldConfig, Worlds, WorldStream, clip_seed, sample_scenes
from omnistream_sim.worlds.config import FAMILIES
from omnistream_sim.worlds.draw import Draw
from omnistream_sim.worlds.layout import CAPSULES, N_CAPSULE, SLOTS, extent
from omnistream_sim.worlds.paths import clearance, path_length
from omnistream_sim.worlds.sample import family_of, ground_height
from omnistream_sim.worlds.scene import object_poses

SEEDS = [clip_seed(11, n) for n in range(96)]


def test_a_clip_is_its_seed_whatever_batch_it_is_in() -> None:
    worlds = Worlds()
    together = worlds.clips(SEEDS[:8], frames=3, size=(32, 32), rate=10.0)
    again = worlds.clips(SEEDS[:8], frames=3, size=(32, 32), rate=10.0)
    assert together.rgb is not None and again.rgb is not None and together.depth is not None
    assert torch.equal(together.rgb, again.rgb)
    for i in (6, 1):
        alone = worlds.clips([SEEDS[i]], frames=3, size=(32, 32), rate=10.0)
        assert alone.rgb is not None and alone.depth is not None
        assert torch.equal(alone.rgb[0], together.rgb[i])
        assert torch.equal(alone.depth[0].nan_to_num(-1), together.depth[i].nan_to_num(-1))
        assert torch.equal(alone.T_world_camera[0], together.T_world_camera[i])


def test_different_seeds_are_different_worlds() -> None:
    clip = Worlds().clips(SEEDS[:24], frames=1, size=(24, 24), rate=10.0)
    assert clip.rgb is not None
    flat = clip.rgb.flatten(1).float()
    distance = torch.cdist(flat, flat) / math.sqrt(flat.shape[1]) + 1e6 * torch.eye(24)
    assert distance.min() > 5  # grey levels, root mean square


def test_streams_go_on_where_they_stopped() -> None:
    first = WorldStream(seed=3, batch=2, frames=2, size=(16, 16))
    _, second = next(first), next(first)
    assert first.position == 4
    resumed = next(WorldStream(seed=3, batch=2, frames=2, size=(16, 16), start=2))
    other = next(WorldStream(seed=4, batch=2, frames=2, size=(16, 16), start=2))
    assert second.rgb is not None and resumed.rgb is not None and other.rgb is not None
    assert torch.equal(second.rgb, resumed.rgb)
    assert not torch.equal(second.rgb, other.rgb)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_camera_is_never_inside_anything(family: str) -> None:
    config = WorldConfig(**{name: float(name == family) for name in FAMILIES})
    scenes = sample_scenes(config, SEEDS[:32], frames=48, rate=30.0)
    rotation, centre = object_poses(scenes, scenes.stamps)
    tubes = SLOTS - N_CAPSULE
    bound = torch.cat([scenes.half[:, :tubes], extent(scenes.half[:, tubes:], CAPSULES)], 1)
    eye = scenes.T_world_camera[:, :, :3, 3]
    distance = clearance(eye[:, None], rotation, centre, bound)[:, 0]
    distance[~scenes.active[:, None].expand_as(distance)] = torch.inf
    assert distance.min() > 0.07  # metres
    inside = (eye - scenes.room_centre[:, None]).abs() < scenes.room_half[:, None] - 0.05
    assert inside.all()
    hilly = torch.tensor(scenes.has_terrain)
    if hilly.any():
        assert scenes.terrain is not None
        assert ((eye[..., 2] - ground_height(scenes.terrain, eye[..., :2]))[hilly] > 0.2).all()
    assert scenes.active.sum(1).float().mean() > 5  # and things are left to see


def test_poses_are_rigid_and_the_path_has_parallax() -> None:
    scenes = sample_scenes(WorldConfig(), SEEDS, frames=64, rate=30.0)
    r = scenes.T_world_camera[..., :3, :3]
    assert (r.transpose(-1, -2) @ r - torch.eye(3)).abs().max() < 1e-5
    assert torch.linalg.det(r).min() > 0.999
    length = path_length(scenes.T_world_camera[:, :-1])
    assert length.min() > 0.1 and length.median() > 0.8
    steps = (scenes.T_world_camera[:, 1:, :3, 3] - scenes.T_world_camera[:, :-1, :3, 3]).norm(dim=-1)
    jerk = (steps[:, 1:] - steps[:, :-1]).abs().amax(1) / steps.mean(1)
    assert jerk.quantile(0.95) < 0.5, "a step of the path is much longer than the one before"


def test_min_path_is_kept() -> None:
    scenes = sample_scenes(WorldConfig(min_path=1.0), SEEDS, frames=64, rate=30.0)
    assert path_length(scenes.T_world_camera[:, :-1]).min() >= 1.0


def test_lenses_have_the_field_of_view_that_was_asked_for() -> None:
    clip = Worlds(WorldConfig(min_fov=50, max_fov=70)).clips(SEEDS[:64], frames=1, size=(48, 64), rate=10.0, want=())
    fov = torch.rad2deg(2 * torch.atan(32 / clip.K[:, 0, 0]))
    assert 50 <= fov.min() < 53 and 67 < fov.max() <= 70
    assert torch.equal(clip.K[:, 0, 0], clip.K[:, 1, 1])
    assert (clip.K[:, 0, 2] - 31.5).abs().max() < 0.02 * 64 and (clip.K[:, 1, 2] - 23.5).abs().max() < 0.02 * 64


def test_families_come_in_the_shares_that_were_asked_for() -> None:
    config = WorldConfig(tabletop=1, room=1, clutter=0, outdoor=2, hills=0.25)
    drawn = [family_of(config, clip_seed(0, n)) for n in range(4000)]
    shares = {name: sum(kind == name for kind, _ in drawn) / 4000 for name in FAMILIES}
    assert shares == pytest.approx({"tabletop": 0.25, "room": 0.25, "clutter": 0, "outdoor": 0.5}, abs=0.03)
    assert sum(hilly for _, hilly in drawn) / 4000 == pytest.approx(0.125, abs=0.02)


def test_draws_are_even_and_independent() -> None:
    draw = Draw(range(64))
    u = draw.uniform(3000)
    assert u.min() >= 0 and u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=0.005) and u.var() == pytest.approx(1 / 12, abs=0.002)
    assert torch.corrcoef(u)[~torch.eye(64, dtype=torch.bool)].abs().max() < 0.1
    assert torch.corrcoef(torch.stack([u[:, :-1].flatten(), u[:, 1:].flatten()]))[0, 1].abs() < 0.01
    counts = Draw([5]).choice((1.0, 0.0, 3.0), 4000)[0].bincount(minlength=3)
    assert counts[1] == 0 and counts[2] / 4000 == pytest.approx(0.75, abs=0.03)
    assert sorted(Draw([9]).permutation(20)[0].tolist()) == list(range(20))


def test_the_text_names_what_the_ids_show() -> None:
    clip = Worlds().clips(SEEDS[:16], frames=2, size=(64, 64), rate=10.0, want=("ids", "text"))
    assert clip.ids is not None and len(clip.text) == 16
    for b, text in enumerate(clip.text):
        values, counts = clip.ids[b, 0].unique(return_counts=True)
        seen = {int(v) for v, c in zip(values, counts, strict=True) if c > 8 and v > 0}
        for number in seen:
            assert clip.names[b][number].split()[-1] in text  # the noun, perhaps in the plural
        unseen = {clip.names[b][i] for i in clip.names[b] if i not in set(values.tolist())}
        shown = {clip.names[b][i] for i in set(values.tolist()) if i}
        first = text.split(". ")[0] + "."
        for name in unseen - shown:
            assert f"a {name}," not in first and f"a {name}." not in first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_fov": 5.0}, "min_fov"),
        ({"moving": 1.5}, "moving is 1.5"),
        ({"quality": "best"}, "quality is 'best'"),
        ({"tabletop": 0.0, "room": 0.0, "clutter": 0.0, "outdoor": 0.0}, "family weights"),
        ({"speed": 0.0}, "speed"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorldConfig(**change)  # type: ignore[arg-type]


def test_options_can_be_text() -> None:
    assert WorldConfig.from_options({"tabletop": "1", "quality": "soft"}) == WorldConfig(tabletop=1.0, quality="soft")
    with pytest.raises(ValueError, match="unknown option 'table'"):
        WorldConfig.from_options({"table": 1})
    with pytest.raises(ValueError, match="speed is 'fast'; expected a float"):
        WorldConfig.from_options({"speed": "fast"})


def test_bad_requests_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        sample_scenes(WorldConfig(), [-1], frames=2)
    with pytest.raises(ValueError, match="0 frames"):
        sample_scenes(WorldConfig(), [1], frames=0)
    with pytest.raises(ValueError, match="want has \\['deph'\\]"):
        Worlds().clips([1], frames=1, size=(8, 8), rate=1.0, want=("deph",))
