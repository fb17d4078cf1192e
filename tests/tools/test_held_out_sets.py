# SPDX-License-Identifier: Apache-2.0
"""No held-out sequence was trained on, shown by arithmetic; and the acceptance run does what it says, at toy size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from omnistream.model.config import BackboneConfig, HeadConfig, ModelConfig
from omnistream.weights import random_model, save_model
from omnistream_sim.worlds.clips import clip_seed
from omnistream_training.data.feed import CLIPS_PER_STEP, STEPS_PER_RUN
from omnistream_training.data.live import seed_of
from omnistream_training.data.source import HELD_OUT
from omnistream_training.evaluation.probe.scenes import FIRST_NUMBER

TOOLS = Path(__file__).resolve().parents[2] / "tools"
MASK = (1 << 64) - 1


def numbers_of(seed: int) -> list[int]:
    """Both clip numbers that `seed_of` sends to a seed: its steps undone, for each value of the bit that it drops."""
    found = []
    for dropped in (0, 1):
        z = (seed << 1) | dropped
        for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9)):
            z = z ^ (z >> shift) ^ (z >> 2 * shift)
            z = z * pow(factor, -1, 1 << 64) & MASK
        z = z ^ (z >> 30) ^ (z >> 60)
        found.append((z - 0x9E3779B97F4A7C15) & MASK)
    return found


@pytest.mark.parametrize("number", [0, 1, 12345, HELD_OUT - 1, HELD_OUT + 7])
def test_the_inverse_is_one(number: int) -> None:
    assert number in numbers_of(seed_of(number))
    assert {seed_of(n) for n in numbers_of(seed_of(number))} == {seed_of(number)}


def test_no_number_that_anything_draws_leads_to_a_held_out_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    from held_out_sets import CLIPS, SEED

    assert (1 << 15) * STEPS_PER_RUN * CLIPS_PER_STEP == HELD_OUT  # all seeds of runs, all their steps
    last = FIRST_NUMBER + (1 << 32)  # beyond training, its held-out clips, and the probe's
    assert all(min(numbers_of(clip_seed(SEED, clip))) > last for clip in range(20 * CLIPS))


def test_nor_to_the_clip_of_the_demo() -> None:
    demo = pytest.importorskip("omnistream_ros.demo_sources", reason="needs rclpy")
    assert min(numbers_of(demo.SEED)) > FIRST_NUMBER + (1 << 32)


def test_the_acceptance_run_at_toy_size(tmp_path: Path) -> None:
    config = ModelConfig(
        backbone=BackboneConfig(dim=32, depth=4, heads=2),
        heads=HeadConfig(taps=(0, 1, 2, 3), projections=(8, 8, 8, 8), features=8),
        camera_token=True,
        image_size=32,
        scale="metric",
    )
    weights = save_model(random_model(config, seed=3), tmp_path / "model", made_by="test")
    words = [sys.executable, str(TOOLS / "eval_default.py"), "--weights", str(weights), "--out", str(tmp_path / "out")]
    words += ["--sets", "worlds", "--clips", "3", "--frames", "8", "--map-clips", "4"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert done.returncode == 1, done.stdout + done.stderr  # random weights are not accepted
    assert "NOT ACCEPTED" in done.stdout and "mean depth map (training set)" in done.stdout
    report = json.loads((tmp_path / "out" / "acceptance.json").read_text())
    assert [(row["set"], row["metric"], row["accepted"]) for row in report["rows"]] == [
        ("worlds", "abs_rel", False),
        ("worlds", "delta1", False),
    ]
    baselines = report["rows"][0]["baselines"]
    assert {"frame by frame", "mean depth map (training set)", "best constant for AbsRel, per sequence"} <= set(
        baselines
    )
    results = json.loads((tmp_path / "out" / "worlds" / "results.json").read_text())
    assert results["options"]["time_base"] == "stamps" and results["findings"]["counts"]["path"] == 0
    assert all(
        found["path"] >= 1 for found in (results["sequences"]["8"]["full"][f"0000/000000{i}"]["pose"] for i in range(3))
    )
    assert "| worlds | AbsRel |" in (tmp_path / "out" / "acceptance.md").read_text()
