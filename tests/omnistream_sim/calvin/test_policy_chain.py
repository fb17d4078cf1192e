# SPDX-License-Identifier: Apache-2.0
"""From recordings in CALVIN's format to a checkpoint that the evaluator runs: units, signs, sizes, refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from omnistream.contract import Dimension
from omnistream.errors import ConfigError, ContractError, InputError
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.policy.checkpoint import load_policy
from omnistream.policy.session import PolicySession
from omnistream.weights import random_model, save_model
from omnistream_sim.calvin.benchmark import CONVENTION, STATE
from omnistream_sim.calvin.recording import SplitWriter
from omnistream_sim.cli import main as sim
from omnistream_sim.evaluation.checkpoint_policy import CheckpointPolicy
from omnistream_sim.evaluation.protocols import Observation
from omnistream_training.cli import main as train
from tests.omnistream_sim.calvin.made_up import recorded, seen

SMALL = [
    *("--preset", "calvin_small", "--steps", "2", "--batch", "4", "--overlays", "0", "--device", "cpu"),
    *("--threads", "1", "--policy.vision.image-size", "48", "--policy.pooling.heads", "4"),
]
PIXELS = ["--policy.vision.source", "pixels"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings that go to and fro as far as actions go, the gripper open and closed."""
    folder = tmp_path_factory.mktemp("data") / "set"
    writer = SplitWriter(folder / "training", "calvin_scene_D")
    for number, sign in enumerate((1, -1, 1)):
        action = (*(sign * share for share in (1, 1, 1, 0, 0, 1)), sign)
        writer.add(recorded("lift_red_block_table", "lift the red block", range(4 * number, 4 * number + 4), action))
    writer.close()
    return folder


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of them."""
    folder = tmp_path_factory.mktemp("run")
    where = ["--data.folders", str(data), "--cache", str(folder / "cache")]
    assert train(["policy", str(folder / "run"), *where, *SMALL, *PIXELS]) == 0
    return folder / "run" / "best"


def observation(number: int) -> Observation:
    raw = seen(number)
    pictures = raw["rgb_obs"]
    return {"rgb_static": pictures["rgb_static"], "rgb_gripper": pictures["rgb_gripper"], "state": raw["robot_obs"]}


def test_a_checkpoint_speaks_the_simulators_units(checkpoint: Path) -> None:
    """What the session says in m and rad, divided by 0.02 m and 0.05 rad; what never moved stays still."""
    policy = CheckpointPolicy(checkpoint, convention=CONVENTION, device="cpu")
    session = PolicySession(load_policy(checkpoint), device="cpu")
    session.set_instruction("lift the red block")
    policy.reset()
    for number in range(3):
        now = observation(number)
        chunk = policy(now, "lift the red block")
        images = {"static": now["rgb_static"], "gripper": now["rgb_gripper"]}
        said = session.step(images, now["state"]).actions
        assert chunk.shape == said.shape == (8, 7)
        assert chunk[:, :6] == pytest.approx(said[:, :6] / ([0.02] * 3 + [0.05] * 3), abs=1e-12)
        assert np.abs(chunk[:, :6]).max() <= 1 + 1e-6 and set(chunk[:, 6]) <= {-1.0, 1.0}
        assert chunk[:, 3:5] == pytest.approx(0, abs=1e-6)


def test_what_means_something_else_is_refused_with_both_sides(checkpoint: Path) -> None:
    others = {
        "rate": (dataclasses.replace(CONVENTION, rate=20.0), r"30 Hz; the simulator runs at 20 Hz"),
        "frame": (dataclasses.replace(CONVENTION, frame="tool"), "frame world; expected tool"),
        "state": (
            dataclasses.replace(CONVENTION, state=(*STATE[:-1], Dimension("opening", "m"))),
            r"gripper_action \[1\]; the simulator gives .*opening \[m\]",
        ),
    }
    for convention, words in others.values():
        with pytest.raises(ContractError, match=words):
            CheckpointPolicy(checkpoint, convention=convention, device="cpu")
    policy = CheckpointPolicy(checkpoint, convention=CONVENTION, device="cpu")
    with pytest.raises(InputError, match=r"'static' is \[84, 84, 3\]; the contract says \[200, 200, 3\]"):
        policy({**observation(0), "rgb_static": observation(0)["rgb_gripper"]}, "lift the red block")
    with pytest.raises(InputError, match="expected 15 finite numbers"):
        policy({**observation(0), "state": np.zeros(14)}, "lift the red block")


def test_without_its_backbone_a_checkpoint_says_what_it_needs(data: Path, tmp_path: Path) -> None:
    model = random_model(ModelConfig(backbone=BackboneConfig(dim=32, depth=1, heads=2)), 1)
    weights = save_model(model, tmp_path / "weights")
    where = ["--data.folders", str(data), "--cache", str(tmp_path / "cache"), "--backbone", str(weights)]
    assert train(["policy", str(tmp_path / "run"), *where, *SMALL]) == 0
    best = tmp_path / "run" / "best"
    with pytest.raises(ConfigError, match=r"not the default .*give its weights \(--weights PATH\)"):
        CheckpointPolicy(best, convention=CONVENTION, device="cpu")
    policy = CheckpointPolicy(best, convention=CONVENTION, weights=str(weights), engine="torch", device="cpu")
    assert policy(observation(0), "lift the red block").shape == (8, 7)


@pytest.mark.slow
def test_the_whole_chain_of_commands_in_the_real_simulator(checkout, tmp_path: Path) -> None:
    """Demonstrate, train, score: exit codes and files. What a policy learns in two steps is nothing."""
    out, root = tmp_path / "demos", ["--root", str(checkout.root)]
    assert sim(["demos", "calvin", str(out), "--episodes", "3", "--elsewhere", "0", *root]) == 0
    where = ["--data.folders", str(out), "--cache", str(tmp_path / "cache")]
    assert train(["policy", str(tmp_path / "run"), *where, *SMALL, *PIXELS]) == 0
    scored = ["--policy", str(tmp_path / "run" / "best"), "--device", "cpu", "--execute", "2", "--videos", "0"]
    how = ["--tasks", "lift_red_block_table", "--chains", "1", "--max-steps", "8", "--dataset", str(out)]
    assert sim(["calvin", *scored, *how, *root, "--out", str(tmp_path / "scores")]) == 0
    report = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert report["episodes"] == 1 and not report["not_finished"]
    assert any("8 steps per task" in text for text in report["deviations"])
