# SPDX-License-Identifier: Apache-2.0
"""How fast the demo's simulator may run: as fast as simulator, model and policy keep up with on this machine."""

from __future__ import annotations

import math

from omnistream_msgs.msg import PolicyStatus
from omnistream_ros.recorder import Recorder

TRIAL_FRAMES = 6
"""After so many results their latencies tell something."""
SHARE = 0.6
"""Of the machine's speed that is used: the recorder works too, and a step varies."""
TRIAL_CHUNKS = 5
"""Predictions; the first is slow."""
POLICY_SHARE = 0.8
SLOWEST_ROBOT = 0.1
"""Of real time."""
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


def measured_factor(policy: PolicyStatus | None, simulator_ms: float, rate: float) -> float | None:
    """Simulated seconds per second for a robot of `rate` Hz, at most 1; None while it is not known.

    Simulator and policy are two processes, so the slower one decides; a robot that acts late acts worse.
    """
    if policy is None or policy.chunks < TRIAL_CHUNKS:
        return None
    stages = {stage.stage: stage.p50_ms for stage in policy.latencies}
    slowest_ms = max(simulator_ms, stages.get("total", math.nan))
    if not slowest_ms > 0 or "total" not in stages or not math.isfinite(simulator_ms):
        return None
    return min(1.0, max(POLICY_SHARE * 1e3 / (slowest_ms * rate), SLOWEST_ROBOT))
