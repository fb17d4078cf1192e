# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in CALVIN's file format: our writer and our reader agree, starts are valid, the real thing records."""

from __future__ import annotations

import json

import numpy as np
import pytest

from omnistream.errors import ConfigError, InputError
from omnistream_sim.calvin.chains import start_scenes
from omnistream_sim.calvin.demos import DEMONSTRATED, TABLE_Y, DemoOptions, make_demos, start
from omnistream_sim.calvin.recording import SplitWriter
from omnistream_sim.calvin.starts import ROBOT, start_state
from omnistream_sim.cli import main
from omnistream_training.robot_data.calvin_reader import open_calvin
from omnistream_training.robot_data.safe_numpy import read_npz, read_pickled_npy
from tests.omnistream_sim.calvin.made_up import recorded, seen

KEYS = {
    "actions": ((7,), np.float64),
    "rel_actions": ((7,), np.float64),
    "robot_obs": ((15,), np.float64),
    "scene_obs": ((24,), np.float64),
    "rgb_static": ((200, 200, 3), np.uint8),
    "rgb_gripper": ((84, 84, 3), np.uint8),
    "depth_static": ((200, 200), np.float32),
    "depth_gripper": ((84, 84), np.float32),
}


@pytest.fixture
def split(tmp_path):
    writer = SplitWriter(tmp_path / "set" / "training", "calvin_scene_D")
    writer.add(recorded("lift_red_block_table", "lift the red block", range(3)))
    writer.add(recorded("lift_blue_block_table", "pick up the blue block", range(3, 8)))
    writer.close()
    return writer.folder


def test_the_files_are_those_of_the_format(split):
    names = {path.name for path in split.glob("*.np?")}
    frames = {f"episode_{number:07d}.npz" for number in range(8)}
    assert names == frames | {"ep_lens.npy", "ep_start_end_ids.npy", "scene_info.npy"}
    arrays = read_npz(split / "episode_0000004.npz", tuple(KEYS))
    assert {name: (array.shape, array.dtype.type) for name, array in arrays.items()} == KEYS
    assert np.load(split / "ep_start_end_ids.npy").tolist() == [[0, 2], [3, 7]]
    assert np.load(split / "ep_lens.npy").tolist() == [3, 5]
    assert read_pickled_npy(split / "scene_info.npy") == {"calvin_scene_D": [0, 7]}
    told = read_pickled_npy(split / "lang_annotations" / "auto_lang_ann.npy")
    assert told["language"]["task"] == ["lift_red_block_table", "lift_blue_block_table"]
    assert told["language"]["emb"].shape == (2, 1, 384)
    assert told["info"]["indx"] == [(0, 2), (3, 7)]  # ends are inclusive


def test_relative_and_absolute_actions_say_the_same(split):
    """calvin_env's to_relative_action of `actions` and `robot_obs`, written out."""
    arrays = read_npz(split / "episode_0000004.npz", ("actions", "rel_actions", "robot_obs"))
    moved = arrays["actions"][:6] - arrays["robot_obs"][:6]
    moved[3:] = (moved[3:] + np.pi) % (2 * np.pi) - np.pi
    expected = np.clip(moved / ([0.02] * 3 + [0.05] * 3), -1, 1)
    assert arrays["rel_actions"][:6] == pytest.approx(expected, abs=1e-9)
    assert arrays["rel_actions"][6] == arrays["actions"][6] == -1


def test_the_reader_of_training_reads_it_in_si_units(split):
    dataset = open_calvin(split)
    assert [(info.length, info.instruction) for info in dataset.infos] == [
        (3, "lift the red block"),
        (5, "pick up the blue block"),
    ]
    assert dataset.lost == ()
    episode = dataset[1]
    assert episode.action[0] == pytest.approx([0.02, -0.01, 0, 0, 0, 0.0125, -1])
    assert episode.state[2] == pytest.approx(np.array(ROBOT) + 0.005, abs=1e-6)
    assert (episode.frame("gripper", 2) == seen(5)["rgb_obs"]["rgb_gripper"]).all()


@pytest.mark.parametrize("task", DEMONSTRATED)
def test_starts_are_near_those_of_the_evaluation_and_none_of_them(task):
    official = np.array([start_state(scene)[1][6:].reshape(3, 6)[:, :2] for scene in start_scenes()])
    colour = ("red", "blue", "pink").index(task.split("_")[1])
    rng = np.random.default_rng(0)
    for _ in range(50):
        robot, scene = start(task, 0.05, rng)
        assert robot.tolist() == list(ROBOT)
        place = scene[6:].reshape(3, 6)[colour, :2]
        assert TABLE_Y[0] <= place[1] <= TABLE_Y[1] and -0.01 < place[0] < 0.29
        assert 1e-6 < np.abs(official[:, colour] - place).max(1).min() <= 0.05 + 1e-6


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="the script can do lift_red_block_table"):
        DemoOptions(episodes=2, tasks=("open_drawer",))
    with pytest.raises(ConfigError, match="episodes 1.*expected at least 2"):
        DemoOptions(episodes=1)
    with pytest.raises(ConfigError, match=r"disturbed 1\.5"):
        DemoOptions(episodes=2, disturbed=1.5)


def test_without_calvin_the_command_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMNISTREAM_CALVIN", str(tmp_path / "nothing"))
    assert main(["demos", "calvin", str(tmp_path / "out"), "--episodes", "2"]) == 1
    assert "omnistream-sim install calvin --run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def quiet(done: int, total: int) -> None:
    """No progress."""


def test_recorded_in_the_real_simulator_and_gone_on_with(checkout, tmp_path):
    """A run that was cut short is gone on with; what is recorded is what the simulator showed."""
    options = DemoOptions(episodes=2)
    out, parts = tmp_path / "set", tmp_path / "set.parts"

    def cut(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demos(out, options, root=checkout.root, progress=cut)
    assert not out.exists() and len(list(parts.glob("*.npz"))) == 1
    kept = next(parts.glob("*.npz")).stat()
    seen: list[int] = []
    told = make_demos(out, options, root=checkout.root, progress=lambda done, total: seen.append(done))
    assert seen == [1, 2] and kept.st_mtime < (out / "demos.json").stat().st_mtime
    assert told["episodes"] == 2 and told["validation_episodes"] == 1 and not parts.exists()
    about = json.loads((out / "demos.json").read_text())
    assert about["commits"]["calvin_env"] == checkout.commits()["calvin_env"]
    lengths = []
    for split in ("training", "validation"):
        dataset = open_calvin(out / split)
        assert dataset.lost == () and len(dataset.infos) == 1
        episode = dataset[0]
        assert episode.instruction in checkout.sentences()["lift_red_block_table"]
        assert (episode.action[-1][2], episode.action[-1][6]) == (pytest.approx(0.02), -1)  # it lifts, closed
        assert episode.frame("static", 0).std() > 20  # a picture, not black
        lengths.append(len(episode))
    assert sum(lengths) == told["frames"]
    whole = tmp_path / "whole"
    make_demos(whole, options, root=checkout.root, progress=quiet)
    for path in sorted(whole.rglob("*.np[yz]")):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes(), path
    with pytest.raises(ConfigError, match="exists already"):
        make_demos(out, options, root=checkout.root, progress=quiet)
    others = tmp_path / "other.parts"
    others.mkdir()
    (others / "options.json").write_text(json.dumps({"noise": 9}))
    with pytest.raises(InputError, match="with another .*noise"):
        make_demos(tmp_path / "other", options, root=checkout.root, progress=quiet)
