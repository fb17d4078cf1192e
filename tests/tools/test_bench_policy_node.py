# SPDX-License-Identifier: Apache-2.0
"""`make bench-policy-node` measures and writes what it says. Its numbers are not judged here."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "bench_policy_node.py"
FAULTS = {"stop", "estop", "camera", "frozen", "instruction", "rival", "nan", "inference", "stall"}


@pytest.mark.ros
@pytest.mark.slow
def test_a_short_run_gives_a_complete_report(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    words = [sys.executable, str(SCRIPT), "--model", "nano", "--seconds", "2", "--repeats", "2", "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert set(report["jitter_ms"]) == {"p50", "p99", "max", "count", "stops"}
    assert set(report["time_to_stop_ms"]) == FAULTS
    assert report["machine_late_ms"]["p99"] >= 0
    assert all(math.isfinite(values["p99"]) for values in report["time_to_stop_ms"].values())
    assert report["limits"] == {"jitter_p99_ms": 10.0, "stop_p99_ms": 100.0}
    assert report["environment"]["machine"]["processor"]
