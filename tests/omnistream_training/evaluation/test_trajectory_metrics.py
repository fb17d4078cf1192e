# SPDX-License-Identifier: Apache-2.0
"""Errors of paths: known answers, invariances, published errors of real trajectories, evo where it is installed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream.geometry.align import DegenerateError, umeyama
from omnistream.geometry.paths import path_length
from omnistream.geometry.rotations import matrix_from_quaternion
from omnistream.io.trajectory import read_tum
from omnistream_training.evaluation.trajectory_metrics import (
    ape_rmse,
    associate,
    rotation_angle,
    rpe_rmse,
    score_or_worst,
    score_trajectory,
)


def walk(seed: int, count: int = 30) -> np.ndarray:
    """A smooth random camera path [count, 4, 4]."""
    rng = np.random.default_rng(seed)
    step = rigid.transform(
        matrix_from_quaternion(np.c_[rng.normal(size=(count, 3)) * 0.03, np.ones(count)]),
        rng.normal(size=(count, 3)) * 0.05 + [0.1, 0, 0.02],
    )
    poses = [np.eye(4)]
    for move in step[1:]:
        poses.append(poses[-1] @ move)
    return np.array(poses)


def noisy(poses: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    twist = np.c_[rng.normal(size=(len(poses), 3)) * 0.01, np.ones(len(poses))]
    return poses @ rigid.transform(matrix_from_quaternion(twist), rng.normal(size=(len(poses), 3)) * 0.02)


def test_a_path_of_another_scale_and_world_has_no_error():
    reference = walk(0)
    world = rigid.transform(matrix_from_quaternion([0.3, -0.2, 0.5, 1]), [4, 5, 6])
    estimate = world @ reference
    estimate[:, :3, 3] *= 0.25
    scores = score_trajectory(estimate, reference)
    assert scores.ate == pytest.approx(0, abs=1e-9) and scores.rpe_trans == pytest.approx(0, abs=1e-9)
    assert scores.rpe_rot == pytest.approx(0, abs=1e-6) and scores.scale == pytest.approx(4)
    assert scores.ate_rigid > 0.1  # a rigid fit does see the scale


def test_one_wrong_step_of_ten():
    reference = np.broadcast_to(np.eye(4), (11, 4, 4)).copy()
    reference[:, 0, 3] = np.arange(11)
    estimate = reference.copy()
    estimate[6:, 1, 3] += 0.5  # one sideways jump
    turn = matrix_from_quaternion([0, 0, math.sin(math.radians(15)), math.cos(math.radians(15))])
    estimate[6:, :3, :3] = turn
    trans, rot = rpe_rmse(estimate, reference)
    # The jump itself, and afterwards steps that point 30 degrees away from where the camera looks.
    assert rot == pytest.approx(30 / math.sqrt(10))
    assert trans == pytest.approx(math.sqrt((0.5**2 + 4 * (2 * math.sin(math.radians(15))) ** 2) / 10))
    assert rpe_rmse(estimate, reference, delta=10)[1] == pytest.approx(30)
    assert ape_rmse(estimate, reference) == pytest.approx(0.5 * math.sqrt(5 / 11))
    assert path_length(reference) == 10


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_scores_do_not_depend_on_world_or_scale_of_the_estimate(seed, factor):
    reference, rng = walk(seed), np.random.default_rng(seed + 1)
    estimate = noisy(reference, seed + 2)
    moved = rigid.transform(matrix_from_quaternion(rng.normal(size=4)), rng.normal(size=3)) @ estimate
    moved[:, :3, 3] *= factor
    a, b = score_trajectory(estimate, reference), score_trajectory(moved, reference)
    for name in ("ate", "ate_percent", "rpe_trans", "rpe_rot"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-6)
    assert a.scale == pytest.approx(b.scale * factor, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, math.pi), st.integers(0, 2**32 - 1))
def test_rotation_angle(angle, seed):
    axis = np.random.default_rng(seed).normal(size=3)
    axis /= np.linalg.norm(axis)
    rotation = matrix_from_quaternion([*(axis * math.sin(angle / 2)), math.cos(angle / 2)])
    assert rotation_angle(rotation) == pytest.approx(angle, abs=1e-9)


def test_a_camera_that_stands_still_is_refused_or_gets_the_spread():
    reference = walk(1)
    still = np.broadcast_to(np.eye(4), reference.shape)
    with pytest.raises(DegenerateError, match="in one place"):
        score_trajectory(still, reference)
    worst = score_or_worst(still, reference)
    centred = reference[:, :3, 3] - reference[:, :3, 3].mean(axis=0)
    assert worst.ate == pytest.approx(math.sqrt(np.square(centred).sum(axis=1).mean())) and worst.scale == 0
    assert score_or_worst(noisy(reference, 3), reference).ate < worst.ate
    with pytest.raises(InputError, match="30 estimated and 29"):
        score_trajectory(reference, reference[:-1])
    with pytest.raises(InputError, match="at least 2"):
        rpe_rmse(reference[:1], reference[:1])


def test_association_is_one_to_one_and_closest_first():
    pairs = associate([0.0, 1.0, 1.015, 5.0], [1.01, 0.019, 2.0], 0.02)
    assert pairs.tolist() == [[0, 1], [2, 0]]  # 1.015 is closer to 1.01 than 1.0 is; 0.02 itself would not match
    assert associate([0.0], [0.02], 0.02).shape == (0, 2)
    assert associate([2.0, 1.0], [1.001, 2.001], 0.02).tolist() == [[1, 0], [0, 1]]


def read_kitti(path: Path) -> np.ndarray:
    rows = np.loadtxt(path).reshape(-1, 3, 4)
    return np.concatenate([rows, np.broadcast_to([[[0, 0, 0, 1.0]]], (len(rows), 1, 4))], axis=1)


def matched(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    stamps, poses = read_tum(folder / f"freiburg1_xyz-{name}.txt")
    times, reference = read_tum(folder / "freiburg1_xyz-groundtruth.txt")
    pairs = associate(stamps, times, 0.01)
    return poses[pairs[:, 0]], reference[pairs[:, 1]]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "published"), [("ORB", 1.3034497145650266), ("SPTAM", 3.738487907582613)])
def test_published_errors_of_kitti_00(real_data, name, published):
    folder = real_data / "trajectories_a"
    estimate, reference = (read_kitti(folder / f"KITTI_00_{which}.txt") for which in (name, "gt"))
    assert score_trajectory(estimate, reference).ate_rigid == pytest.approx(published, rel=1e-9)


@pytest.mark.realdata
def test_known_errors_of_freiburg1_xyz(real_data):
    folder = real_data / "trajectories_a"
    estimate, reference = matched(folder, "rgbdslam")
    assert len(estimate) == 785
    assert score_trajectory(estimate, reference).ate_rigid == pytest.approx(0.013470, abs=5e-7)
    assert rpe_rmse(estimate, reference)[0] == pytest.approx(0.005764, abs=5e-7)
    mono = score_trajectory(*matched(folder, "ORB_kf_mono"))
    assert mono.ate == pytest.approx(0.009755, abs=5e-7) and mono.scale == pytest.approx(1.1056223637, abs=5e-11)


def test_evo_agrees():
    pytest.importorskip("evo.core.metrics", reason="evo (GPL) is only a test oracle: pip install evo")
    from evo.core import metrics
    from evo.core.trajectory import PosePath3D

    for seed in range(5):
        reference = walk(seed)
        estimate = noisy(reference, seed + 100)
        estimate[:, :3, 3] *= 3
        ours = score_trajectory(estimate, reference)
        theirs, truth = PosePath3D(poses_se3=list(estimate)), PosePath3D(poses_se3=list(reference))
        theirs.align(truth, correct_scale=True)
        found = {}
        for name, metric in {
            "ate": metrics.APE(metrics.PoseRelation.translation_part),
            "rpe_trans": metrics.RPE(metrics.PoseRelation.translation_part, 1, metrics.Unit.frames, all_pairs=True),
            "rpe_rot": metrics.RPE(metrics.PoseRelation.rotation_angle_deg, 1, metrics.Unit.frames, all_pairs=True),
        }.items():
            metric.process_data((truth, theirs))
            found[name] = metric.get_statistic(metrics.StatisticsType.rmse)
        assert found == pytest.approx({name: getattr(ours, name) for name in found}, rel=1e-9)
        assert ours.scale == pytest.approx(umeyama(estimate[:, :3, 3], reference[:, :3, 3], with_scale=True).scale)
        np.testing.assert_allclose(
            theirs.positions_xyz[0],
            umeyama(estimate[:, :3, 3], reference[:, :3, 3], with_scale=True).points(estimate[0, :3, 3]),
        )
