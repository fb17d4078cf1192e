# SPDX-License-Identifier: Apache-2.0
"""Simulator and training meet in files: demonstrations, a policy trained on them, its score, by commands alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("gymnasium", reason='needs gymnasium: pip install "omnistream[sim]"')
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')
pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "omnistream[io]"')
pytest.importorskip("transformers", reason='needs transformers: pip install "omnistream[vla]"')

from omnistream_sim.cli import main as sim
from omnistream_training.policy.command import run_command
from omnistream_training.robot_data.cli import main as data

SEEN = ["--static", "32", "--gripper", "0"]


def test_from_demonstrations_to_a_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demos, run = str(tmp_path / "demos"), tmp_path / "run"
    words = ["--episodes", "4", "--tasks", "button", "--later", "0", *SEEN]
    assert sim(["demos", "tabletop", demos, *words]) == 0
    words = [str(run), "--preset", "tabletop", "--data.folders", demos, "--cache", str(tmp_path / "cache")]
    words += ["--policy.vision.source", "pixels", "--policy.vision.image-size", "32", "--steps", "3", "--batch", "8"]
    assert run_command([*words, "--eval-frames", "16", "--overlays", "0", "--device", "cpu"])
    words = ["tabletop", "--policy", str(run / "best"), "--episodes", "1", "--max-steps", "9", "--execute", "4"]
    for name, told in (("told", "unseen"), ("blank", "blank")):
        assert sim([*words, "--tasks", "button", "--told", told, "--out", str(tmp_path / name), *SEEN]) == 0
    report = json.loads((tmp_path / "told" / "results.json").read_text())
    assert report["success"]["total"] == 1 and report["digests"]
    assert (tmp_path / "told" / "sheet.png").exists()
    capsys.readouterr()
    # Another size of picture than that of the demonstrations is refused, with both sides.
    assert sim([*words, "--out", str(tmp_path / "other"), "--static", "48", "--gripper", "0"]) == 1
    assert "[48, 48, 3]; the contract says [32, 32, 3]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.ros
def test_from_recorded_bags_to_a_policy_that_does_it(tmp_path: Path) -> None:
    """A robot's whole way by commands alone: record over ROS 2, import, check, train, and the task is done."""
    pytest.importorskip("rclpy", reason="needs rclpy: pip install -e '.[ros]'")
    robot, data_set, run = tmp_path / "robot", str(tmp_path / "set"), tmp_path / "run"
    seen = ["--static", "160", "--gripper", "96"]
    assert sim(["record", "tabletop", str(robot), "--episodes", "60", "--tasks", "drawer", "--speed", "2", *seen]) == 0
    bags, mapping = str(robot / "bags"), str(robot / "mapping.yaml")
    assert data(["import", bags, "--mapping", mapping, "--out", data_set]) == 0
    assert data(["check", data_set]) == 0

    before = time.process_time()
    words = [str(run), "--preset", "tabletop_default", "--data.folders", data_set, "--cache", str(tmp_path / "cache")]
    assert run_command([*words, "--steps", "600", "--batch", "64", "--overlays", "0", "--device", "cpu"])
    minutes = (time.process_time() - before) / 60
    print(f"training, with features: {minutes:.1f} CPU-minutes")
    assert minutes <= 15

    words = ["tabletop", "--policy", str(run / "best"), "--weights", "default", "--out", str(tmp_path / "score"), *seen]
    assert sim([*words, "--tasks", "drawer", "--episodes", "50"]) == 0
    success = json.loads((tmp_path / "score" / "results.json").read_text())["success"]
    assert success["total"] == 50
    assert success["rate"] >= 0.8
