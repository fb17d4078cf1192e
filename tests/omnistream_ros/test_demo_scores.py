# SPDX-License-Identifier: Apache-2.0
"""The demo's numbers: known answers, the evaluation's own definitions, and the pace it picks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from omnistream.geometry import rigid
from omnistream_msgs.msg import StageLatency, StreamStatus
from omnistream_ros.demo_pace import FASTEST, SHARE, SLOWEST, measured_rate
from omnistream_ros.demo_scores import depth_scores, path_scores
from omnistream_ros.recorder import Recorder
from omnistream_training.evaluation.baselines import DepthHistogram, simple_paths
from omnistream_training.evaluation.trajectory_metrics import score_trajectory

pytestmark = pytest.mark.ros


def walk(count: int = 40, seed: int = 0) -> np.ndarray:
    """Poses [count, 4, 4] of a wandering, turning camera."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(size=(count, 3)).cumsum(0), rng.normal(size=(count, 4)) * 0.1], 1)
    values[:, 6] += 1
    values[:, 3:] /= np.linalg.norm(values[:, 3:], axis=1, keepdims=True)
    return rigid.from_translation_quaternion(values)


def test_a_perfect_path_in_another_world_and_scale_has_no_error() -> None:
    true = walk()
    own = rigid.from_translation_quaternion([1, 2, 3, 0.5, 0.5, 0.5, 0.5]) @ true
    own[:, :3, 3] *= 7
    found = path_scores(own, true)
    assert found["ate_percent"] == pytest.approx(0, abs=1e-9) and found["rotation_deg"] == pytest.approx(0, abs=1e-6)
    assert found["scale"] == pytest.approx(1 / 7)


def test_path_scores_are_those_of_the_evaluation() -> None:
    true, own = walk(seed=1), walk(seed=2)
    found, simple = path_scores(own, true), simple_paths(true)
    assert found["ate_percent"] == pytest.approx(score_trajectory(own, true).ate_percent)
    assert found["line_ate_percent"] == pytest.approx(simple["straight line"]["ate_percent"])
    assert found["still_ate_percent"] == pytest.approx(simple["standing still"]["ate_percent"])


def test_a_camera_that_never_moves_scores_as_standing_still() -> None:
    true = walk()
    found = path_scores(np.broadcast_to(np.eye(4), true.shape), true)
    assert found["ate_percent"] == found["still_ate_percent"]
    assert found["rotation_deg"] == pytest.approx(found["still_rotation_deg"])


def test_a_known_rotation_error_in_degrees() -> None:
    true = np.tile(np.eye(4), (3, 1, 1))
    true[:, 0, 3] = 0, 1, 3
    own = true.copy()
    half = np.radians(30) / 2
    own[1:] = rigid.from_translation_quaternion([0, 0, 0, 0, 0, np.sin(half), np.cos(half)])
    assert path_scores(own, true)["rotation_deg"] == pytest.approx(20)  # of 0, 30, 30


def test_depth_and_its_best_constants() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0.3, 4.0, (5, 12, 16))
    true[0, 0, 0] = np.nan
    found = depth_scores([(t * 1.1, t) for t in true], metric=True)
    assert found["abs_rel"] == pytest.approx(0.1) and found["delta1"] == 1.0 and found["images"] == 5
    assert depth_scores([(t * 9, t) for t in true], metric=False)["abs_rel"] == pytest.approx(0, abs=1e-9)
    histogram = DepthHistogram()
    histogram.add(true[np.isfinite(true)])
    best = histogram.metrics_of_constant(histogram.best_for_abs_rel())["abs_rel"]
    assert found["constant_abs_rel"] == pytest.approx(best, rel=1e-5)
    best = histogram.metrics_of_constant(histogram.best_for_delta1())["delta1"]
    assert found["constant_delta1"] == pytest.approx(best, abs=2e-3)
    assert depth_scores([], metric=True) == {}


@pytest.mark.parametrize(("model_ms", "rate"), [(40.0, SHARE * 1e3 / 50), (0.001, FASTEST), (90_000.0, SLOWEST)])
def test_the_pace_is_what_simulator_and_model_keep_up_with(model_ms: float, rate: float) -> None:
    def recorder(processed: int, **counters: str) -> Recorder:
        stages = [StageLatency(stage="backbone", p50_ms=model_ms), StageLatency(stage="total", p50_ms=9 * model_ms)]
        status = StreamStatus(frames_processed=processed, latencies=stages)
        return cast(Any, SimpleNamespace(status=status, camera_counters=counters))

    expected = rate if model_ms == 40.0 else min(max(SHARE * 1e3 / (model_ms + 10), SLOWEST), FASTEST)
    assert measured_rate(recorder(20, busy_ms="10")) == pytest.approx(expected)
    assert measured_rate(recorder(2, busy_ms="10")) is None, "too early"
    assert measured_rate(recorder(20)) is None
