# SPDX-License-Identifier: Apache-2.0
"""Umeyama: known transforms, the laws of the group, degenerate inputs, and evo as the oracle where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistream.errors import InputError
from omnistream.geometry.align import DegenerateError, umeyama
from omnistream.geometry.rotations import matrix_from_quaternion


def random_transform(rng: np.random.Generator) -> tuple[float, np.ndarray, np.ndarray]:
    return float(np.exp(rng.normal())), matrix_from_quaternion(rng.normal(size=4)), rng.normal(size=3) * 10


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40))
def test_a_known_similarity_is_recovered(seed, count):
    rng = np.random.default_rng(seed)
    scale, rotation, translation = random_transform(rng)
    points = rng.normal(size=(count, 3)) * [3, 2, 0.5]
    found = umeyama(points, scale * points @ rotation.T + translation, with_scale=True)
    assert found.scale == pytest.approx(scale, rel=1e-9)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-7)
    np.testing.assert_allclose(found.translation, translation, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_residual_does_not_depend_on_where_the_estimate_lives(seed):
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(2, 12, 3))
    scale, rotation, translation = random_transform(rng)
    moved = scale * source @ rotation.T + translation
    for with_scale, points in ((True, moved), (False, source @ rotation.T + translation)):
        before = umeyama(source, target, with_scale=with_scale).points(source) - target
        after = umeyama(points, target, with_scale=with_scale).points(points) - target
        np.testing.assert_allclose(after, before, atol=1e-8)


def test_no_transform_nearby_is_better():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 20, 3))
    best = umeyama(source, target, with_scale=True)
    error = np.square(best.points(source) - target).sum()
    for _ in range(200):
        small = matrix_from_quaternion([*rng.normal(size=3) * 0.01, 1])
        points = best.scale * np.exp(rng.normal() * 0.01) * source @ (small @ best.rotation).T + best.translation
        assert np.square(points - target).sum() >= error


def test_a_mirror_image_gives_a_rotation_not_a_reflection():
    points = np.random.default_rng(1).normal(size=(10, 3))
    found = umeyama(points, points * [1, 1, -1], with_scale=False)
    assert np.linalg.det(found.rotation) == pytest.approx(1)


def test_points_in_a_plane_are_enough():
    points = np.random.default_rng(2).normal(size=(10, 3)) * [1, 1, 0]
    rotation = matrix_from_quaternion([0.1, -0.3, 0.2, 1.0])
    np.testing.assert_allclose(umeyama(points, points @ rotation.T, with_scale=True).rotation, rotation, atol=1e-9)


def test_poses_turn_with_the_points_and_keep_orthonormal_rotations():
    rng = np.random.default_rng(3)
    poses = np.broadcast_to(np.eye(4), (8, 4, 4)).copy()
    poses[:, :3, 3] = rng.normal(size=(8, 3))
    poses[:, :3, :3] = matrix_from_quaternion(rng.normal(size=(8, 4)))
    _, rotation, translation = random_transform(rng)
    similarity = umeyama(poses[:, :3, 3], 2 * poses[:, :3, 3] @ rotation.T + translation, with_scale=True)
    moved = similarity.poses(poses)
    np.testing.assert_allclose(moved[:, :3, 3], similarity.points(poses[:, :3, 3]))
    np.testing.assert_allclose(moved[:, :3, :3], rotation @ poses[:, :3, :3], atol=1e-9)


@pytest.mark.parametrize("points", [np.zeros((5, 3)), np.arange(5)[:, None] * [[1.0, 2.0, 3.0]]])
def test_points_in_one_place_or_on_a_line_are_refused(points):
    target = np.random.default_rng(4).normal(size=(5, 3))
    with pytest.raises(DegenerateError, match="in one place" if not points.any() else "on a line"):
        umeyama(points, target, with_scale=True)


def test_bad_shapes_and_values_are_named():
    good = np.zeros((4, 3))
    with pytest.raises(InputError, match=r"source has shape \(4, 2\)"):
        umeyama(np.zeros((4, 2)), good, with_scale=True)
    with pytest.raises(InputError, match="target holds numbers that are not finite"):
        umeyama(good, np.full((4, 3), np.nan), with_scale=True)
    with pytest.raises(InputError, match="4 source and 5 target"):
        umeyama(good, np.zeros((5, 3)), with_scale=True)
    with pytest.raises(DegenerateError, match="2 pairs"):
        umeyama(good[:2], good[:2], with_scale=True)


@pytest.mark.parametrize("with_scale", [False, True])
def test_evo_agrees(with_scale):
    geometry = pytest.importorskip("evo.core.geometry", reason="evo (GPL) is only a test oracle: pip install evo")
    rng = np.random.default_rng(5)
    for _ in range(20):
        source, target = rng.normal(size=(2, 15, 3))
        rotation, translation, scale = geometry.umeyama_alignment(source.T, target.T, with_scale)
        ours = umeyama(source, target, with_scale=with_scale)
        np.testing.assert_allclose(ours.rotation, rotation, atol=1e-10)
        np.testing.assert_allclose(ours.translation, translation, atol=1e-10)
        assert ours.scale == pytest.approx(scale)
