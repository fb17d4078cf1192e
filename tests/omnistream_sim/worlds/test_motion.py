# SPDX-License-Identifier: Apache-2.0
"""Pixels followed from frame to frame: pose, depth, scene flow and optical flow tell one story."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omnistream_sim.worlds import Clip, WorldConfig, Worlds, clip_seed, render, sample_scenes
from omnistream_sim.worlds.config import FAMILIES

SIZE = (96, 128)


def _family(name: str) -> WorldConfig:
    weights = {family: float(family == name) for family in FAMILIES}
    return WorldConfig(**weights, moving=0.8)


def _points(clip: Clip, frame: int) -> Tensor:
    """World points of the pixels [B, H, W, 3], float64."""
    assert clip.depth is not None
    k = clip.K.double()
    z = clip.depth[:, frame].double()
    v, u = torch.meshgrid(torch.arange(SIZE[0]).double(), torch.arange(SIZE[1]).double(), indexing="ij")
    x = (u - k[:, 0, 2, None, None]) / k[:, 0, 0, None, None]
    y = (v - k[:, 1, 2, None, None]) / k[:, 1, 1, None, None]
    p = torch.stack([x * z, y * z, z], -1)
    pose = clip.T_world_camera[:, frame].double()
    return (pose[:, None, None, :3, :3] * p[..., None, :]).sum(-1) + pose[:, None, None, :3, 3]


def _seen(clip: Clip, points: Tensor, frame: int) -> tuple[Tensor, Tensor, Tensor]:
    """u, v and z of world points in a frame."""
    pose, k = clip.T_world_camera[:, frame].double(), clip.K.double()
    p = (pose[:, None, None, :3, :3] * (points - pose[:, None, None, :3, 3])[..., None]).sum(-2)
    u = p[..., 0] / p[..., 2] * k[:, 0, 0, None, None] + k[:, 0, 2, None, None]
    v = p[..., 1] / p[..., 2] * k[:, 1, 1, None, None] + k[:, 1, 2, None, None]
    return u, v, p[..., 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_moved_points_reappear_at_the_depth_that_the_next_frame_has(family: str, backend: str) -> None:
    config = _family(family)
    scenes = sample_scenes(config, [clip_seed(5, n) for n in range(4)], frames=3, rate=15.0)
    clip = render(scenes, SIZE, want=("depth", "ids", "scene_flow", "flow"), backend=backend)
    assert clip.depth is not None and clip.scene_flow is not None and clip.flow is not None and clip.ids is not None
    for first in (0, 1):
        moved = _points(clip, first) + clip.scene_flow[:, first].double()
        u, v, z = _seen(clip, moved, first + 1)
        grid_v, grid_u = torch.meshgrid(torch.arange(SIZE[0]).double(), torch.arange(SIZE[1]).double(), indexing="ij")
        known = torch.isfinite(z) & (z > 0.05)
        expected = torch.stack([u - grid_u, v - grid_v], -1)
        near = known & (expected.norm(dim=-1) < 200)
        assert (clip.flow[:, first].double() - expected)[near].abs().max() < 0.02, "pixels"
        inside = near & (u > 1) & (u < SIZE[1] - 2) & (v > 1) & (v < SIZE[0] - 2)
        assert inside.float().mean() > 0.3
        b = torch.arange(4)[:, None, None].expand_as(u)
        row, column = (
            v.nan_to_num(0).round().long().clamp(0, SIZE[0] - 1),
            u.nan_to_num(0).round().long().clamp(0, SIZE[1] - 1),
        )
        there = clip.depth[b, first + 1, row, column].double()
        same = inside & (clip.ids[b, first + 1, row, column] == clip.ids[:, first])
        assert same[inside].float().mean() > 0.8
        error = ((there - z).abs() / z)[same]
        assert error.median() < 0.005


def test_what_stands_still_has_no_scene_flow() -> None:
    clip = Worlds(WorldConfig(moving=0.0)).clips(
        [clip_seed(1, n) for n in range(6)], frames=2, size=(32, 32), rate=10.0, want=("scene_flow", "flow")
    )
    assert clip.scene_flow is not None and clip.flow is not None
    assert clip.scene_flow.nan_to_num(0).abs().max() < 2e-4  # metres; the ground reaches far
    assert clip.flow.nan_to_num(0).abs().max() > 1  # the camera moves


def test_things_that_move_have_scene_flow_on_them_alone() -> None:
    clip = Worlds(WorldConfig(moving=1.0, outdoor=0)).clips(
        [clip_seed(2, n) for n in range(6)], frames=2, size=(64, 64), rate=10.0, want=("scene_flow", "ids")
    )
    assert clip.scene_flow is not None and clip.ids is not None
    speed = clip.scene_flow.norm(dim=-1)
    assert speed[clip.ids > 6].quantile(0.95) > 0.01
    assert speed[(clip.ids > 0) & (clip.ids < 7)].max() < 1e-4
