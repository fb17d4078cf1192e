# SPDX-License-Identifier: Apache-2.0
"""From Bridge's own files to actions that SIMPLER takes; pictures are resized as SIMPLER's wrappers do."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnistream.policy.checkpoint import load_policy
from omnistream.policy.session import PolicySession
from omnistream_sim.evaluation.checkpoint_policy import CheckpointPolicy
from omnistream_sim.evaluation.convention import euler_to_body_euler
from omnistream_sim.simpler import benchmark
from omnistream_sim.simpler.environment import CONVENTION
from omnistream_training.cli import main as train
from tests.omnistream_training.policy.test_true_formats import SMALL, write_bridge


def test_a_policy_trained_on_bridge_acts_in_simpler(tmp_path: Path) -> None:
    where = ["--data.folders", str(write_bridge(tmp_path / "bridge_dataset")), "--cache", str(tmp_path / "cache")]
    still = ["--data.no-state", "--data.still", "hold"]
    assert train(["policy", str(tmp_path / "run"), "--preset", "tabletop_tiny", *where, *still, *SMALL]) == 0
    best = tmp_path / "run" / "best"
    policy = CheckpointPolicy(best, convention=CONVENTION, weights="default", device="cpu")  # the word is no folder
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    chunk = policy({"rgb_static": picture, "state": np.zeros(15)}, "put the spoon on the towel")

    session = PolicySession(load_policy(best), device="cpu")
    session.set_instruction("put the spoon on the towel")
    camera = session.policy.contract.camera("image_0")
    small = np.asarray(Image.fromarray(picture).resize((camera.width, camera.height), Image.Resampling.LANCZOS))
    said = session.step({"image_0": small}).actions
    assert chunk[:, :3] == pytest.approx(said[:, :3])  # metres, as they are
    assert chunk[:, 3:6] == pytest.approx(euler_to_body_euler(said[:, 3:6]))
    assert chunk[:, 6].tolist() == [1.0 if value > 0.5 else -1.0 for value in said[:, 6]]


def test_the_gripper_rule_is_put_around_any_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "require_simpler", lambda tasks: None)
    ruled = benchmark.simpler_benchmark(tasks=("carrot",), late_close=2)
    assert ruled.settings["late_close"] == 2 and any("2 wishes" in words for words in ruled.deviations)
    wrap = pickle.loads(pickle.dumps(ruled.wrap))  # as a worker gets it
    policy = wrap(lambda observation, instruction: [[0.0] * 6 + [-1.0]] * 3)
    policy.reset()
    assert [policy.carry_out(row)[6] for row in policy({}, "x")] == [1, -1, -1]
    assert benchmark.simpler_benchmark(tasks=("carrot",)).wrap is None
