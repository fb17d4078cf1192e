# SPDX-License-Identifier: Apache-2.0
"""`omnistream-data check` finds what was put in, says where, and stays quiet about sound data."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper
from omnistream.episodes import EpisodeWriter, open_dataset
from omnistream_training.robot_data.check import check_dataset
from omnistream_training.robot_data.cli import main

CONTRACT = Contract(
    rate=10.0,
    cameras=(Camera("front", 16, 16),),
    state=(Dimension("x", "m"),),
    action=Action(
        (Dimension("dx", "m"), Dimension("dy", "m"), Dimension("gripper", "1")),
        "delta",
        "base",
        (Gripper(2, 1.0, 0.0),),
    ),
)
LENGTH, EPISODES = 60, 4


def sound():
    """Per episode: stamps, state, action, pictures, instruction."""
    generator = np.random.default_rng(0)
    for e in range(EPISODES):
        yield {
            "stamps": e * 100 + np.arange(LENGTH) / 10,
            "state": generator.normal(size=(LENGTH, 1)),
            "action": np.concatenate(
                [generator.normal(size=(LENGTH, 2)) * 0.01, (np.arange(LENGTH) < 30)[:, None]], axis=1
            ),
            "pictures": generator.integers(30, 220, (LENGTH, 16, 16, 3), np.uint8),
            "instruction": "lift",
        }


def checked(tmp_path, change=lambda episode, number: None, contract=CONTRACT):
    with EpisodeWriter(tmp_path / "set", contract) as writer:
        for e, episode in enumerate(sound()):
            change(episode, e)
            writer.begin(episode["instruction"])
            for t in range(len(episode["stamps"])):
                image = {"front": episode["pictures"][t]}
                writer.add(episode["state"][t], episode["action"][t], image, stamp=episode["stamps"][t])
            writer.end()
    return check_dataset(open_dataset(tmp_path / "set"))


def test_sound_data_pass(tmp_path, capsys):
    assert checked(tmp_path).findings == ()
    report, picture = tmp_path / "report.json", tmp_path / "picture.png"
    assert main(["check", str(tmp_path / "set"), "--report", str(report), "--picture", str(picture)]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["numbers"]["rate"] == pytest.approx(10) and found["pictures"]["front"]["read"] == LENGTH * EPISODES
    assert found["contract"]["action"]["frame"] == "base" and found["environment"]["time"]
    assert np.asarray(Image.open(picture)).std() > 10


def put(key, index, value):
    def change(episode, number):
        if number == 2:
            episode[key][index] = value

    return change


def longer_gap(episode, number):
    if number == 2:
        episode["stamps"][30:] += 0.5


def slower(episode, number):
    episode["stamps"] *= 1.2


def jumpy(episode, number):
    episode["stamps"] = episode["stamps"] + np.random.default_rng(number).uniform(-0.024, 0.024, LENGTH)


def freeze(length):
    def change(episode, number):
        if number == 2:
            episode["pictures"][10 : 10 + length] = episode["pictures"][10]

    return change


def half_rate(episode, number):
    episode["pictures"][1::2] = episode["pictures"][::2]


def idle(episode, number):
    episode["action"][20:50, :2] = 0


def clipped(episode, number):
    episode["action"][:, 0] = episode["action"][:, 0].clip(None, 0.008)


def same(episode, number):
    first = next(sound())
    if number == 3:
        episode |= {"state": first["state"], "action": first["action"]}


def wordless(episode, number):
    if number == 1:
        episode["instruction"] = ""


@pytest.mark.parametrize(
    ("change", "severity", "rule", "message"),
    [
        (longer_gap, "warning", "gap", "1 gaps of up to 0.600 s in episode 2"),
        (slower, "error", "rate", "8.333 Hz by its stamps; the contract says 10"),
        (jumpy, "warning", "jitter", "of a period"),
        (put("action", (5, 0), 0.9), "warning", "outlier", "up to 0.9 .* in episode 2"),
        (put("state", (5, 0), 1e9), "error", "range", "up to 1e\\+09 in episode 2"),
        (put("action", (5, 2), -1.0), "error", "gripper", "1 commands outside 0 to 1"),
        (put("action", (slice(None), 2), 2.0), "error", "gripper", "is the contract's sign or scale right"),
        (freeze(12), "error", "frozen", "frozen for 1.10 s in episode 2"),
        (half_rate, "warning", "frozen", "deliver less than the rate"),
        (put("pictures", slice(3, 6), 0), "warning", "black", "3 of 240"),
        (put("pictures", slice(3, 6), 255), "warning", "white", "3 of 240"),
        (idle, "warning", "idle", "command no motion"),
        (clipped, "warning", "saturation", "greatest, 0.008"),
        (same, "warning", "repeated", "the same numbers in episodes 0, 3"),
        (wordless, "warning", "instruction", "1 without an instruction: episode 1"),
    ],
)
def test_what_was_put_in_is_found(tmp_path, change, severity, rule, message):
    found = checked(tmp_path, change)
    matching = [f for f in found.findings if f.rule == rule]
    assert matching and matching[0].severity == severity
    assert re.search(message, matching[0].message)
    assert main(["check", str(tmp_path / "set"), "--pictures", "60"]) == (1 if severity == "error" else 0)


def test_an_action_that_never_changes(tmp_path):
    def change(episode, number):
        episode["action"][:, 1] = 0.3

    assert [f.rule for f in checked(tmp_path, change).findings] == ["constant"]


def test_what_is_not_stated_is_a_warning(tmp_path):
    action = Action(tuple(Dimension(d.name) for d in CONTRACT.action.dimensions), grippers=CONTRACT.action.grippers)
    findings = checked(tmp_path, contract=replace(CONTRACT, action=action)).findings
    assert [f.rule for f in findings] == ["contract"] and "action.mode" in findings[0].message


def test_damaged_episodes_are_errors_and_the_rest_is_checked(tmp_path, capsys):
    checked(tmp_path)
    path = tmp_path / "set/data/chunk-000/file-000.parquet"
    data = path.read_bytes()
    at = data.index(b"\x89PNG", len(data) // 2)
    path.write_bytes(data[: at + 40] + bytes(8) + data[at + 48 :])
    assert main(["check", str(tmp_path / "set")]) == 1
    assert "error    picture" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "set"), "--pictures", "0"]) == 0
    assert main(["check", str(tmp_path / "none")]) == 3
