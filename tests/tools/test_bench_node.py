# SPDX-License-Identifier: Apache-2.0
"""`make bench-node` measures and writes what it says. The numbers of a shared test machine are not judged here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "bench_node.py"


@pytest.mark.ros
@pytest.mark.slow
def test_a_short_run_gives_a_complete_report(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    words = [sys.executable, str(SCRIPT), "--images", "5", "--seconds", "1", "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    small = report["added_ms"]["small"]
    assert set(small) == {"node", "session", "added"}
    assert small["session"]["p50"] > 0 and small["node"]["p50"] > 0
    loss = report["loss"]
    assert loss["sent"] == 30 and loss["received"] + loss["lost"] == loss["sent"]
    assert loss["depth_images_back"] == loss["processed"]
    assert report["environment"]["machine"]["processor"]
