# SPDX-License-Identifier: Apache-2.0
"""Geometry by its axioms, and by known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnistream.geometry import pinhole, rigid, rotations

unit = st.floats(-1, 1, allow_nan=False)
quaternions = st.tuples(unit, unit, unit, unit).filter(lambda q: np.linalg.norm(q) > 0.1)


@given(quaternions)
def test_quaternion_matrix_round_trip(q):
    R = rotations.matrix_from_quaternion(q)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1)
    back = rotations.quaternion_from_matrix(R)
    assert back[3] >= 0
    expected = np.array(q) / np.linalg.norm(q)
    assert min(np.abs(back - expected).max(), np.abs(back + expected).max()) < 1e-7


@pytest.mark.parametrize("q", [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1e-9, 0, 1, 1e-9]])
def test_half_turns_are_not_singular(q):
    R = rotations.matrix_from_quaternion(q)
    np.testing.assert_allclose(rotations.matrix_from_quaternion(rotations.quaternion_from_matrix(R)), R, atol=1e-12)


def test_a_quarter_turn_about_z():
    h = math.sqrt(0.5)
    np.testing.assert_allclose(rotations.matrix_from_quaternion([0, 0, h, h]) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize("q", [[0, 0, 0, 0], [float("nan"), 0, 0, 1]])
def test_a_quaternion_without_direction_is_refused(q):
    with pytest.raises(ValueError, match="no direction"):
        rotations.matrix_from_quaternion(q)


@given(quaternions, quaternions, st.tuples(unit, unit, unit))
def test_rigid_transforms_are_a_group(q1, q2, t):
    a = rigid.transform(rotations.matrix_from_quaternion(q1), t)
    b = rigid.transform(rotations.matrix_from_quaternion(q2), t[::-1])
    np.testing.assert_allclose(rigid.inverse(a) @ a, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(rigid.inverse(a @ b), rigid.inverse(b) @ rigid.inverse(a), atol=1e-12)
    p = np.array([[0.1, 0.2, 0.3], [1, 2, 3]])
    np.testing.assert_allclose(rigid.apply(a @ b, p), rigid.apply(a, rigid.apply(b, p)), atol=1e-12)
    np.testing.assert_allclose(rigid.from_translation_quaternion(rigid.to_translation_quaternion(a)), a, atol=1e-7)


def test_scaled_intrinsics_see_the_same_rays():
    K = np.array([[600.0, 0, 310], [0, 610, 250], [0, 0, 1]])
    small = pinhole.scale_intrinsics(K, (480, 640), (192, 256))
    full, reduced = pinhole.pixel_rays(K, (480, 640)), pinhole.pixel_rays(small, (192, 256))

    # The outer corner of the image is half a pixel beyond the first centre, in both.
    def corner(rays):
        return rays[0, 0] - (rays[1, 1] - rays[0, 0]) / 2

    np.testing.assert_allclose(corner(full), corner(reduced), atol=1e-5)


def test_unproject_is_depth_along_z():
    K = pinhole.intrinsics_from_fov((math.radians(60), math.radians(90)), (48, 64))
    points = pinhole.unproject(np.full((48, 64), 2.0), K)
    np.testing.assert_allclose(points[..., 2], 2)
    # The image's edge is at half the field of view: 90 degrees across means x = z there.
    assert points[0, -1, 0] + (points[0, 1, 0] - points[0, 0, 0]) / 2 == pytest.approx(2, abs=1e-5)
    assert np.isnan(pinhole.unproject(np.full((2, 2), np.nan), K)).all()
