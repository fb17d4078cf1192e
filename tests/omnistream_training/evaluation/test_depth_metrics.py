# SPDX-License-Identifier: Apache-2.0
"""Depth alignments and errors: known answers, scale invariance, and the protocol's own optimisers in torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistream.errors import ConfigError, InputError
from omnistream_training.evaluation import depth_align
from omnistream_training.evaluation.depth_align import ALIGNMENTS, align_depth
from omnistream_training.evaluation.depth_metrics import (
    DepthSums,
    depth_metrics,
    pool,
    sequence_weights,
    valid_pixels,
)


def pair(seed: int, count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.uniform(0.5, 8, count).astype(np.float32)
    return (reference * rng.lognormal(0.3, 0.2, count)).astype(np.float32), reference


def test_known_answers():
    metrics = depth_metrics(np.array([1.0, 3.0, 4.0]), np.array([1.0, 2.0, 5.0]))
    assert metrics["abs_rel"] == pytest.approx((0 + 1 / 2 + 1 / 5) / 3)
    assert metrics["sq_rel"] == pytest.approx((0 + 1 / 2 + 1 / 5) / 3)
    assert metrics["rmse"] == pytest.approx(math.sqrt(2 / 3))
    assert metrics["log_rmse"] == pytest.approx(math.sqrt((math.log(1.5) ** 2 + math.log(1.25) ** 2) / 3))
    assert metrics["delta1"] == pytest.approx(1 / 3)  # 5 / 4 is not below 1.25
    assert metrics["delta2"] == pytest.approx(3 / 3)
    assert depth_metrics(np.array([2.0]), np.array([1.0]))["delta3"] == 0.0


def test_a_perfect_prediction():
    reference = pair(0)[1]
    metrics = depth_metrics(reference, reference)
    assert all(metrics[name] == 0 for name in ("abs_rel", "sq_rel", "rmse", "log_rmse"))
    assert all(metrics[name] == 1 for name in ("delta1", "delta2", "delta3"))


def test_negative_predictions_count_but_do_not_break_logarithms():
    metrics = depth_metrics(np.array([-1.0]), np.array([1.0]))
    assert metrics["abs_rel"] == 2.0 and metrics["log_rmse"] == pytest.approx(math.log(1e5)) and metrics["delta3"] == 0


def test_sums_are_pixel_means_over_any_cut_and_counts_repeat_pixels():
    predicted, reference = pair(1)
    parts = DepthSums()
    parts.add(predicted[:100], reference[:100])
    parts.add(predicted[100:], reference[100:])
    counted = DepthSums()
    counted.add(predicted, reference, np.full(500, 3.0))
    whole = depth_metrics(predicted, reference)
    assert parts.metrics() == pytest.approx(whole) and counted.metrics() == pytest.approx(whole)
    assert parts.pixels == 500 and counted.pixels == 1500
    assert math.isnan(DepthSums().metrics()["abs_rel"])


def test_chunks_do_not_change_a_number(monkeypatch):
    predicted, reference = pair(2)
    before = [align_depth(kind, predicted, reference) for kind in ALIGNMENTS], depth_metrics(predicted, reference)
    monkeypatch.setattr(depth_align, "CHUNK", 7)
    after = [align_depth(kind, predicted, reference) for kind in ALIGNMENTS], depth_metrics(predicted, reference)
    assert after[1] == pytest.approx(before[1])
    for a, b in zip(after[0], before[0], strict=True):
        assert (a.scale, a.shift) == pytest.approx((b.scale, b.shift), abs=1e-9)


def test_bad_depth_is_refused():
    with pytest.raises(InputError, match="not finite"):
        depth_metrics(np.array([np.nan]), np.array([1.0]))
    with pytest.raises(InputError, match="not positive"):
        depth_metrics(np.array([1.0]), np.array([0.0]))
    with pytest.raises(ConfigError, match="alignment 'best'"):
        align_depth("best", *pair(0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="P > 0"):
        align_depth("scale", np.empty(0), np.empty(0))


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_an_exact_multiple_is_undone(kind):
    reference = pair(3)[1]
    aligned = align_depth(kind, 2 * reference, reference)(2 * reference)
    if kind == "metric":
        np.testing.assert_array_equal(aligned, 2 * reference)
    else:
        np.testing.assert_allclose(aligned, reference, rtol={"scale_shift": 2e-3, "scale": 1e-5}.get(kind, 1e-6))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_errors_after_alignment_do_not_depend_on_the_unit_of_the_prediction(seed, factor):
    predicted, reference = pair(seed)
    for kind in ("scale_exact", "median", "lstsq", "lstsq_disparity"):
        values = [
            depth_metrics(align_depth(kind, p, reference)(p), reference)
            for p in (predicted, predicted.astype(np.float64) * factor)
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-5, abs=2.1e-3), kind


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12))
def test_no_scale_has_a_smaller_absolute_error_than_the_exact_one(pairs):
    predicted, reference = np.array(pairs, np.float64).T / 8
    best = np.abs(align_depth("scale_exact", predicted, reference)(predicted) - reference).sum()
    candidates = reference / predicted  # the optimum is one of them
    assert best <= min(np.abs(scale * predicted - reference).sum() for scale in candidates) + 1e-9


@pytest.mark.parametrize("steps", [None, 5000.0])
def test_the_published_scale_is_ten_rounds_in_its_own_precision(steps):
    """The formula again, in torch and in the types of the published code: float32 depth, float64 integers / 5000."""
    rng = np.random.default_rng(8)
    units = rng.integers(1000, 40000, 100_000)
    predicted = (units / 5000 * rng.lognormal(-0.5, 0.4, units.size)).astype(np.float32)
    p, g = torch.from_numpy(predicted), torch.from_numpy(units / 5000 if steps else (units / 5000).astype(np.float32))
    scale = g.mean() / p.mean()
    for _ in range(10):
        weights = 1 / ((scale * p - g).abs() + 1e-8)
        scale = (weights * p * g).sum() / (weights * p**2).sum()
    found = align_depth("scale", predicted, (units / 5000).astype(np.float32), steps_per_metre=steps).scale
    assert found == pytest.approx(float(scale), rel=1e-12)
    exact = align_depth("scale_exact", predicted, (units / 5000).astype(np.float32)).scale
    assert found > 1.01 * exact  # ten rounds do not arrive
    assert align_depth("scale", np.full(3, -5.0), np.ones(3)).scale == depth_align.MIN_SCALE


def test_one_outlier_does_not_move_the_scale():
    reference = pair(7)[1]
    predicted = 3 * reference
    predicted[0] = 100.0
    assert align_depth("scale_exact", predicted, reference).scale == pytest.approx(1 / 3, rel=1e-6)
    assert align_depth("scale", predicted, reference).scale == pytest.approx(1 / 3, rel=1e-3)
    assert align_depth("lstsq", predicted, reference).scale < 0.25


def test_least_squares_are_numpys():
    predicted, reference = pair(5)
    found = align_depth("lstsq", predicted, reference)
    assert (found.scale, found.shift) == pytest.approx(tuple(np.polyfit(predicted, reference, 1)), rel=1e-4)
    flat = align_depth("lstsq", np.full(500, 2.0), reference)
    np.testing.assert_allclose(flat(np.full(500, 2.0)), reference.mean(), rtol=1e-6)
    inverse = align_depth("lstsq_disparity", predicted, reference)
    assert (inverse.scale, inverse.shift) == pytest.approx(tuple(np.polyfit(1 / predicted, 1 / reference, 1)), rel=1e-4)
    assert inverse.disparity and (inverse(np.array([1e9])) >= 0).all()


def test_the_median_is_the_lower_one_as_in_torch():
    predicted, reference = np.array([1.0, 2.0, 3.0, 10.0]), np.array([4.0, 6.0, 8.0, 9.0])
    assert align_depth("median", predicted, reference).scale == 6 / 2
    assert torch.median(torch.tensor(predicted)) == 2


def test_scale_and_shift_walk_as_adam_does():
    predicted, reference = pair(6, 200)
    p, g = (torch.from_numpy(values).double() for values in (predicted, reference))
    s = (g.median() / p.median()).clone().requires_grad_()
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([s, t], lr=1e-4)
    for _ in range(1000):
        adam.zero_grad()
        (s * p + t - g).abs().sum().backward()
        adam.step()
    found = align_depth("scale_shift", predicted, reference)
    assert (found.scale, found.shift) == pytest.approx((float(s.detach()), float(t.detach())), abs=1e-7)


def test_valid_pixels():
    reference = np.array([np.nan, np.inf, -1.0, 0.0, 0.1, 69.9, 70.0])
    assert valid_pixels(reference).tolist() == [False, False, False, False, True, True, True]
    assert valid_pixels(reference, 0.15, 70.0).tolist() == [False] * 5 + [True, False]


def test_pooling_by_pixels_and_by_sequences():
    metrics = [{"abs_rel": 0.1}, {"abs_rel": 0.4}]
    assert pool(metrics, sequence_weights([300, 100], "pixels"))["abs_rel"] == pytest.approx(0.175)
    assert pool(metrics, sequence_weights([300, 100], "sequences"))["abs_rel"] == pytest.approx(0.25)
    with pytest.raises(ConfigError, match="weighting"):
        sequence_weights([1], "frames")  # type: ignore[arg-type]
