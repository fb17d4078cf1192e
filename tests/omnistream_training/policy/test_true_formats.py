# SPDX-License-Identifier: Apache-2.0
"""The papers' presets read CALVIN's and Bridge's own files: a step of each, with a language model of tiny size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnistream.episodes.pictures import encode_png
from omnistream.policy.checkpoint import load_policy
from omnistream_training import cli
from omnistream_training.robot_data.calvin_reader import ANNOTATIONS
from omnistream_training.robot_data.example import encode_example
from omnistream_training.robot_data.tfrecord import write_record
from tests.omnistream.policy.tiny_qwen import write_tiny_qwen

SMALL = [
    *("--steps", "1", "--batch", "4", "--policy.vision.source", "pixels", "--policy.vision.image-size", "48"),
    *("--precision", "float32", "--overlays", "0", "--device", "cpu", "--threads", "1"),
]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen(tmp_path_factory.mktemp("qwen"))


def write_calvin(folder: Path, windows: int = 3, length: int = 6) -> Path:
    """task_X with a training split: movements in units of 0.02 m and 0.05 rad, clipped to 1, as in the data set."""
    split, rng = folder / "training", np.random.default_rng(0)
    (split / "lang_annotations").mkdir(parents=True)
    for t in range(windows * length):
        moves = np.clip(rng.normal(0, 1.5, 6), -1, 1)
        np.savez(
            split / f"episode_{t:07d}.npz",
            rgb_static=rng.integers(0, 256, (200, 200, 3), np.uint8),
            rgb_gripper=rng.integers(0, 256, (84, 84, 3), np.uint8),
            robot_obs=rng.normal(0, 1, 15),
            rel_actions=np.append(moves, rng.choice([-1.0, 1.0])),
        )
    spans = [(i * length, (i + 1) * length - 1) for i in range(windows)]
    told = {
        "language": {"ann": ["lift the red block"] * windows, "task": ["lift_red_block_table"] * windows},
        "info": {"indx": spans},
    }
    np.save(split / ANNOTATIONS, np.array(told, dtype=object))
    return folder


def write_bridge(folder: Path, episodes: int = 3, steps: int = 6) -> Path:
    """An RLDS set by Bridge's name: states, and actions that its protocol computes anew from them."""
    rng = np.random.default_rng(1)
    records = []
    for _ in range(episodes):
        state = np.cumsum(rng.normal(0, 0.02, (steps, 7)), 0).astype(np.float32)
        gripper = (rng.random(steps) < 0.5).astype(np.float32)
        action = np.concatenate([rng.normal(0, 0.02, (steps, 6)), gripper[:, None]], 1).astype(np.float32)
        features: dict[str, Any] = {
            "steps/is_first": np.arange(steps) == 0,
            "steps/action": action.reshape(-1),
            "steps/observation/state": state.reshape(-1),
            "steps/observation/image_0": [
                encode_png(rng.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(steps)
            ],
            "steps/language_instruction": [b"put the spoon on the towel"] * steps,
        }
        records.append(encode_example(features))
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"name": "bridge_dataset"}))
    with (folder / "bridge_dataset-train.tfrecord-00000-of-00001").open("wb") as file:
        for record in records:
            write_record(file, record)
    return folder


def train(preset: str, data: Path, run: Path, *more: str) -> int:
    where = ["--cache", str(run.parent / "cache"), "--data.folders", str(data)]
    return cli.main(["policy", str(run), "--preset", preset, *where, *SMALL, *more])


def test_calvin_abc_reads_calvin(tmp_path: Path, qwen: Path) -> None:
    """The folder of a set means its training split; 1 is 0.02 m and 0.05 rad again, and 0.65 of that is all it says."""
    run = tmp_path / "run"
    assert train("calvin_abc", write_calvin(tmp_path / "task_X"), run, "--language-model", str(qwen)) == 0
    policy = load_policy(run / "best", language_model=qwen)
    assert policy.shape.cameras == ("static",) and policy.shape.state == 0 and policy.config.chunk == 10
    units = [0.02] * 3 + [0.05] * 3
    assert policy.scaling.high == pytest.approx(units) and policy.scaling.low == pytest.approx([-u for u in units])
    full = policy.scaling.restore(np.ones(6), np.ones(1))
    assert full == pytest.approx([*(0.65 * unit for unit in units), 1.0])
    assert (policy.contract.rate, policy.contract.action.frame) == (30.0, "world")


def test_bridge_reads_bridge(tmp_path: Path, qwen: Path) -> None:
    run = tmp_path / "run"
    assert train("bridge", write_bridge(tmp_path / "bridge_dataset"), run, "--language-model", str(qwen)) == 0
    policy = load_policy(run / "best", language_model=qwen)
    assert policy.shape.cameras == ("image_0",) and policy.config.chunk == 4 and policy.contract.rate == 5.0
    statistics = policy.contract.action_statistics
    assert statistics is not None and policy.scaling.low == pytest.approx(statistics.q01[:6])
    assert policy.scaling.grippers == ((6, 1.0, 0.0),)


def test_calvin_small_sees_both_cameras_and_feels_the_robot(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train("calvin_small", write_calvin(tmp_path / "task_X"), run) == 0
    policy = load_policy(run / "best")
    assert policy.shape.cameras == ("static", "gripper") and policy.shape.state == 15


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert train("calvin_small", tmp_path / "empty", tmp_path / "run") != 0
    assert "no data set; expected" in capsys.readouterr().err
