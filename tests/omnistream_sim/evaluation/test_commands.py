# SPDX-License-Identifier: Apache-2.0
"""The commands: what they say and return where something is missing."""

from __future__ import annotations

import sys

import pytest

from omnistream.errors import CheckpointError
from omnistream_sim.cli import main
from omnistream_sim.evaluation.commands import Scored
from omnistream_sim.evaluation.install import Step, install, installed
from omnistream_sim.evaluation.policies import make_policy
from omnistream_sim.evaluation.protocols import EvaluationError


def test_calvin_without_calvin_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMNISTREAM_CALVIN", str(tmp_path))
    assert main(["calvin", "--policy", "a:b"]) == 1
    assert "omnistream-sim install calvin --run" in capsys.readouterr().err


def test_simpler_without_simpler_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    assert main(["simpler", "--policy", "a:b", "--tasks", "carrot"]) == 1
    assert "omnistream-sim install simpler --run" in capsys.readouterr().err
    assert main(["install", "simpler"]) == 1
    assert "mani_skill.utils.download_asset -y bridge_v2_real2sim" in capsys.readouterr().out


def test_default_names_the_shipped_policy(tmp_path, monkeypatch):
    monkeypatch.setattr("omnistream.policy.default.DEFAULT_POLICY", tmp_path / "shipped")
    assert "weights" in Scored(policy="default").all_options()
    with pytest.raises(CheckpointError, match="make policy-default"):
        make_policy("default")
    (tmp_path / "shipped").mkdir()
    with pytest.raises(CheckpointError, match=r"shipped/policy.json does not exist"):
        make_policy("default")


def test_install_prints_every_step_and_runs_none(tmp_path, capsys):
    assert main(["install", "calvin", "--root", str(tmp_path / "calvin")]) == 1
    out = capsys.readouterr().out
    assert "git clone https://github.com/mees/calvin " in out
    assert "1431a46bd36bde5903fb6345e68b5ccc30def666" in out
    assert not (tmp_path / "calvin").exists()


def test_install_runs_what_is_missing_and_looks_again(tmp_path, capsys):
    mark = tmp_path / "mark"
    make = (sys.executable, "-c", f"open({str(mark)!r}, 'w')")
    steps = [
        Step("numpy", installed("numpy")),
        Step("mark", mark.exists, (make,)),
        Step("moon", lambda: False, note="look up", optional=True),
    ]
    assert install(steps, run=False) is False
    assert install(steps, run=True) is True
    assert install(steps, run=False) is True
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "[there]   numpy", "[there]   mark", "[absent]  moon: look up",
    ]  # fmt: skip


def test_a_step_that_fails_is_named():
    with pytest.raises(EvaluationError, match="exit.3.*failed"):
        install([Step("x", lambda: False, ((sys.executable, "-c", "exit(3)"),))], run=True)
