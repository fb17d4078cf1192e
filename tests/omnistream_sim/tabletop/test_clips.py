# SPDX-License-Identifier: Apache-2.0
"""The free-flying camera: exact geometry, clips that belong to their seed, a data set that everything here reads."""

from __future__ import annotations

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from omnistream.io import open_source
from omnistream_sim import cli
from omnistream_sim.dataset import clip_folder, generate, read_shard
from omnistream_sim.tabletop import physics
from omnistream_sim.tabletop.camera import intrinsics, look_at, render
from omnistream_sim.tabletop.clips import Tabletop, open_clips
from omnistream_sim.tabletop.config import TabletopConfig
from omnistream_sim.tabletop.dataset import TabletopDataset
from omnistream_sim.tabletop.layout import BLOCK_SIZE, Layout
from omnistream_sim.tabletop.physics import Client
from omnistream_sim.tabletop.scene import Scene
from omnistream_sim.worlds import Clip

SIZE = (48, 64)


def clips(seeds: list[int], frames: int = 3, **options: object) -> Clip:
    renderer = open_clips(**options)
    try:
        return renderer.clips(seeds, frames=frames, size=SIZE, rate=30.0, want=("rgb", "depth", "text"))
    finally:
        renderer.close()


@pytest.mark.parametrize(("u0", "v0"), [(31.5, 23.5), (20.0, 30.0)])
def test_depth_is_that_of_the_rays_of_K(u0: float, v0: float) -> None:
    scene = Scene(Client(), Layout(), arm=False)
    K = intrinsics(SIZE, 50.0)
    K[:2, 2] = u0, v0
    pose = look_at(np.array([-0.6, -0.5, 0.7]), np.array([0.1, -0.3, 0.0]), 0.4)
    _, depth = scene.render(pose, K, SIZE)
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    rays = np.stack([(u - u0) / K[0, 0], (v - v0) / K[1, 1], np.ones_like(u, float)], -1)
    world = (rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
    on_table = (world[..., 0] > -0.28) & (world[..., 0] < 0.2) & (np.abs(world[..., 1]) < 0.58) & (world[..., 2] > -0.1)
    assert on_table.mean() > 0.2
    assert np.abs(world[on_table][:, 2]).max() < 3e-4


def test_a_block_is_seen_where_it_is() -> None:
    scene = Scene(Client(), Layout(), arm=False)
    scene.set_block("red", [0.35, 0.05, BLOCK_SIZE / 2], [0, 0, 0, 1])
    pose = look_at(np.array([0.34, 0.05, 0.6]), np.array([0.35, 0.05, 0.0]))
    K = intrinsics((97, 97), 40.0)
    rgb, depth = scene.render(pose, K, (97, 97))
    red = (rgb[..., 0] > 120) & (rgb[..., 1] < 60) & (rgb[..., 2] < 60)
    v, u = np.nonzero(red)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(len(u))], -1)
    points = (rays * depth[red][:, None]) @ pose[:3, :3].T + pose[:3, 3]
    top = points[points[:, 2] > BLOCK_SIZE - 1e-3]
    assert np.abs(top[:, 2] - BLOCK_SIZE).max() < 3e-4
    assert np.abs((top.min(0) + top.max(0))[:2] / 2 - [0.35, 0.05]).max() < 0.004
    assert np.abs(np.ptp(top[:, :2], axis=0) - BLOCK_SIZE).max() < 0.008


def test_frames_of_a_clip_agree_on_what_does_not_move() -> None:
    clip = clips([5, 6], frames=4, moving=0, carried=0, min_path=0.3)
    for b in range(2):
        K, depth = clip.K[b].double().numpy(), clip.depth[b].double().numpy()  # type: ignore[index]
        poses = clip.T_world_camera[b].double().numpy()
        v, u = np.mgrid[: SIZE[0], : SIZE[1]]
        rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u, float)], -1)
        world = (rays * depth[0][..., None]) @ poses[0, :3, :3].T + poses[0, :3, 3]
        seen = (world - poses[3, :3, 3]) @ poses[3, :3, :3]
        pixel = seen[..., :2] / seen[..., 2:] * [K[0, 0], K[1, 1]] + [K[0, 2], K[1, 2]]
        at = np.rint(pixel).astype(int)
        inside = (seen[..., 2] > 0) & (at >= 0).all(-1) & (at < [SIZE[1], SIZE[0]]).all(-1)
        there = depth[3][at[inside][:, 1], at[inside][:, 0]]
        assert inside.mean() > 0.1
        assert np.median(np.abs(there / seen[inside][:, 2] - 1)) < 0.01


@pytest.mark.parametrize("scene", ["shipped", "random"])
def test_a_clip_belongs_to_its_seed(scene: str) -> None:
    several, alone = clips([11, 12, 13], scene=scene), clips([13], scene=scene)
    assert several.rgb is not None and alone.rgb is not None and several.depth is not None and alone.depth is not None
    assert torch.equal(several.rgb[2], alone.rgb[0]) and torch.equal(several.depth[2], alone.depth[0])
    assert torch.equal(several.T_world_camera[2], alone.T_world_camera[0])
    assert not torch.equal(several.rgb[0], several.rgb[1])


def test_paths_are_as_long_as_asked_and_pictures_well_exposed() -> None:
    clip = clips(list(range(8)), frames=16, min_path=1.0)
    assert clip.rgb is not None and clip.depth is not None
    steps = (clip.T_world_camera[:, 1:, :3, 3] - clip.T_world_camera[:, :-1, :3, 3]).norm(dim=-1)
    assert (steps.sum(-1) >= 1.0).all()
    assert torch.isfinite(clip.depth).float().mean() > 0.99 and float(clip.depth.nan_to_num(1).min()) > 0.02
    assert 70 < float(clip.rgb.float().mean()) < 190
    focal = clip.K[:, 0, 0] / (SIZE[1] / 2 / np.tan(np.pi / 6))
    assert (focal > 0.89).all() and (focal < 1.11).all() and focal.std() > 0


def test_two_scenes_live_in_one_process() -> None:
    first, second = Scene(Client(), Layout(), arm=False), Scene(Client(), Layout(), arm=False)
    second.set_block("blue", [0.3, 0, 0.3], [0, 0, 0, 1])
    pose, K = look_at(np.array([0.0, 0.3, 0.5]), np.array([0.4, 0.0, 0.0])), intrinsics(SIZE, 60.0)
    before = first.render(pose, K, SIZE)[0]
    second.client.close()
    assert np.array_equal(before, first.render(pose, K, SIZE)[0])
    assert render(first.client, pose, K, SIZE, Layout().light)[0].shape == (*SIZE, 3)


def test_data_sets_are_recordings_or_shards(tmp_path: Path) -> None:
    options = {"clips": 2, "frames": 2, "size": (24, 32), "seed": 4}
    generate(tmp_path / "folder", TabletopDataset(**options), progress=lambda done, total: None)  # type: ignore[arg-type]
    frames = list(open_source(clip_folder(tmp_path / "folder", 1)))
    assert len(frames) == 2 and frames[1].depth is not None and frames[1].T_world_camera is not None
    generate(tmp_path / "tars", TabletopDataset(**options, shards=2), progress=lambda done, total: None)  # type: ignore[arg-type]
    samples = list(read_shard(tmp_path / "tars" / "shards" / "tabletop-000000.tar"))
    assert [key for key, _ in samples] == ["000000000", "000000001"]
    assert np.allclose(samples[1][1]["depth"][0], frames[0].depth, atol=2e-3)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--clips", "1", "--frames", "2", "--size", "16"]
    assert cli.main(["generate", "tabletop", str(tmp_path / "a"), *small, "--scene", "random"]) == 0
    assert "1 clips of 2 frames, 1 of them new" in capsys.readouterr().out
    assert cli.main(["generate", "tabletop", str(tmp_path / "a"), *small]) == 1
    assert cli.main(["generate", "tabletop", str(tmp_path / "b"), *small, "--options", "chairs=1"]) == 2
    assert "unknown option 'chairs'" in capsys.readouterr().err


def test_view_and_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["view", "tabletop", "--out", str(tmp_path / "a.png"), "--clips", "1", "--size", "32"]) == 0
    assert (tmp_path / "a.png").stat().st_size > 1000 and "A tabletop with 4 blocks" in capsys.readouterr().out
    small = ["--size", "16", "--frames", "2", "--clips", "1"]
    assert cli.main(["bench", "tabletop", "--out", str(tmp_path / "b.json"), *small]) == 0
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert rows["free camera, shipped"]["frames_per_s"] > 0 and rows["environment, two cameras"]["ms_per_frame"] > 0


def test_without_pybullet_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pybullet", None)
    physics.pybullet.cache_clear()
    try:
        assert cli.main(["generate", "tabletop", str(tmp_path / "a"), "--clips", "1", "--options", "arm=0.7"]) == 1
    finally:
        physics.pybullet.cache_clear()
    said = capsys.readouterr().err
    assert 'pip install "omnistream[sim]"' in said and "Python 3.11" in said


@pytest.mark.parametrize(
    ("options", "message"), [({"scene": "kitchen"}, "scene is 'kitchen'"), ({"arm": 2}, "arm is 2"), ({"x": 1}, "'x'")]
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabletopConfig.from_options(options)
    with pytest.raises(ValueError, match="normals"):
        Tabletop().clips([1], frames=1, size=SIZE, rate=1.0, want=("normals",))


def test_training_finds_it_by_name() -> None:
    names = {point.name: point.value for point in entry_points(group="omnistream.clips")}
    assert names.get("tabletop") == "omnistream_sim.tabletop.clips:open_clips"
