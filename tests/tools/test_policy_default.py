# SPDX-License-Identifier: Apache-2.0
"""The recipe of the default policy at toy size, by its real commands: stopped, gone on with, shipped, and scored."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("gymnasium", reason='needs gymnasium: pip install "omnistream[sim]"')
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')
pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "omnistream[io]"')
pytest.importorskip("transformers", reason='needs transformers: pip install "omnistream[vla]"')

from omnistream.model.config import BackboneConfig, HeadConfig, ModelConfig
from omnistream.policy import load_policy
from omnistream.weights import random_model, save_model
from omnistream_training.evaluation.cli import main as evaluation

TOOLS = Path(__file__).resolve().parents[2] / "tools"
TINY = ["--sets", "1", "--block-sets", "1", "--episodes", "2", "--static", "32", "--gripper", "32", "--workers", "1"]
TRAIN = ["--policy.vision.image-size", "32", "--batch", "8", "--steps", "4", "--eval-frames", "16", "--overlays", "0"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = ModelConfig(
        backbone=BackboneConfig(dim=32, depth=4, heads=2),
        heads=HeadConfig(taps=(0, 1, 2, 3), projections=(8, 8, 8, 8), features=8),
        camera_token=True,
        image_size=32,
    )
    return save_model(random_model(config, 3), tmp_path_factory.mktemp("weights") / "backbone")


def words(out: Path, weights: Path, *more: str) -> list[str]:
    tool = [sys.executable, str(TOOLS / "policy_default.py"), str(out), "--weights", str(weights)]
    return [*tool, *TINY, *more, "--", *TRAIN]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stopped_and_gone_on_with_to_a_policy_that_is_scored(tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "out"
    first = subprocess.Popen(words(out, weights), stderr=subprocess.PIPE, text=True)
    while not list(out.glob("demos-0.parts/*.zip")):
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    assert "the same command goes on" in first.communicate(timeout=120)[1]
    assert first.returncode == 1
    assert not (out / "run").exists()

    second = subprocess.run(words(out, weights), capture_output=True, text=True, timeout=280)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "set 2 of 2" in second.stderr and "3/3" in second.stderr
    cost = json.loads((out / "cost.json").read_text())
    assert set(cost) == {"demos-0", "blocks-0", "run"} and min(row["cpu_seconds"] for row in cost.values()) > 0
    policy = load_policy(out / "policy")
    assert json.loads((out / "policy" / "policy.json").read_text())["weights_dtype"] == "float16"
    assert policy.config.vision.taps == (0,) and len(policy.shape.cameras) == 2

    score = [sys.executable, str(TOOLS / "eval_policy.py"), "--policy", str(out / "policy"), "--weights", str(weights)]
    score += ["--out", str(tmp_path / "score"), "--episodes", "1", "--chains", "1", "--controls", "1", "--videos", "0"]
    score += ["--tasks", "button", "drawer", "--max-steps", "3", "--workers", "1"]
    score += ["--control", f"twin={out / 'policy'},{weights}"]
    done = subprocess.run(score, capture_output=True, text=True, timeout=280)
    assert done.returncode == 1 and "NOT ACCEPTED" in done.stdout, done.stdout + done.stderr
    report = json.loads((tmp_path / "score" / "acceptance.json").read_text())
    assert report["left_out"] == [] and not report["accepted"]
    assert [row["name"] for row in report["rows"] if row["accepted"]][-1] == "size"
    assert report["rows"][-1]["beside"]["better by"] == "0.0 points [0.0, 0.0]"

    card, results = tmp_path / "card.md", tmp_path / "score" / "acceptance.json"
    assert evaluation(["policy-card", str(out), "--results", str(results), "--out", str(card)]) == 0
    text = card.read_text()
    assert "4 demonstrations of scripted experts in 2 sets" in text and "| told nothing |" in text
    assert report["policy"]["backbone"] in text and "4 steps of 8 samples" in text

    third = subprocess.run(words(out, weights, "--sets", "2"), capture_output=True, text=True, timeout=120)
    assert third.returncode == 2 and "was trained on 2 sets" in third.stderr


def test_one_at_a_time(tmp_path: Path, weights: Path) -> None:
    with (tmp_path / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(words(tmp_path, weights), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "another process is at work" in done.stderr


def test_what_would_stop_it_hours_later_is_said_at_once(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    import policy_default

    bare = save_model(random_model(ModelConfig(backbone=BackboneConfig(dim=32, depth=2, heads=2)), 0), tmp_path / "w")
    assert policy_default.main([str(tmp_path / "out"), "--weights", str(bare)]) == 2
    assert "has 0 taps" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
