# SPDX-License-Identifier: Apache-2.0
"""Simulator and training meet in files: demonstrations, a policy trained on them, its score, by commands alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("gymnasium", reason='needs gymnasium: pip install "omnistream[sim]"')
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')
pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "omnistream[io]"')
pytest.importorskip("transformers", reason='needs transformers: pip install "omnistream[vla]"')

from omnistream_sim.cli import main as sim
from omnistream_training.policy.command import run_command

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
