# SPDX-License-Identifier: Apache-2.0
"""The comparison of a policy through nodes with itself in process: its numbers, and a whole run of it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: pip install -e '.[ros]'")
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from omnistream.errors import ConfigError
from omnistream_sim.evaluation.records import EpisodeRecord, TaskRecord
from omnistream_sim.tabletop.task_env import View
from tests.omnistream_sim.tabletop.random_policy import random_policy

pytestmark = pytest.mark.ros

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench_policy_loop.py"


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("bench_policy_loop", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def records(solved: list[bool], **metrics: float) -> list[EpisodeRecord]:
    names = ["lift_red", "open_drawer"]
    return [
        EpisodeRecord(
            index=i,
            tasks=(names[i % 2],),
            done=(TaskRecord(task=names[i % 2], instruction="", solved=one, steps=40 + i, metrics=metrics),),
            digest="",
        )
        for i, one in enumerate(solved)
    ]


def test_pairs_kinds_and_the_rate_are_told(tool: Any) -> None:
    inside = records([True] * 90 + [False] * 10)
    nodes = records([True] * 86 + [False] * 13 + [True], hz=19.9, holds=1)
    numbers = tool.summary(inside, nodes, 20.0)
    assert (numbers["in_process"]["success"], numbers["nodes"]["success"]) == (90, 87)
    assert (numbers["only_in_process"], numbers["only_nodes"]) == (4, 1)
    assert numbers["difference"] == pytest.approx(-0.03) and numbers["as_wanted"] and numbers["holds"] == 100
    assert numbers["kinds"]["lift"]["nodes"]["total"] == 50
    text = tool.table(numbers)
    assert "90/100 (83 to 94 %)" in text and "-3.0 points" in text and "19.90 Hz of 20" in text
    slow = tool.summary(inside, records([True] * 90 + [False] * 10, hz=17.0, holds=0), 20.0)
    assert not slow["as_wanted"] and "does not keep up" in tool.table(slow), "not at the real rate: not measured"
    assert not tool.summary(inside, records([True] * 84 + [False] * 16, hz=20.0, holds=0), 20.0)["as_wanted"]


def test_parameters_are_json_where_they_can_be(tool: Any) -> None:
    assert tool._parameter("blend=replace") == ("blend", "replace") and tool._parameter("ramp=0.5") == ("ramp", 0.5)
    with pytest.raises(ConfigError, match="'ramp'; expected NAME=VALUE"):
        tool._parameter("ramp")


@pytest.mark.slow
def test_a_random_policy_is_compared_with_itself(tmp_path: Path) -> None:
    policy = random_policy(tmp_path / "policy", View(static=48, gripper=32))
    words = ["--policy", policy, "--out", tmp_path / "out", "--episodes", 1, "--tasks", "drawer", "--max-steps", 8]
    words += ["--factor", 0.3, "--videos", 0, "--parameter", "max_observation_age=5.0"]
    for _ in range(2):  # the second finds everything done
        done = subprocess.run(
            [sys.executable, str(TOOL), *map(str, words)],
            capture_output=True, text=True, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "0/1" in done.stdout and "points" in done.stdout
    numbers = json.loads((tmp_path / "out" / "loop.json").read_text())
    assert numbers["episodes"] == 1 and numbers["hz"] > 0 and (tmp_path / "out" / "nodes" / "results.json").is_file()
