# SPDX-License-Identifier: Apache-2.0
"""Heads: shapes, what is wanted and nothing else, ranges, and streaming equals batch for their raw outputs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from omnistream.errors import ConfigError
from omnistream.geometry.rigid import from_translation_quaternion, inverse, to_translation_quaternion, transform
from omnistream.geometry.rotations import matrix_from_quaternion
from omnistream.heads.camera import in_first_camera, rays_in_first_camera, split_camera
from omnistream.heads.dpt import position_map
from omnistream.heads.heads import HEADS, confidence


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (16, 16), (16, 48)])
def test_shapes(tiny_model, size):
    height, width = size
    with torch.no_grad():
        features, heads = tiny_model(torch.randn(2, 3, 3, height, width))
    assert features.patches.shape == (2, 3, height * width // 256, 64)
    assert heads.log_depth.shape == heads.depth_confidence.shape == heads.depth.shape == (2, 3, height, width)
    assert heads.rays.shape == (2, 3, height // 2, width // 2, 6)
    assert heads.ray_confidence.shape == (2, 3, height // 2, width // 2)
    assert heads.camera.shape == (2, 3, 9)
    assert (heads.depth > 0).all() and (confidence(heads.depth_confidence) >= 1).all()


def test_only_what_is_wanted_is_run(tiny_model):
    calls = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, module in tiny_model.heads.named_modules()
        if name in ("dpt.depth_chain", "dpt.ray_chain", "dpt.pyramid", "camera")
    ]
    expected = {
        "depth": {"dpt.pyramid", "dpt.depth_chain"},
        "rays": {"dpt.pyramid", "dpt.ray_chain"},
        "pose": {"camera"},
    }
    try:
        for want in [(), ("depth",), ("rays",), ("pose",), HEADS]:
            calls.clear()
            with torch.no_grad():
                _, heads = tiny_model(torch.randn(1, 1, 3, 32, 32), want=want)
            assert set(calls) == set().union(*(expected[name] for name in want))
            assert (heads.depth is None, heads.rays is None, heads.camera is None) == tuple(
                h not in want for h in HEADS
            )
    finally:
        for hook in hooks:
            hook.remove()


def test_unknown_heads_are_named(tiny_model):
    with pytest.raises(ConfigError, match=r"unknown head\(s\) \['smell'\]"):
        tiny_model(torch.randn(1, 1, 3, 32, 32), want=("smell",))


@pytest.mark.parametrize("policy", ["full:9", "window:4", "sink_window:1,3"])
def test_raw_outputs_stream(tiny_model, policy):
    """The invariant, on every head output before its exp."""
    clip = torch.randn(1, 9, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    stream = tiny_model.backbone.stream(policy, camera_token=True)
    with torch.no_grad():
        _, batch = tiny_model(clip, policy)
        streamed = [tiny_model.run_heads(stream.step(clip[:, i]), (48, 64), HEADS) for i in range(9)]
    for field in dataclasses.fields(batch):
        a = torch.cat([getattr(s, field.name) for s in streamed], 1)
        b = getattr(batch, field.name)
        assert (a - b).abs().max() <= 2e-5 * max(1, b.abs().max()), field.name


def test_gradients_reach_the_backbone(make_model):
    import copy

    model = copy.deepcopy(make_model("metric"))
    _, heads = model(torch.randn(1, 2, 3, 32, 32))
    (heads.log_depth.mean() + heads.rays.mean() + heads.camera.mean() + heads.depth_confidence.mean()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # Nothing in a geometry loss touches the mask token, and the last norm's input of CLS and registers is not read.
    assert set(missing) <= {
        "backbone.mask_token",
        "backbone.ar_embedder.weight",
        "backbone.ar_embedder.bias",
        "heads.dpt.ray_last.bias",
    }


def test_camera_head_decodes_to_a_possible_camera():
    translation, quaternion, fov = split_camera(torch.tensor([[1.0, 2, 3, 0, 0, 0, -2, 0, 0]]))
    assert translation.tolist() == [[1, 2, 3]]
    assert quaternion.tolist() == [[0, 0, 0, 1]]
    assert fov[0, 0].item() == pytest.approx(math.pi / 2)
    _, _, extreme = split_camera(torch.full((1, 9), 50.0))
    assert (extreme > 0).all() and (extreme <= math.pi + 1e-6).all()


def test_poses_and_rays_do_not_depend_on_the_frame_that_the_network_chose():
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(2, 4, 9, generator=generator, dtype=torch.float64)
    rays = torch.randn(2, 4, 3, 5, 6, generator=generator, dtype=torch.float64)
    translation, quaternion, _ = in_first_camera(raw)
    assert torch.equal(translation[:, 0], torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(quaternion[:, 0], torch.tensor([[0.0, 0, 0, 1]] * 2, dtype=torch.float64))

    moved_raw, moved_rays = raw.clone(), rays.clone()
    for b in range(2):  # another frame for every clip, by matrices
        turn = matrix_from_quaternion(torch.randn(4, generator=generator).numpy())
        shift = torch.randn(3, generator=generator).numpy()
        own = transform(turn, shift) @ from_translation_quaternion(raw[b, :, :7].numpy())
        moved_raw[b, :, :7] = torch.from_numpy(to_translation_quaternion(own))
        moved_rays[b, ..., :3] = rays[b, ..., :3] @ torch.from_numpy(turn).T + torch.from_numpy(shift)
        moved_rays[b, ..., 3:] = rays[b, ..., 3:] @ torch.from_numpy(turn).T
    for before, after in zip(in_first_camera(raw), in_first_camera(moved_raw), strict=True):
        torch.testing.assert_close(before, after)
    torch.testing.assert_close(rays_in_first_camera(rays, raw), rays_in_first_camera(moved_rays, moved_raw))

    reference = from_translation_quaternion(raw[0, :, :7].numpy())
    expected = inverse(reference[0]) @ reference[2]
    np.testing.assert_allclose(matrix_from_quaternion(quaternion[0, 2].numpy()), expected[:3, :3], atol=1e-12)
    np.testing.assert_allclose(translation[0, 2], expected[:3, 3], atol=1e-12)


def test_position_map_is_centred_and_keeps_the_aspect_ratio():
    wide = position_map(torch.zeros(1, 8, 10, 20))
    assert wide.shape == (1, 8, 10, 20)
    sin_u, sin_v = wide[0, 0], wide[0, 4]
    torch.testing.assert_close(sin_u, -sin_u.flip(1))
    torch.testing.assert_close(sin_v[:, 0], -sin_v[:, 0].flip(0))
    assert torch.asin(sin_u[0, -1]) / torch.asin(sin_v[-1, 0]) == pytest.approx(19 / 9, rel=1e-4)
