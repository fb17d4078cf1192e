# SPDX-License-Identifier: Apache-2.0
"""The demo's second part: the simulated robot is told what to do, by three processes; the picture; the pace."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from omnistream.errors import CheckpointError, InputError
from omnistream.policy import default
from omnistream_msgs.msg import PolicyStatus, StageLatency
from omnistream_ros import demo
from omnistream_ros.demo_pace import POLICY_SHARE, SLOWEST_ROBOT, TRIAL_CHUNKS, measured_factor
from omnistream_ros.demo_sources import missing_physics
from omnistream_ros.demo_task_sheet import SOLVED, UNSOLVED, task_sheet
from omnistream_ros.demo_tasks import AT_LEAST, Attempt
from omnistream_ros.testing import SMALL_MODEL

pytestmark = pytest.mark.ros

NO_ROBOT = pytest.mark.skipif(bool(missing_physics()), reason=f"the simulator needs {missing_physics()}")


@NO_ROBOT
def test_a_policy_is_told_three_things_and_is_honestly_reported(tmp_path: Path) -> None:
    from omnistream.weights import random_model, save_model
    from omnistream_sim.tabletop.task_env import View
    from tests.omnistream_sim.tabletop.random_policy import random_policy

    save_model(random_model(SMALL_MODEL, seed=0), tmp_path / "weights")
    policy = random_policy(tmp_path / "policy", View(static=64, gripper=48))
    words = ["--weights", tmp_path / "weights", "--policy", policy, "--duration", 4, "--task-time", 0.5]
    done = subprocess.run(
        [sys.executable, "-m", "omnistream_ros.up", "demo", "--out", str(tmp_path / "out"), *map(str, words)],
        capture_output=True, text=True, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    log = (tmp_path / "out" / "nodes.log").read_text()
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    tasks = report["tasks"]
    assert tasks["told"] == len(tasks["attempts"]) >= AT_LEAST and 0 < tasks["real_time_factor"] <= 1
    assert len({attempt["instruction"] for attempt in tasks["attempts"]}) == tasks["told"]
    for attempt in tasks["attempts"]:
        assert repr(attempt["instruction"]) in done.stdout
        assert attempt["solved"] or attempt["seconds"] == pytest.approx(0.5), "its time, and no more"
    assert f"{tasks['solved']} of {tasks['told']} tasks solved" in done.stdout
    assert report["scores"] and report["camera"]["published"] > 0, "the first part is there, too"
    assert str(tmp_path / "out" / "tasks.png") in report["files"]
    with Picture.open(tmp_path / "out" / "tasks.png") as sheet:
        assert sheet.width > 900 and sheet.height > tasks["told"] * 200


def test_who_names_no_policy_gets_the_shipped_one_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def chosen(*words: str) -> object:
        return demo.choose_robot(demo._parser().parse_args(words))

    monkeypatch.setattr(demo, "DEFAULT_POLICY", tmp_path / "nothing")
    monkeypatch.setattr(default, "DEFAULT_POLICY", tmp_path / "nothing")
    assert chosen() is None and chosen("--policy", "none") is None
    if not missing_physics():
        with pytest.raises(CheckpointError, match="no default policy is shipped"):
            chosen("--policy", "default")
    monkeypatch.setattr(demo, "DEFAULT_POLICY", tmp_path)
    assert chosen("clip.mp4") is None, "who brings a recording asks about perception"
    monkeypatch.setitem(sys.modules, "pybullet", None)  # as where it is not installed
    assert chosen() is None
    with pytest.raises(InputError, match="--policy: the simulated robot needs PyBullet"):
        chosen("--policy", str(tmp_path))


def test_the_picture_says_what_was_said_and_what_came_of_it() -> None:
    pictures = [np.full((40, 40, 3), 40 * i, np.uint8) for i in range(5)]
    good = Attempt("open_drawer", "pull open the drawer", 1, True, 2.4, pictures=pictures)
    bad = Attempt("lift_red", "pick up the red cube", 2, seconds=8.0, pictures=pictures[:3])
    stopped = Attempt("lift_red", "pick up the red cube", 2, stopped="fault: NaN", pictures=pictures)
    assert (good.verdict(), bad.verdict()) == ("solved in 2.4 s", "not solved in 8.0 s")
    assert stopped.verdict() == "not solved: fault: NaN"
    good.depth = np.full((8, 8), 1.5, np.float32)
    page = task_sheet([good, bad, stopped], "1 of 3 tasks solved", "a policy")
    colours = {colour for _, colour in page.getcolors(maxcolors=1 << 24) or []}
    assert {SOLVED, UNSOLVED} <= colours and {(40,) * 3, (160,) * 3} <= colours


def test_the_robot_is_as_fast_as_its_slower_half_and_never_faster_than_time() -> None:
    def policy(total_ms: float) -> PolicyStatus:
        return PolicyStatus(chunks=TRIAL_CHUNKS, latencies=[StageLatency(stage="total", p50_ms=total_ms)])

    assert measured_factor(None, 10.0, 20) is measured_factor(policy(10.0), math.nan, 20) is None
    assert measured_factor(PolicyStatus(), 10.0, 20) is None
    assert measured_factor(PolicyStatus(chunks=1, latencies=policy(10.0).latencies), 10.0, 20) is None
    assert measured_factor(policy(10.0), 20.0, 20) == 1.0
    assert measured_factor(policy(100.0), 20.0, 20) == pytest.approx(POLICY_SHARE / 2)
    assert measured_factor(policy(1.0), 200.0, 20) == pytest.approx(POLICY_SHARE / 4)
    assert measured_factor(policy(1e5), 20.0, 20) == SLOWEST_ROBOT
