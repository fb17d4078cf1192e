# SPDX-License-Identifier: Apache-2.0
"""Demonstrations through the nodes: shown by the simulator, recorded by the recorder, imported as a robot's are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy: pip install -e '.[ros]'")
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')
pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "omnistream[io]"')

from omnistream.episodes import EpisodeDataset, open_dataset
from omnistream_sim.cli import main as sim
from omnistream_sim.tabletop.demos import SEEDS, UNITS, DemoOptions
from omnistream_sim.tabletop.expert import Expert
from omnistream_sim.tabletop.judge import assignment
from omnistream_sim.tabletop.task_env import TaskWorld, View, instruction
from omnistream_training.robot_data.cli import main as data

pytestmark = pytest.mark.ros

WORDS = ["--tasks", "button", "--static", "32", "--gripper", "24"]


def recorded(tmp_path: Path, *more: str) -> EpisodeDataset:
    out = tmp_path / "robot"
    assert sim(["record", "tabletop", str(out), *WORDS, *more]) == 0
    mapping = str(out / "mapping.yaml")
    assert data(["import", str(out / "bags"), "--mapping", mapping, "--out", str(tmp_path / "set")]) == 0
    return open_dataset(tmp_path / "set")


def test_what_is_imported_is_what_the_expert_did(tmp_path: Path) -> None:
    """With a quiet arm an episode is the same in process: each state, each wish, each picture."""
    found = recorded(tmp_path, "--episodes", "1", "--noise", "0")
    view = View(static=32, gripper=24)
    contract, wanted = found.contract, DemoOptions(episodes=1, view=view).contract
    assert (contract.cameras, contract.state, contract.rate) == (wanted.cameras, wanted.state, wanted.rate)
    assert contract.action == wanted.action

    told = assignment("button", SEEDS)
    world = TaskWorld(view)
    world.reset(told.start.plain(), SEEDS)
    expert, episode = Expert(told.task), found[0]
    held = 0
    while np.abs(world.look()["state"] - episode.state[0]).max() > 1e-5:  # the arm waits until it is asked to show
        world.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
        held += 1
        assert held < 100
    pictures = {name: list(episode.frames(name)) for name in view.cameras}
    for t in range(len(episode)):
        seen, action = world.look(), expert.action(world.env.state())
        assert action is not None
        np.testing.assert_allclose(episode.action[t], action * UNITS, atol=1e-6)
        np.testing.assert_allclose(episode.state[t], seen["state"], atol=1e-5)
        for name, rows in pictures.items():
            np.testing.assert_array_equal(rows[t], seen[f"rgb_{name}"])
        world.step(np.clip(action, -1, 1))
    assert episode.success and episode.instruction == instruction(told.task, "seen", SEEDS)


def test_a_stopped_recording_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["record", "tabletop", str(tmp_path / "robot"), *WORDS]
    assert sim([*words, "--episodes", "1"]) == 0
    first = next((tmp_path / "robot" / "bags").iterdir()).name
    assert len(recorded(tmp_path, "--episodes", "2")) == 2
    assert first in {path.name for path in (tmp_path / "robot" / "bags").iterdir()}
    capsys.readouterr()
    assert sim([*words[:-2], "--static", "48", "--gripper", "0", "--episodes", "3"]) == 2
    assert "is of other recordings" in capsys.readouterr().err
