# SPDX-License-Identifier: Apache-2.0
"""How fast the demo's simulator may run: as fast as simulator and model keep up with on this machine."""

from __future__ import annotations

import math

from omnistream_ros.recorder import Recorder

TRIAL_FRAMES = 6
"""After so many results their latencies tell something."""
SHARE = 0.6
"""Of the machine's speed that is used: the recorder works too, and a step varies."""
SLOWEST, FASTEST = 0.5, 30.0
"""Hz."""
STAGES = ("preprocess", "backbone", "heads", "publish")
"""Of the model; without waiting, which another pace would change."""


def measured_rate(recorder: Recorder) -> float | None:
    """Hz on the wall that this machine keeps up with; None while it is not known.

    Simulator and model are taken to wait for each other, as they do on few or busy cores: their times are added up.
    """
    status = recorder.status
    if status is None or status.frames_processed < TRIAL_FRAMES:
        return None
    model_ms = sum(stage.p50_ms for stage in status.latencies if stage.stage in STAGES and math.isfinite(stage.p50_ms))
    try:
        simulator_ms = float(recorder.camera_counters["busy_ms"])
    except (KeyError, ValueError):
        return None
    if not model_ms > 0:
        return None
    return min(max(SHARE * 1e3 / (model_ms + simulator_ms), SLOWEST), FASTEST)
