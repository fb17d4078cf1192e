# SPDX-License-Identifier: Apache-2.0
"""The gate's table, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from omnistream.errors import ConfigError
from omnistream.stream.gate import DropReason, ResetReason, StreamGate
from omnistream.stream.rectify import Lens

K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
SIZE = (480, 640)


def test_a_steady_stream_steps():
    gate = StreamGate("index", max_gap=0.5)
    for i in range(10):
        assert gate.check(1e9 + i / 30, SIZE, "cam", K).action == "step"


def test_equal_stamp_is_dropped_and_leaves_the_gate_as_it_was():
    gate = StreamGate("index")
    gate.check(1.0, SIZE)
    verdict = gate.check(1.0, (1, 1))
    assert (verdict.action, verdict.reason) == ("drop", DropReason.EQUAL_STAMP)
    assert gate.check(1.1, SIZE).action == "step"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ((0.5, SIZE, "cam", K), ResetReason.STAMP_BACK),
        ((1.1, (240, 320), "cam", K), ResetReason.SIZE_CHANGED),
        ((1.1, SIZE, "other", K), ResetReason.FRAME_ID_CHANGED),
        ((1.1, SIZE, "cam", K * 1.01), ResetReason.CALIBRATION_CHANGED),
        ((9.0, SIZE, "cam", K), ResetReason.GAP),
    ],
)
def test_resets(event, reason):
    gate = StreamGate("index", max_gap=1.0)
    gate.check(1.0, SIZE, "cam", K)
    verdict = gate.check(*event)
    assert (verdict.action, verdict.reason) == ("reset", reason)
    assert verdict.detail
    assert gate.check(event[0] + 0.1, *event[1:]).action == "step"  # the new normal


def test_frames_that_came_and_were_not_used_are_no_gap():
    gate = StreamGate("index", max_gap=0.5)
    gate.heard(0.5)  # before the first frame there is nothing to pause
    gate.check(1.0, SIZE)
    for stamp in (1.4, 1.8, 1.6, 2.2):
        gate.heard(stamp)
    assert gate.check(2.6, SIZE).action == "step"
    gate.heard(3.0)
    gate.heard(4.0)  # nothing for a second
    assert gate.check(4.1, SIZE).reason == ResetReason.GAP
    assert gate.check(4.2, SIZE).action == "step"
    gate.heard(4.3)
    assert gate.check(5.0, SIZE).reason == ResetReason.GAP
    gate.heard(9.0)
    gate.reset()
    assert gate.check(5.1, SIZE).action == "step"


def test_a_gap_is_only_time_under_stamps():
    gate = StreamGate("stamps", max_gap=1.0)
    gate.check(1.0, SIZE)
    assert gate.check(100.0, SIZE).action == "step"


def test_missing_calibration_is_no_change():
    gate = StreamGate("index")
    gate.check(1.0, SIZE, None, None)
    assert gate.check(1.1, SIZE, "cam", K).action == "step"
    assert gate.check(1.2, SIZE, None, None).action == "step"
    assert gate.check(1.3, SIZE, "cam", K).action == "step"


def lens(*D: float, model: str = "plumb_bob") -> Lens:
    return Lens(tuple(K.ravel().tolist()), D, model)


BENT = lens(-0.2, 0.05, 0.0, 0.0)


@pytest.mark.parametrize(
    ("before", "after", "how"),
    [
        (None, BENT, "began"),
        (BENT, None, "ended"),
        (BENT, lens(-0.3, 0.05, 0.0, 0.0), "changed"),
        (BENT, lens(-0.2, 0.05, 0.0, 0.0, model="equidistant"), "changed"),
        (BENT, lens(-0.2, 0.05), "changed"),
    ],
)
def test_another_undistortion_resets(before, after, how):
    """The memory holds pictures that looked otherwise."""
    gate = StreamGate("index")
    gate.check(1.0, SIZE, "cam", K, before)
    verdict = gate.check(1.1, SIZE, "cam", K, after)
    assert (verdict.action, verdict.reason) == ("reset", ResetReason.CALIBRATION_CHANGED)
    assert verdict.detail == f"undistortion {how}"
    assert gate.check(1.2, SIZE, "cam", K, after).action == "step"


def test_without_stamps_only_sizes_count():
    gate = StreamGate("index")
    gate.check(None, SIZE)
    assert gate.check(None, SIZE).action == "step"


@pytest.mark.parametrize("kwargs", [{"time_base": "wall"}, {"max_gap": 0}, {"max_gap": float("nan")}])
def test_bad_settings_are_named(kwargs):
    with pytest.raises(ConfigError, match=next(iter(kwargs))):
        StreamGate(**kwargs)
