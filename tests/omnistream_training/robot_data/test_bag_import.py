# SPDX-License-Identifier: Apache-2.0
"""A bag with known contents becomes the data set it must be; damaged ones give what is left and say what is lost."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from omnistream.episodes import open_dataset
from omnistream.errors import ContractError, InputError
from omnistream.io.bag_reader import BagReader
from omnistream.sync import load_mapping_file
from omnistream_training.robot_data.bag_import import BagImporter, BagReport, find_bags
from omnistream_training.robot_data.cli import main
from omnistream_training.robot_data.sample_bag import START, joints, number_of

STORE = get_typestore(Stores.ROS2_JAZZY)


def import_bag(tmp_path, bag, mapping, storage="image"):
    importer = BagImporter(tmp_path / "set", mapping, storage=storage)
    report = importer.add(bag)
    importer.close()
    return report, open_dataset(tmp_path / "set")


@pytest.mark.parametrize("transport", ["raw", "jpeg"])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_known_bag(tmp_path, make_bag, transport, storage):
    bag, mapping = make_bag(transport=transport, storage=storage)
    report, dataset = import_bag(tmp_path, bag, mapping)
    assert (report.episodes, report.steps, report.lost, report.gaps) == (2, 120, [], {})
    assert report.ends == {"success": 1, "failure": 1}
    assert [(e.instruction, e.success) for e in dataset.infos] == [("task 0", True), ("task 1", False)]
    for episode, first in zip(dataset, (0, 90), strict=True):
        assert [number_of(image) for image in episode.frames("front")] == list(range(first, first + 60))
        seconds = episode.stamps - START / 1e9
        np.testing.assert_allclose(seconds, (first + np.arange(60)) / 30, atol=1e-6)
        for state, action, now in zip(episode.state, episode.action, seconds, strict=True):
            seen = np.floor(now * 100 + 1e-4) / 100  # the newest of 100 Hz that is not after the picture
            commanded = np.ceil((now - 0.002) * 100 - 1e-4) / 100 + 0.002  # the first that is not before it
            np.testing.assert_allclose(state, joints(seen), atol=1e-6)
            np.testing.assert_allclose(action[:3], joints(commanded), atol=1e-6)
        assert np.flatnonzero(np.diff(episode.action[:, 3])).tolist() == [29]  # closed from the middle on


def test_thinning_to_a_lower_rate(tmp_path, make_bag):
    bag, _ = make_bag()
    text = yaml.safe_load((tmp_path / "bag.yaml").read_text()) | {"rate": 10.0}
    text["cameras"][0] |= {"height": 24, "width": 32}
    (tmp_path / "slow.yaml").write_text(yaml.safe_dump(text))
    _, dataset = import_bag(tmp_path, bag, load_mapping_file(tmp_path / "slow.yaml"))
    assert [info.length for info in dataset.infos] == [20, 20]
    np.testing.assert_allclose(np.diff(dataset[0].stamps), 0.1, atol=1e-6)
    assert dataset[0].frame("front", 0).shape == (24, 32, 3)


def rewrite(source: Path, target: Path, keep, storage=StoragePlugin.MCAP) -> Path:
    """Copy a bag; keep(topic, log time, bytes) gives the bytes to write, or None."""
    with Reader(source) as reader, Writer(target, version=9, storage_plugin=storage) as writer:
        made = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=STORE) for c in reader.connections}
        for connection, time, data in reader.messages():
            kept = keep(connection.topic, time, bytes(data))
            if kept is not None:
                writer.write(made[connection.id], time, kept)
    return target


def test_gaps_split_episodes(tmp_path, make_bag):
    bag, mapping = make_bag()
    hole = range(START + 800_000_000, START + 1_100_000_000)
    cut = rewrite(bag, tmp_path / "cut", lambda topic, time, data: None if time in hole and "image" in topic else data)
    report, dataset = import_bag(tmp_path, cut, mapping)
    assert [info.length for info in dataset.infos] == [24, 27, 60]
    assert report.topics["/camera/image_raw"]["gaps"] == 1
    assert [info.success for info in dataset.infos] == [None, True, False]
    for episode in dataset:
        assert np.diff(episode.stamps).max() < 0.05


def test_stale_states_are_no_observations(tmp_path, make_bag):
    bag, mapping = make_bag()
    hole = range(START + 800_000_000, START + 1_100_000_000)
    cut = rewrite(bag, tmp_path / "cut", lambda topic, time, data: None if time in hole and "states" in topic else data)
    report, dataset = import_bag(tmp_path, cut, mapping)
    assert report.gaps == {"/joint_states is too old": 6}
    assert max(report.ages["/joint_states"].values()) <= 0.1
    assert [info.length for info in dataset.infos][-1] == 60


def test_a_gripper_command_is_waited_for_as_long_as_a_state(tmp_path, make_bag):
    """It is closed at the stamp of a picture, and logged ten milliseconds after that; `patience` is 20."""
    bag, _ = make_bag()
    text = yaml.safe_load((tmp_path / "bag.yaml").read_text())
    grip = text["action"]["parts"][1] | {"topic": "/grip", "fields": ["grip"], "names": ["gripper"]}
    text["action"]["parts"] = [grip]
    (tmp_path / "grip.yaml").write_text(yaml.safe_dump(text))
    types = STORE.types
    with Reader(bag) as reader, Writer(tmp_path / "late", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        made = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=STORE) for c in reader.connections}
        extra = writer.add_connection("/grip", "sensor_msgs/msg/JointState", typestore=STORE)
        found = [(time, made[c.id], bytes(data)) for c, time, data in reader.messages()]
        for number, value in ((-1, 1.0), (30, -1.0)):
            at = START + round(number / 30 * 1e9)
            stamp = types["builtin_interfaces/msg/Time"](sec=at // 10**9, nanosec=at % 10**9)
            header, none = types["std_msgs/msg/Header"](stamp=stamp, frame_id=""), np.zeros(0)
            message = types["sensor_msgs/msg/JointState"](header, ["grip"], np.array([value]), none, none)
            data = bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/JointState"))
            found.append((at + (3 + 10 if number > 0 else 3) * 10**6, extra, data))
        for time, connection, data in sorted(found, key=lambda item: item[0]):
            writer.write(connection, time, data)
    _, dataset = import_bag(tmp_path, tmp_path / "late", load_mapping_file(tmp_path / "grip.yaml"))
    assert np.flatnonzero(np.diff(dataset[0].action[:, 0])).tolist() == [29]  # as if logged at once


def test_a_damaged_picture_splits_and_is_named(tmp_path, make_bag):
    bag, mapping = make_bag(transport="jpeg")
    at = START + round(30 / 30 * 1e9) + 3_000_000
    cut = rewrite(
        bag, tmp_path / "cut", lambda topic, time, data: data[:400] if "image" in topic and time == at else data
    )
    report, dataset = import_bag(tmp_path, cut, mapping)
    assert report.topics["/camera/image_raw/compressed"]["messages"] == 180
    assert report.pictures_lost == 1 and "damaged" in report.lost[0]
    assert [info.length for info in dataset.infos] == [30, 29, 60]


def test_a_bag_that_was_cut_off_gives_what_is_left(tmp_path, make_bag, capsys):
    bag, _ = make_bag()
    (file,) = bag.glob("*.mcap")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InputError, match="bag cannot be read"):
        BagReader(bag)
    code = main(["import", str(bag), "--mapping", str(tmp_path / "bag.yaml"), "--out", str(tmp_path / "set")])
    printed = capsys.readouterr().out
    assert code == 1 and "LOST:" in printed and "cut short" in printed
    dataset = open_dataset(tmp_path / "set")
    assert dataset.infos[0].length == 60 and 20 < dataset.infos[1].length < 60
    assert [number_of(image) for image in dataset[1].frames("front")][:2] == [90, 91]
    report = json.loads((tmp_path / "set/meta/omnistream_import.json").read_text())
    assert report["bags"][0]["lost"] and "format: omnistream-mapping" in report["mapping"]


def chunks(data: bytes) -> list[int]:
    """Where the chunks of an mcap file begin."""
    found, at = [], 8
    while at < len(data) - 8:
        if data[at] == 6:
            found.append(at)
        at += 9 + int.from_bytes(data[at + 1 : at + 9], "little")
    return found


@pytest.mark.parametrize("compression", [False, True])
def test_wrong_bytes_in_the_middle_cost_one_chunk(tmp_path, make_bag, compression):
    bag, mapping = make_bag(compression=compression, height=240, width=320)
    with BagReader(bag) as reader:
        before = [(topic.name, time) for topic, time, _ in reader.raw_messages(mapping.topics())]
    (file,) = bag.glob("*.mcap")
    damaged = bytearray(file.read_bytes())
    at = chunks(damaged)[len(chunks(damaged)) // 6]
    damaged[at + 9 + 24 : at + 9 + 28] = b"abcd"  # a checksum, where the writer left it out
    damaged[at + 60 : at + 124] = bytes(64)
    file.write_bytes(damaged)
    with BagReader(bag, salvage=True) as reader:
        left = [(topic.name, time) for topic, time, _ in reader.raw_messages(mapping.topics())]
        lost = reader.lost
    assert any("lost: a chunk of" in line for line in lost)
    assert len(before) - 60 < len(left) < len(before)
    assert left == [item for item in before if item in set(left)]  # in order, none twice
    report, dataset = import_bag(tmp_path, bag, mapping)
    assert report.lost and 100 < dataset.frames < 120


def test_a_damaged_sqlite_bag_gives_what_is_left(tmp_path, make_bag):
    bag, mapping = make_bag(storage="sqlite3", height=240, width=320)
    (file,) = bag.glob("*.db3")
    damaged = bytearray(file.read_bytes())
    middle = len(damaged) * 3 // 4 // 4096 * 4096
    damaged[middle : middle + 3 * 4096] = bytes(3 * 4096)
    file.write_bytes(damaged)
    with BagReader(bag, salvage=True) as reader:
        topics = [topic.name for topic, _, _ in reader.raw_messages(mapping.topics())]
        lost = reader.lost
    assert len(topics) > 400 and topics.count("/camera/image_raw") > 90
    assert lost or topics.count("/camera/image_raw") == 180


def test_nothing_left_is_refused(tmp_path, make_bag):
    bag, mapping = make_bag()
    (file,) = bag.glob("*.mcap")
    file.write_bytes(b"\x89MCAP0\r\n" + bytes(range(256)) * 4)
    with pytest.raises(InputError, match="no message can be read"):
        BagImporter(tmp_path / "set", mapping).add(bag)
    sqlite3.connect(tmp_path / "empty.db3").close()
    with pytest.raises(InputError, match="empty.db3"):
        BagImporter(tmp_path / "set", mapping).add(tmp_path / "empty.db3")
    assert not (tmp_path / "set").exists()


def test_missing_topics_and_foreign_clocks_are_named(tmp_path, make_bag):
    bag, mapping = make_bag()
    cut = rewrite(bag, tmp_path / "cut", lambda topic, time, data: None if topic == "/joint_states" else data)
    with pytest.raises(InputError, match="no messages on /joint_states, which the mapping asks for"):
        BagImporter(tmp_path / "set", mapping).add(cut)
    text = (tmp_path / "bag.yaml").read_text().replace("/joint_states", "/camera/image_raw")
    (tmp_path / "wrong.yaml").write_text(
        text.replace("{name: front, topic: /camera/image_raw", "{name: front, topic: /x")
    )
    with pytest.raises(InputError, match="no messages on /x"):
        BagImporter(tmp_path / "set", load_mapping_file(tmp_path / "wrong.yaml")).add(bag)

    def simulated(topic, time, data):
        """Stamps that count from zero, as /clock of a simulator does; the log keeps its own time."""
        if not topic.startswith(("/camera", "/joint")):
            return data
        seconds = int.from_bytes(data[4:8], "little") - START // 10**9 + 1
        return data[:4] + seconds.to_bytes(4, "little") + data[8:]

    other = rewrite(bag, tmp_path / "other", simulated)
    with pytest.raises(ContractError, match="say `clock: log` in the mapping"):
        BagImporter(tmp_path / "set", mapping).add(other)
    (tmp_path / "log.yaml").write_text((tmp_path / "bag.yaml").read_text() + "clock: log\n")
    report, _ = import_bag(tmp_path, other, load_mapping_file(tmp_path / "log.yaml"))
    assert report.episodes == 2


def shifted(seconds, which):
    """Stamps of the messages on a topic that `which` names, moved by whole seconds."""
    seen = {}

    def change(topic, time, data):
        number = seen[topic] = seen.get(topic, -1) + 1
        if topic.startswith(("/camera", "/joint")) and which(topic, number):
            return data[:4] + (int.from_bytes(data[4:8], "little") + seconds).to_bytes(4, "little") + data[8:]
        return data

    return change


def test_a_stamp_of_the_future_costs_its_message(tmp_path, make_bag):
    bag, mapping = make_bag()
    camera = rewrite(bag, tmp_path / "camera", shifted(1000, lambda topic, n: topic == "/camera/image_raw" and n == 40))
    report, dataset = import_bag(tmp_path / "a", camera, mapping)
    assert report.steps == 119 and [info.length for info in dataset.infos] == [40, 19, 60]
    assert report.topics["/camera/image_raw"]["damaged"] == 1
    assert "leaps 1000.000 s into the future" in report.topics["/camera/image_raw"]["reason"]
    state = rewrite(bag, tmp_path / "state", shifted(1000, lambda topic, n: topic == "/joint_states" and n == 40))
    report, _ = import_bag(tmp_path / "b", state, mapping)
    assert report.steps == 120 and report.topics["/joint_states"]["damaged"] == 1
    clock = rewrite(bag, tmp_path / "clock", shifted(1000, lambda topic, n: n >= (40 if "camera" in topic else 133)))
    report, _ = import_bag(tmp_path / "c", clock, mapping)  # that was set while it was recorded
    assert (report.steps, report.too_short) == (40 + 60, 1) and report.topics["/camera/image_raw"]["damaged"] == 1
    assert report.ends["a time without a tick"] == 1


def test_actions_from_the_state(tmp_path, make_bag):
    bag, _ = make_bag()
    text = yaml.safe_load((tmp_path / "bag.yaml").read_text())
    text["action"] = {"mode": "delta", "frame": "joints", "from_state": ["shoulder", "elbow", "wrist"]}
    (tmp_path / "delta.yaml").write_text(yaml.safe_dump(text))
    _, dataset = import_bag(tmp_path, bag, load_mapping_file(tmp_path / "delta.yaml"))
    for episode in dataset:
        np.testing.assert_allclose(episode.action[:-1], np.diff(episode.state, axis=0), atol=1e-6)


def test_several_bags_make_one_set(tmp_path, make_bag, capsys):
    for name in ("a", "b"):
        make_bag(f"bags/{name}") if (tmp_path / "bags").mkdir(exist_ok=True) is None else None
    assert [path.name for path in find_bags([tmp_path / "bags"])] == ["a", "b"]
    mapping = str(tmp_path / "bags/a.yaml")
    out = tmp_path / "set"
    assert main(["import", str(tmp_path / "bags"), "--mapping", mapping, "--out", str(out), "--storage", "jpeg"]) == 0
    assert len(open_dataset(out)) == 4
    assert "4 episodes, 240 steps" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "bags"), "--mapping", mapping, "--out", str(out)]) == 2  # taken
    assert main(["import", str(tmp_path / "none"), "--mapping", mapping, "--out", str(out)]) == 3


def test_the_drafted_mapping_is_one(tmp_path, make_bag, capsys):
    bag, _ = make_bag()
    draft = tmp_path / "draft.yaml"
    assert main(["topics", str(bag), "--mapping", str(draft)]) == 0
    mapping = load_mapping_file(draft)
    assert mapping.cameras[0].topic == "/camera/image_raw"
    assert mapping.instruction.topic == "/instruction" and mapping.episodes.topic == "/episode"
    assert {part.topic for part in mapping.action.parts} == {"/joint_commands", "/gripper/command"}
    assert main(["topics", str(bag), "--mapping", str(draft)]) == 2  # it is not overwritten


def test_a_report_without_steps_has_a_text():
    from omnistream_training.robot_data.import_report import text_of

    assert "0 of 0 ticks kept (none)" in text_of(BagReport(bag="empty"))
