# SPDX-License-Identifier: Apache-2.0
"""Baselines: the constants are the best there are, the line is the best line, intervals cover what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream_training.evaluation import baselines
from omnistream_training.evaluation.baselines import DepthHistogram, DepthMap, simple_paths, straight_line_ate
from omnistream_training.evaluation.bootstrap import crossed_difference, interval, paired_difference
from omnistream_training.evaluation.depth_metrics import depth_metrics
from omnistream_training.evaluation.trajectory_metrics import score_trajectory


def histogram(*depths: np.ndarray) -> DepthHistogram:
    found = DepthHistogram()
    for depth in depths:
        found.add(np.asarray(depth, np.float32))
    return found


def positions(points: np.ndarray) -> np.ndarray:
    return rigid.transform(np.eye(3), points)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_no_constant_is_better(units):
    depth = np.array(units, np.float32) / 40
    found = histogram(depth)
    assert found.pixels == len(units)
    best = found.metrics_of_constant(found.best_for_abs_rel())["abs_rel"]
    most = found.metrics_of_constant(found.best_for_delta1())["delta1"]
    grid = np.concatenate([depth, np.geomspace(0.02, 12, 300)])
    for constant in grid:
        metrics = depth_metrics(np.full(depth.size, constant), depth)
        assert metrics["abs_rel"] >= best - 1e-9
        assert metrics["delta1"] <= most + 1e-9


def test_constants_on_known_depths():
    found = histogram([1, 1, 2, 4], [4, 4])
    assert found.values.tolist() == [1, 2, 4] and found.counts.tolist() == [2, 1, 3]
    assert found.best_for_abs_rel() == 1  # half of the weights 2/1 + 1/2 + 3/4 lies on it
    assert found.best_for_delta1() == pytest.approx(4)
    assert found.metrics_of_constant(2.0)["abs_rel"] == pytest.approx((2 * 1 + 0 + 3 * 0.5) / 6)


def test_depths_on_the_edge_of_the_threshold_do_not_count():
    assert histogram([1.0, 1.5625]).metrics_of_constant(1.25)["delta1"] == 0
    found = histogram([1.0, 1.5625])
    assert found.metrics_of_constant(found.best_for_delta1())["delta1"] == 0.5


def test_union_weighs_its_parts():
    both = DepthHistogram.union([histogram([1, 2]), histogram([2, 3, 3, 3])], [1 / 2, 1 / 4])
    assert both.values.tolist() == [1, 2, 3] and both.counts.tolist() == [0.5, 0.75, 0.75]


def test_a_million_different_depths_are_rounded_finely(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_VALUES", 1000)
    depth = np.random.default_rng(0).uniform(1.0, 1.1, 5000).astype(np.float32)
    found = histogram(depth)
    assert found.pixels == 5000
    exact = np.sort(depth)[np.searchsorted(np.cumsum(1 / np.sort(depth)), (1 / depth).sum() / 2)]
    assert found.best_for_abs_rel() == pytest.approx(exact, rel=1e-5)


def test_mean_depth_map():
    depth = np.tile(np.linspace(1, 3, 64, dtype=np.float32), (48, 1))
    valid = np.ones(depth.shape, bool)
    valid[:, :2] = False  # the first column of cells never has a value
    first, second = DepthMap(), DepthMap()
    first.add(depth, valid)
    second.add(depth + 2, valid)
    total = DepthMap(first.sums + second.sums, first.counts + second.counts)
    assert total.mean().shape == DepthMap.GRID
    np.testing.assert_allclose(total.mean()[:, -1], 4, atol=0.05)
    np.testing.assert_allclose(total.mean()[:, 0], (depth + 1)[valid].mean(), rtol=1e-5)
    np.testing.assert_allclose(total.minus(second).mean()[:, 1:], first.mean()[:, 1:])
    assert (DepthMap().mean() == 1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_straight_line_is_what_sim3_makes_of_one(seed):
    points = np.cumsum(np.random.default_rng(seed).normal(size=(20, 3)), axis=0)
    reference = positions(points)
    # A line with an invisible bend, which makes its rotation about itself determined.
    line = positions(np.c_[np.arange(20), 1e-6 * np.arange(20) ** 2, np.zeros(20)])
    assert straight_line_ate(reference) == pytest.approx(score_trajectory(line, reference).ate, rel=1e-4)


def test_simple_paths_on_a_quarter_circle_and_a_line():
    angle = np.linspace(0, math.pi / 2, 400)
    paths = simple_paths(positions(np.c_[np.cos(angle), np.sin(angle), 0 * angle]))
    assert paths["standing still"]["ate"] > paths["straight line"]["ate"] > 0.05
    assert paths["standing still"]["rpe_trans"] == pytest.approx(math.pi / 2 / 399, rel=1e-4)
    assert paths["standing still"]["rpe_rot"] == 0
    line = simple_paths(positions(np.arange(9)[:, None] * [[1.0, 2.0, -1.0]]))
    assert line["straight line"]["ate"] == pytest.approx(0, abs=1e-12)
    assert line["standing still"]["ate_percent"] == pytest.approx(100 * math.sqrt(20 / 3) / 8)


def test_intervals_shrink_and_cover():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        found = interval(rng.normal(1.0, 1.0, 40), seed=trial)
        covered += found.low <= 1.0 <= found.high
    assert 85 <= covered <= 100
    few, many = (interval(rng.normal(size=count)) for count in (10, 1000))
    assert many.high - many.low < few.high - few.low
    one = interval([2.0])
    assert one.value == 2.0 and math.isnan(one.low) and not one.excludes_zero


def test_paired_differences_see_what_unpaired_means_do_not():
    rng = np.random.default_rng(1)
    hard = rng.uniform(0.1, 2.0, 30)  # sequences differ far more than the two methods
    found = paired_difference(hard * 0.9, hard)
    assert found.excludes_zero and found.high < 0
    assert interval(hard * 0.9).high > interval(hard).low
    weighted = paired_difference([1.0, 0.0], [0.0, 0.0], [3, 1])
    assert weighted.value == 0.75
    with pytest.raises(InputError, match="2 and 3 sequences"):
        paired_difference([1, 2], [1, 2, 3])
    assert interval(hard, seed=3) == interval(hard, seed=3)


def test_seeds_that_disagree_widen_the_interval_and_one_seed_is_the_paired_difference():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.1, 0.3, 60)
    a = np.stack([base - 0.02 + rng.normal(0, 0.005, 60) for _ in range(3)])
    b = np.stack([base + rng.normal(0, 0.005, 60) for _ in range(3)])
    agree = crossed_difference(a, b)
    assert agree.high < 0 and agree.value == pytest.approx((a - b).mean())
    # Seeds that differ by more than the two sides do: over sequences alone it would be clear, over seeds it is not.
    unsteady = a + np.array([[-0.06], [0.0], [0.06]])
    assert paired_difference(unsteady.mean(0), b.mean(0)).excludes_zero
    assert not crossed_difference(unsteady, b).excludes_zero
    one, same = crossed_difference(a[0], b[0]), paired_difference(a[0], b[0])
    assert (one.value, one.low, one.high) == pytest.approx((same.value, same.low, same.high), abs=2e-4)
    weighted = crossed_difference(a[:1], b[:1], np.eye(60)[3] + 1e-9)
    assert weighted.value == pytest.approx(a[0, 3] - b[0, 3], abs=1e-6)
    with pytest.raises(InputError, match="same sequences"):
        crossed_difference(a, b[:, 1:])
    assert np.isnan(crossed_difference(a[:, :1], b[:, :1]).low)
