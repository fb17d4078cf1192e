# SPDX-License-Identifier: Apache-2.0
"""Augmentation changes pictures, never the geometry that they show."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from omnistream.errors import ConfigError
from omnistream_training.data.augment import LONGEST_REST, AugmentConfig, augment, flip, reverse
from omnistream_training.data.batch import ClipBatch
from omnistream_training.losses import make_targets
from tests.omnistream_training.scenes import plane_batch, pose, rotation

OFF = AugmentConfig(**{f.name: 0.0 for f in dataclasses.fields(AugmentConfig)})
YES, NO = torch.tensor([True]), torch.tensor([False])


@pytest.fixture
def batch() -> ClipBatch:
    """A tilting, moving camera before a wall, an off-centre lens, coloured noise as picture."""
    poses = torch.stack([pose(rotation(1, 0.1 * t) @ rotation(0, 0.05 * t), (0.1 * t, 0, 0.1)) for t in range(4)])
    made = plane_batch(poses)
    made.K[0, 0, 2] += 3
    draw = torch.Generator().manual_seed(0)
    return dataclasses.replace(
        made,
        images=torch.rand(made.images.shape, generator=draw),
        depth=plane_batch_depth(made),
        times=torch.tensor([[0.0, 1.0, 3.0, 4.0]], dtype=torch.float64),
    )


def plane_batch_depth(batch: ClipBatch) -> torch.Tensor:
    from tests.omnistream_training.scenes import plane_depth

    size = (batch.images.shape[-2], batch.images.shape[-1])
    return plane_depth(batch.T_world_camera[0].double(), batch.K[0].double(), size, 2.0)[None].float()


def heights_above_plane(batch: ClipBatch, distance: float = 2.0) -> torch.Tensor:
    """Distance of every unprojected pixel from the wall z = 2 of the world: 0 if the geometry is right."""
    h, w = batch.images.shape[-2:]
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], -1).float() @ torch.linalg.inv(batch.K[0]).T
    points = torch.einsum("tij,thwj->thwi", batch.T_world_camera[0, :, :3, :3], batch.depth[0, ..., None] * rays)
    return points[..., 2] + batch.T_world_camera[0, :, None, None, 2, 3] - distance


def test_the_plane_is_a_plane_before(batch: ClipBatch) -> None:
    assert heights_above_plane(batch).abs().max() < 1e-4


def test_a_mirrored_clip_shows_the_mirrored_world_exactly(batch: ClipBatch) -> None:
    mirrored = flip(batch, YES)
    assert torch.equal(mirrored.images, batch.images.flip(-1))
    assert heights_above_plane(mirrored).abs().max() < 1e-4
    rotations = mirrored.T_world_camera[0, :, :3, :3]
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(4))  # rotations, not reflections
    assert torch.allclose(mirrored.T_world_camera[0, :, 0, 3], -batch.T_world_camera[0, :, 0, 3])


def test_mirroring_twice_is_nothing(batch: ClipBatch) -> None:
    twice = flip(flip(batch, YES), YES)
    for field in dataclasses.fields(batch):
        assert torch.allclose(getattr(twice, field.name), getattr(batch, field.name), atol=1e-6), field.name


def test_backwards_everything_is_in_reverse_and_time_still_rises(batch: ClipBatch) -> None:
    back = reverse(batch, YES)
    assert back.times.tolist() == [[0, 1, 3, 4]]  # gaps 1, 2, 1 read backwards
    assert torch.equal(back.images[0, 0], batch.images[0, 3])
    assert torch.equal(back.T_world_camera[0, 0], batch.T_world_camera[0, 3])
    assert heights_above_plane(back).abs().max() < 1e-4
    assert make_targets(back).translation[0, 0].abs().max() == 0


def test_away_only_the_time_since_the_first_frame_grows(batch: ClipBatch) -> None:
    for seed in range(20):
        times = augment(batch, dataclasses.replace(OFF, away=1.0), seed).times
        rest = float(times[0, 1] - batch.times[0, 1])
        assert 1 <= rest <= LONGEST_REST and rest == int(rest)
        assert times[0, 0] == batch.times[0, 0] and torch.equal(times[0, 1:], batch.times[0, 1:] + rest)
    a, b = (augment(batch, dataclasses.replace(AugmentConfig(), away=share), 3) for share in (0.0, 1.0))
    assert torch.equal(a.images, b.images) and torch.equal(a.T_world_camera, b.T_world_camera)


def test_only_chosen_clips_change(batch: ClipBatch) -> None:
    for change in (flip, reverse):
        same = change(batch, NO)
        for field in dataclasses.fields(batch):
            assert torch.equal(getattr(same, field.name), getattr(batch, field.name))


def test_all_off_is_the_identity(batch: ClipBatch) -> None:
    assert torch.allclose(augment(batch, OFF, 0).images, batch.images, atol=1e-6)


def test_the_same_seed_gives_the_same_batch_and_another_seed_another(batch: ClipBatch) -> None:
    a, b, c = (augment(batch, AugmentConfig(), seed).images for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("seed", range(8))
def test_images_stay_in_range_and_depth_stays_exact(batch: ClipBatch, seed: int) -> None:
    strong = AugmentConfig(brightness=0.8, contrast=0.8, saturation=0.8, tint=0.5, gamma=0.8, blur=1, noise=0.3)
    out = augment(batch, strong, seed)
    assert out.images.isfinite().all() and out.images.min() >= 0 and out.images.max() <= 1
    assert heights_above_plane(out).abs().max() < 1e-4


def test_all_frames_of_a_clip_get_the_same_colours(batch: ClipBatch) -> None:
    frame = batch.images[:, :1]
    still = dataclasses.replace(batch, images=frame.expand_as(batch.images))
    out = augment(still, dataclasses.replace(AugmentConfig(), noise=0.0), 5).images
    assert torch.allclose(out, out[:, :1].expand_as(out), atol=1e-6)


def test_blur_keeps_a_flat_picture_flat(batch: ClipBatch) -> None:
    flat = dataclasses.replace(batch, images=torch.full_like(batch.images, 0.25))
    assert torch.allclose(augment(flat, dataclasses.replace(OFF, blur=1.0), 0).images, flat.images, atol=1e-6)


def test_a_strength_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match=r"augment\.flip is 1\.5; expected 0 to 1"):
        AugmentConfig(flip=1.5)
