# SPDX-License-Identifier: Apache-2.0
"""Real recordings: a Unitree G1 (LeRobot v2.1), a WidowX (Bridge, RLDS), and a simulated robot's bag."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from omnistream.episodes import EpisodeWriter, open_dataset, write_episode
from omnistream.errors import ContractError, InputError
from omnistream.sync import load_mapping_file
from omnistream_training.robot_data.bag_steps import BagSteps
from omnistream_training.robot_data.check import check_dataset
from omnistream_training.robot_data.formats import open_any

pytestmark = pytest.mark.realdata


def test_the_g1(real_data, tmp_path):
    dataset = open_any(real_data / "g1_lerobot_a")
    assert [(info.length, info.source) for info in dataset.infos] == [(221, "episode 29"), (280, "episode 59")]
    assert len(dataset.lost) == 98
    episode = dataset[0]
    assert episode.instruction == "Pick up the yellow bottle on the table."
    np.testing.assert_allclose(episode.action[0, :2], [-0.77191246, 0.43436477], rtol=1e-6)
    assert dataset.contract.state_names[3] == "kLeftElbow" and dataset.contract.rate == 30
    images = list(episode.frames("cam_high", 100, 110))
    np.testing.assert_array_equal(episode.frame("cam_high", 107), images[7])  # by jumping there, by reading on
    assert images[0].shape == (480, 640, 3) and 60 < images[0].mean() < 200


@pytest.mark.parametrize(("storage", "least"), [("jpeg", 38.0), ("video", 33.0)])
def test_losses_are_small_on_real_pictures(real_data, tmp_path, storage, least):
    """PSNR of what is read back against what was written."""
    episode = open_any(real_data / "g1_lerobot_a")[0]
    images = list(episode.frames("cam_high", 60, 90))
    contract = open_any(real_data / "g1_lerobot_a").contract
    with EpisodeWriter(tmp_path / "set", contract, storage=storage) as writer:
        writer.begin("x")
        for t, image in enumerate(images):
            writer.add(episode.state[t], episode.action[t], {"cam_high": image})
        writer.end()
    found = list(open_dataset(tmp_path / "set")[0].frames("cam_high"))
    errors = [((a.astype(float) - b) ** 2).mean() for a, b in zip(images, found, strict=True)]
    assert 10 * np.log10(255**2 / np.mean(errors)) > least


def test_bridge(real_data, tmp_path):
    dataset = open_any(real_data / "bridge_rlds/bridge_dataset")
    assert (len(dataset), dataset.frames, dataset.lost) == (25, 200, ())
    assert len({info.instruction for info in dataset.infos}) == 4
    assert dataset.infos[0].instruction == "put cup from counter or drying rack into sink"
    episode = dataset[0]
    assert dataset.contract.action.mode == "delta" and set(episode.action[:, 6].tolist()) <= {0.0, 1.0}
    np.testing.assert_allclose(episode.action[:-1, :6], np.diff(episode.state[:, :6], axis=0), atol=1e-6)
    with EpisodeWriter(tmp_path / "set", dataset.contract) as writer:
        for one in dataset:
            write_episode(writer, one)
    for a, b in zip(dataset, open_dataset(tmp_path / "set"), strict=True):
        assert a.action.tobytes() == b.action.tobytes()
        for x, y in zip(a.frames("image_0"), b.frames("image_0"), strict=True):
            np.testing.assert_array_equal(x, y)


def test_all_cameras_of_bridge_are_751_different_pictures(real_data):
    cameras = tuple(f"image_{i}" for i in range(4))
    dataset = open_any(real_data / "bridge_rlds/bridge_dataset", protocol="plain", rate=5.0, cameras=cameras)
    assert dataset.frames == 250
    pictures = {hashlib.sha256(i.tobytes()).digest() for e in dataset for c in cameras for i in e.frames(c)}
    assert len(pictures) == 751


def test_checking_real_data(real_data):
    """No error in either; every fourth picture of the G1 repeats the one before to the bit, and that is noticed."""
    found = {}
    for name in ("g1_lerobot_a", "bridge_rlds/bridge_dataset"):
        dataset = open_any(real_data / name)
        dataset.lost = ()
        checked = check_dataset(dataset)
        assert checked.errors == 0, checked.findings
        found[name] = {finding.rule for finding in checked.findings}
    assert found == {"g1_lerobot_a": {"contract", "saturation", "frozen"}, "bridge_rlds/bridge_dataset": set()}


ODOMETRY = """
format: omnistream-mapping
version: 1
rate: 10
cameras: [{name: front, topic: /camera/image_raw}]
state: [{topic: /odom, fields: [x, y, yaw]}]
action: {mode: delta, frame: base_link, from_state: [x, y, yaw]}
"""


def test_a_bag_without_pictures_says_what_it_has(real_data, tmp_path):
    (tmp_path / "mapping.yaml").write_text(ODOMETRY)
    mapping = load_mapping_file(tmp_path / "mapping.yaml")
    with pytest.raises(InputError, match=r"no messages on /camera/image_raw(.|\n)*/odom +nav_msgs/msg/Odometry +2639"):
        list(BagSteps(real_data / "bag_nav2_mcap_SIMULATED/nav2_turtlebot.mcap", mapping))
    with pytest.raises(ContractError):
        load_mapping_file(real_data / "bag_nav2_mcap_SIMULATED/nav2_turtlebot.mcap")
