# SPDX-License-Identifier: Apache-2.0
"""Labels of motions whose answer is known, and losses that vanish on them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from omnistream.geometry import rotations
from omnistream.heads.heads import HeadOutputs
from omnistream_training.data.batch import ClipBatch
from omnistream_training.losses import LossConfig, Targets, geometry_loss, make_targets
from omnistream_training.losses.rays import halve, point_loss
from omnistream_training.losses.targets import quaternion_from_matrix
from tests.omnistream_training.scenes import plane_batch, pose, rotation

EYE = torch.eye(3, dtype=torch.float64)


def sideways(frames: int = 4, step: float = 0.1, distance: float = 2.0) -> ClipBatch:
    return plane_batch(torch.stack([pose(EYE, (step * t, 0, 0)) for t in range(frames)]), distance=distance)


def perfect(targets: Targets) -> HeadOutputs:
    """What flawless heads would say, and be sure of nothing (raw confidence -30: c = 1)."""
    logit = torch.logit(targets.fov / math.pi)
    return HeadOutputs(
        log_depth=targets.depth.log(),
        depth_confidence=torch.full_like(targets.depth, -30),
        rays=targets.rays,
        ray_confidence=torch.full(targets.rays.shape[:-1], -30.0),
        camera=torch.cat([targets.translation, targets.quaternion, logit], -1),
    )


def test_sideways_motion_along_a_wall() -> None:
    targets = make_targets(sideways())
    assert torch.allclose(targets.translation[0, :, 0], torch.tensor([0, 0.1, 0.2, 0.3]))
    assert torch.allclose(targets.quaternion, torch.tensor([0.0, 0, 0, 1]))
    assert torch.allclose(targets.depth, torch.tensor(2.0))
    assert torch.allclose(targets.rays[..., 3:][0, 0], targets.rays[..., 3:][0, 3])  # directions do not turn


def test_the_world_is_the_first_camera_wherever_the_recording_put_it() -> None:
    moved = pose(rotation(0, 0.7) @ rotation(2, -2), (5, -3, 9)).float()
    batch = sideways()
    elsewhere = dataclasses.replace(batch, T_world_camera=moved @ batch.T_world_camera)
    a, b = make_targets(batch), make_targets(elsewhere)
    assert torch.allclose(a.translation, b.translation, atol=1e-5)
    assert torch.allclose(a.rays, b.rays, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pure_rotation_moves_no_origin_and_turns_the_rays(axis: int) -> None:
    targets = make_targets(plane_batch(torch.stack([pose(rotation(axis, 0.1 * t), (0, 0, 0)) for t in range(3)])))
    assert targets.translation.abs().max() < 1e-6
    half_angle = 2 * torch.atan2(targets.quaternion[0, 2, axis], targets.quaternion[0, 2, 3])
    assert half_angle == pytest.approx(0.2, abs=1e-5)
    turned = targets.rays[0, 0, :, :, 3:] @ rotation(axis, 0.2).float().T
    assert torch.allclose(targets.rays[0, 2, :, :, 3:], turned, atol=1e-5)


def test_field_of_view_of_a_known_lens() -> None:
    targets = make_targets(sideways())  # 32 x 48 pixels, focal length 0.9 * 48
    expected = [2 * math.atan(32 / (2 * 43.2)), 2 * math.atan(48 / (2 * 43.2))]
    assert targets.fov[0, 0].tolist() == pytest.approx(expected)


def test_every_loss_vanishes_on_the_right_answer() -> None:
    poses = torch.stack([pose(rotation(1, 0.05 * t) @ rotation(0, 0.03 * t), (0.1 * t, 0.02 * t, 0)) for t in range(4)])
    targets = make_targets(plane_batch(poses))
    total, terms = geometry_loss(perfect(targets), targets, LossConfig())
    assert set(terms) == {"depth", "depth_gradient", "rays", "points", "translation", "rotation", "fov"}
    assert total == pytest.approx(0, abs=1e-5)


def test_motion_is_what_a_shared_error_leaves() -> None:
    """A path that is wrong by the same everywhere has the right motion; one frame of four off by 0.4 m has
    0.3 + 3 x 0.1 over 4 frames. Frames without a pose do not count."""
    targets = make_targets(sideways(frames=4))
    outputs, config = perfect(targets), LossConfig(camera=2.0, motion=3.0)

    def moved(shift: torch.Tensor) -> dict[str, torch.Tensor]:
        assert outputs.camera is not None
        camera = outputs.camera.clone()
        camera[..., :3] += shift
        placed = dataclasses.replace(targets, placed=torch.ones_like(targets.placed))
        return geometry_loss(dataclasses.replace(outputs, camera=camera), placed, config)[1]

    everywhere = moved(torch.tensor([0.4, 0, 0]))
    assert everywhere["motion"].item() == pytest.approx(0, abs=1e-6) and everywhere["translation"].item() > 0.7
    one = torch.zeros(1, 4, 3)
    one[:, 2, 1] = 0.4
    assert moved(one)["motion"].item() == pytest.approx(2 * 3 * (0.3 + 3 * 0.1) / 4, abs=1e-5)
    targets.posed[:, 2] = False
    assert moved(one)["motion"].item() == pytest.approx(0, abs=1e-6)
    assert "motion" not in geometry_loss(outputs, targets, LossConfig())[1]


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_lens_taken_for_another_is_forgiven_where_it_is_known(factor: float) -> None:
    """Depth as many times too large as the focal length is wrong: half the true lens, half the depth."""
    targets = make_targets(sideways())
    assert bool(targets.calibrated.all())
    outputs = perfect(targets)
    guessed = 2 * torch.atan(torch.tan(targets.fov / 2) / factor)
    camera = torch.cat([outputs.camera[..., :7], torch.logit(guessed / math.pi)], -1).requires_grad_()  # type: ignore[index]
    log_depth = (targets.depth * factor).log().requires_grad_()
    outputs = dataclasses.replace(outputs, log_depth=log_depth, camera=camera)
    known, guess = (geometry_loss(outputs, targets, LossConfig(lens=lens))[1] for lens in ("known", "guessed"))  # type: ignore[arg-type]
    for name in ("depth", "depth_gradient", "points"):
        assert known[name].item() == pytest.approx(0, abs=1e-5)
    assert guess["depth"].item() == pytest.approx(abs(math.log(factor)), abs=1e-4)
    (grown,) = torch.autograd.grad(known["depth"], camera, allow_unused=True)
    assert grown is None  # what the camera head guesses is not bent for the sake of depth


def test_points_of_the_labels_lie_on_the_plane() -> None:
    poses = torch.stack([pose(rotation(0, 0.1 * t), (0, 0.1 * t, 0.05 * t)) for t in range(3)])
    targets = make_targets(plane_batch(poses, size=(64, 64), distance=3.0))
    depth, complete = halve(targets.depth, targets.depth_valid)
    points = targets.rays[..., :3] + depth[..., None] * targets.rays[..., 3:]
    assert complete.all()
    # the mean of four depths belongs to the middle ray up to the plane's curvature in z: second order
    assert (points[..., 2] - 3).abs().max() < 2e-3


def test_point_loss_of_a_known_shift() -> None:
    targets = make_targets(sideways())
    depth, valid = halve(targets.depth, targets.depth_valid)
    shifted = targets.rays.clone()
    shifted[..., 0] += 0.5
    assert point_loss(shifted, depth, targets.rays, depth, valid) == pytest.approx(0.5 / 2)  # relative to 2 m


def test_relative_labels_do_not_depend_on_the_scale_of_the_scene() -> None:
    small, large = sideways(), sideways()
    large = dataclasses.replace(large, depth=large.depth * 7, T_world_camera=large.T_world_camera.clone())
    large.T_world_camera[..., :3, 3] *= 7
    a, b = make_targets(small, "relative"), make_targets(large, "relative")
    for name in ("depth", "rays", "translation", "quaternion", "fov"):
        assert torch.allclose(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-6), name
    assert torch.allclose(b.scale, 7 * a.scale)
    outputs = perfect(a)
    outputs = dataclasses.replace(outputs, log_depth=outputs.log_depth + 0.1)  # type: ignore[operator]
    assert torch.allclose(geometry_loss(outputs, a, LossConfig())[0], geometry_loss(outputs, b, LossConfig())[0])


def test_relative_scale_is_fixed_by_the_first_frame_alone() -> None:
    batch = sideways()
    depth = batch.depth.clone()
    depth[:, 1:] *= 3
    changed = dataclasses.replace(batch, depth=depth)
    assert torch.equal(make_targets(batch, "relative").scale, make_targets(changed, "relative").scale)


@pytest.mark.parametrize("lost", ["depth", "T_world_camera", "K", "everything"])
@pytest.mark.parametrize("unit", ["metric", "relative"])
def test_missing_labels_give_finite_losses_and_gradients(lost: str, unit: str) -> None:
    batch = sideways()
    names = ("depth", "T_world_camera", "K") if lost == "everything" else (lost,)
    batch = dataclasses.replace(batch, **{n: torch.full_like(getattr(batch, n), math.nan) for n in names})
    targets = make_targets(batch, unit)  # type: ignore[arg-type]
    outputs = perfect(make_targets(sideways()))
    leaves = {f.name: getattr(outputs, f.name).clone().requires_grad_() for f in dataclasses.fields(outputs)}
    total, _ = geometry_loss(HeadOutputs(**leaves), targets, LossConfig())
    total.backward()
    assert total.isfinite()
    assert all(leaf.grad.isfinite().all() for leaf in leaves.values())
    if lost == "everything":
        assert total == 0
        assert not any(leaf.grad.any() for leaf in leaves.values())


def test_one_frame_without_pose_is_masked_and_the_first_one_masks_the_clip() -> None:
    batch = sideways()
    batch.T_world_camera[0, 2] = math.nan
    assert make_targets(batch).posed.tolist() == [[True, True, False, True]]
    batch.T_world_camera[0, 0] = math.nan
    assert not make_targets(batch).posed.any()


def test_quaternions_equal_those_of_the_core_everywhere() -> None:
    draw = np.random.default_rng(0)
    q = draw.normal(size=(200, 4))
    q[:8] = np.vstack([np.eye(4), -np.eye(4)]) + 1e-9  # half turns about each axis, where naive formulas divide by 0
    matrices = rotations.matrix_from_quaternion(q)
    ours = quaternion_from_matrix(torch.from_numpy(matrices)).numpy()
    theirs = rotations.quaternion_from_matrix(matrices)
    assert np.abs(np.abs((ours * theirs).sum(-1)) - 1).max() < 1e-9


def test_a_quaternion_and_its_negative_are_the_same_label() -> None:
    targets = make_targets(plane_batch(torch.stack([pose(rotation(1, 0.2 * t), (0, 0, 0)) for t in range(3)])))
    flipped = dataclasses.replace(targets, quaternion=-targets.quaternion)
    a, b = (geometry_loss(perfect(targets), t, LossConfig())[1]["rotation"] for t in (targets, flipped))
    assert a == pytest.approx(float(b), abs=1e-6)


def test_a_long_quaternion_costs_though_it_is_the_same_rotation() -> None:
    targets = make_targets(plane_batch(torch.stack([pose(rotation(1, 0.2 * t), (0, 0, 0)) for t in range(3)])))
    outputs = perfect(targets)
    assert outputs.camera is not None
    outputs.camera[..., 3:7] *= 3
    assert float(geometry_loss(outputs, targets, LossConfig())[1]["rotation"]) > 5  # 3 * 3 instead of 1


def test_a_place_asks_where_the_camera_is_and_not_only_how_it_moved() -> None:
    poses = torch.stack([pose(rotation(1, 0.2 * t) @ rotation(0, 0.7), (0.1 * t, 2, 0)) for t in range(3)])
    clip = plane_batch(poses)
    anywhere, here = make_targets(clip), make_targets(dataclasses.replace(clip, place=torch.tensor([True])))
    assert not anywhere.placed.any() and here.placed.all()
    assert torch.allclose(here.translation[0, :, 1], torch.tensor(2.0))
    for labels in (anywhere, here):  # poses and rays in the place's frame are right for both
        assert float(geometry_loss(perfect(here), labels, LossConfig())[0]) == pytest.approx(0, abs=2e-5)
    wrong = geometry_loss(perfect(anywhere), here, LossConfig())[1]  # relative ones only where there is no place
    assert float(wrong["translation"]) > 1 and float(wrong["rotation"]) > 0.3 and float(wrong["rays"]) > 0.3
    assert not make_targets(dataclasses.replace(clip, place=torch.tensor([True])), "relative").placed.any()


def test_gradcheck_of_the_whole_loss() -> None:
    poses = torch.stack([pose(rotation(1, 0.1 * t), (0.1 * t, 0, 0)) for t in range(2)])
    targets = make_targets(plane_batch(poses, size=(4, 6)))
    targets = dataclasses.replace(
        targets,
        **{n: getattr(targets, n).double() for n in ("depth", "rays", "translation", "quaternion", "fov")},
    )
    draw = torch.Generator().manual_seed(3)
    exact = perfect(targets)
    leaves = [
        (getattr(exact, f.name).double() + 0.3 * torch.randn(getattr(exact, f.name).shape, generator=draw).double())
        .clone()
        .requires_grad_()
        for f in dataclasses.fields(exact)
    ]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        names = [f.name for f in dataclasses.fields(exact)]
        raw = dict(zip(names, values, strict=True))
        return geometry_loss(HeadOutputs(**raw), targets, LossConfig())[0]

    assert torch.autograd.gradcheck(loss, leaves)
