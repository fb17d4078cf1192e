# SPDX-License-Identifier: Apache-2.0
"""RLDS without TensorFlow: checksums, the wire format, round trips, and files that are damaged or hostile."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistream.contract import require_same
from omnistream.episodes import open_dataset
from omnistream.episodes.pictures import encode_png
from omnistream.errors import ConfigError, InputError
from omnistream_training.robot_data.bag_import import BagImporter
from omnistream_training.robot_data.cli import main
from omnistream_training.robot_data.example import Example, encode_example
from omnistream_training.robot_data.formats import open_any
from omnistream_training.robot_data.rlds_protocols import BRIDGE, binarised, relabelled
from omnistream_training.robot_data.rlds_reader import open_rlds
from omnistream_training.robot_data.tfrecord import TFRecordFile, crc32c, masked, write_record


def test_checksums_have_the_known_answers():
    # RFC 3720, B.4
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("length", [65535, 65536, 65537, 1_000_003])
def test_checksums_of_long_buffers_do_not_depend_on_the_lanes(length):
    """A buffer with one bit set at a time: a checksum in lanes is as linear as one byte after the other."""
    data = np.random.default_rng(length).integers(0, 256, length, np.uint8).tobytes()
    table = [0] * 256
    for i in range(256):
        value = i
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table[i] = value
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    assert crc32c(data) == crc ^ 0xFFFFFFFF


NAMES = st.text(min_size=1, max_size=20)
VALUES = st.one_of(
    st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1).map(lambda x: np.array(x, np.float32)),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1).map(lambda x: np.array(x, np.int64)),
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_examples_are_read_as_written(features):
    example = Example(memoryview(encode_example(features)), "here")
    assert example.names == sorted(features)
    for name, value in features.items():
        if isinstance(value, list):
            assert [bytes(item) for item in example.bytes_list(name)] == value
        elif value.dtype == np.float32:
            assert example.floats(name).tolist() == value.tolist()
        else:
            assert example.integers(name).tolist() == value.tolist()


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 1000), st.integers(0, 255))
def test_any_bytes_are_read_or_refused(junk, at, byte):
    whole = bytearray(encode_example({"a": [b"xyz" * 20], "b": np.arange(9.0, dtype=np.float32), "c": np.arange(9)}))
    whole[at % len(whole)] = byte
    for data in (junk, bytes(whole), bytes(whole[: at % len(whole)])):
        try:
            example = Example(memoryview(data), "here")
            for name in example.names:
                {"bytes": example.bytes_list, "floats": example.floats, "integers": example.integers}.get(
                    example.kind(name), lambda _: None
                )(name)
        except InputError as error:
            assert str(error).startswith("here: ")


def test_a_feature_of_another_kind_is_named():
    example = Example(memoryview(encode_example({"a": [b"x"]})), "here")
    with pytest.raises(InputError, match="feature 'a' holds bytes; expected floats"):
        example.floats("a")
    with pytest.raises(InputError, match="no feature 'b'; there are a"):
        example.floats("b")


def records(path, payloads):
    with path.open("wb") as file:
        for payload in payloads:
            write_record(file, payload)
    return path


def test_damaged_records(tmp_path):
    path = records(tmp_path / "a.tfrecord", [b"first" * 9, b"second" * 9, b"third" * 9])
    whole = path.read_bytes()
    assert len(TFRecordFile(path).records) == 3
    path.write_bytes(whole[:-8])
    file = TFRecordFile(path)
    assert len(file.records) == 2 and file.lost == ["cut short within record 2: 41 of 45 bytes"]
    path.write_bytes(whole[:20] + b"X" + whole[21:])
    file = TFRecordFile(path)
    with pytest.raises(InputError, match=r"a\.tfrecord: record 0 at byte 12 has a wrong checksum"):
        file.data(0)
    assert bytes(file.data(1)) == b"second" * 9
    path.write_bytes(struct.pack("<Q", 2**60) + b"0000" + whole)
    assert "the checksum of a record's length is wrong" in TFRecordFile(path).lost[0]
    head = struct.pack("<Q", 2**40)
    path.write_bytes(head + struct.pack("<I", masked(crc32c(head))))
    assert TFRecordFile(path).records == [] and TFRecordFile(path).lost
    path.write_bytes(b"")
    assert TFRecordFile(path).records == []


@pytest.fixture
def imported(tmp_path, make_bag):
    bag, mapping = make_bag()
    importer = BagImporter(tmp_path / "set", mapping)
    importer.add(bag)
    importer.close()
    return open_dataset(tmp_path / "set")


def test_the_same_demonstrations_through_both_formats_are_bit_equal(tmp_path, imported, capsys):
    assert main(["convert", str(tmp_path / "set"), "--out", str(tmp_path / "rlds"), "--to", "rlds"]) == 0
    assert main(["convert", str(tmp_path / "rlds"), "--out", str(tmp_path / "back")]) == 0
    for other in (open_any(tmp_path / "rlds"), open_dataset(tmp_path / "back")):
        require_same(imported.contract, other.contract)
        for a, b in zip(imported, other, strict=True):
            assert (a.instruction, a.success) == (b.instruction, b.success)
            assert a.state.tobytes() == b.state.tobytes() and a.action.tobytes() == b.action.tobytes()
            for x, y in zip(a.frames("front"), b.frames("front"), strict=True):
                np.testing.assert_array_equal(x, y)
    described = json.loads((tmp_path / "rlds/1.0.0/features.json").read_text())
    assert "steps" in described["featuresDict"]["features"]
    assert main(["convert", str(tmp_path / "set"), "--out", str(tmp_path / "rlds"), "--to", "rlds"]) == 2


def test_damaged_episodes_are_left_out_and_named(tmp_path, imported, capsys):
    main(["convert", str(tmp_path / "set"), "--out", str(tmp_path / "rlds"), "--to", "rlds"])
    (path,) = (tmp_path / "rlds/1.0.0").glob("*.tfrecord*")
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 255
    path.write_bytes(data)
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "rlds"), "--out", str(tmp_path / "left")]) == 1
    assert "wrong checksum" in capsys.readouterr().out
    assert len(open_dataset(tmp_path / "left")) == 1
    path.write_bytes(data[: len(data) * 3 // 4])
    assert "cut short within record 1" in open_rlds(tmp_path / "rlds").lost[0]
    path.write_bytes(data[:100])
    with pytest.raises(InputError, match="no episode can be read"):
        open_rlds(tmp_path / "rlds")


def plain_set(folder, steps=4, name="mine", **changes):
    image = encode_png(np.zeros((8, 8, 3), np.uint8))
    features = {
        "steps/is_first": np.arange(steps) == 0,
        "steps/action": np.arange(steps * 7, dtype=np.float32),
        "steps/observation/state": np.arange(steps * 7, dtype=np.float32) / 100,
        "steps/observation/image_0": [image] * steps,
        "steps/language_instruction": [b"move"] * steps,
    } | changes
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"name": name}))
    kept = {key: value for key, value in features.items() if value is not None}
    records(folder / f"{name}-train.tfrecord-00000-of-00001", [encode_example(kept)])
    return folder


def test_bridge_is_read_as_openvla_reads_it(tmp_path):
    dataset = open_rlds(plain_set(tmp_path / "a", name="bridge_dataset"))
    (episode,) = dataset
    assert (len(episode), dataset.contract.rate, dataset.contract.action.mode) == (2, 5.0, "delta")
    np.testing.assert_allclose(episode.action[:, :6], 0.07, atol=1e-6)  # the state's change, not the recorded action
    np.testing.assert_allclose(episode.state[0], np.arange(7, 14) / 100, atol=1e-6)  # the first step is left out
    assert episode.instruction == "move"


def test_the_open_x_copy_of_bridge_is_read_as_openvla_reads_it(tmp_path):
    picture = encode_png(np.zeros((8, 8, 3), np.uint8))
    features = {
        "steps/action": None,
        "steps/observation/image_0": None,
        "steps/observation/image": [picture] * 4,
        "steps/action/world_vector": np.full(12, 0.5, np.float32),
        "steps/action/rotation_delta": np.full(12, 0.5, np.float32),
        "steps/action/open_gripper": np.array([1, 1, 0, 0]),
        "steps/language_instruction": None,
        "steps/observation/natural_language_instruction": [b"move"] * 4,
    }
    (episode,) = open_rlds(plain_set(tmp_path / "a", name="bridge", **features), protocol="bridge_oxe")
    assert len(episode) == 2 and episode.instruction == "move"  # without the first step and the last
    np.testing.assert_allclose(episode.action[:, :6], 0.07, atol=1e-6)  # the state's change, not the recorded action
    assert episode.action[:, 6].tolist() == [1, 0]
    np.testing.assert_allclose(episode.state[0], np.arange(7, 14) / 100, atol=1e-6)


def test_what_a_protocol_does_not_know_must_be_said(tmp_path):
    plain_set(tmp_path / "a")
    with pytest.raises(ConfigError, match="RLDS does not say its rate"):
        open_rlds(tmp_path / "a")
    assert open_rlds(tmp_path / "a", rate=3.0).contract.unspecified[0] == "action.mode"
    with pytest.raises(InputError, match="no files of split 'val'; there are mine-train"):
        open_rlds(tmp_path / "a", split="val", rate=3.0)
    with pytest.raises(ConfigError, match="RLDS protocol is 'x'; expected one of bridge"):
        open_rlds(tmp_path / "a", protocol="x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps/action": np.zeros(27, np.float32)}, "'steps/action' has 27 numbers for 4 steps"),
        ({"steps/action": None}, "no feature 'steps/action'; there are"),
        ({"steps/action": np.full(28, np.nan, np.float32)}, "NaN or infinity"),
        (
            {"steps/observation/image_0": [encode_png(np.zeros((8, 8, 3), np.uint8))] * 3},
            "3 pictures of .* for 4 steps",
        ),
        ({"steps/observation/image_0": [encode_png(np.zeros((8, 8, 3), np.uint8)), b"x", b"", b"y"]}, "step 1"),
    ],
)
def test_wrong_shapes_are_named(tmp_path, changes, message):
    plain_set(tmp_path / "a", **changes)
    with pytest.raises(InputError, match=message):
        for episode in open_rlds(tmp_path / "a", rate=3.0):
            list(episode.frames("image_0"))


def test_binarising_looks_ahead():
    found = binarised(np.array([1.0, 0.5, 0.5, 0.0, 0.3, 0.97, 0.5], np.float32))
    assert found.tolist() == [1, 0, 0, 0, 1, 1, 1]
    assert binarised(np.array([0.4, 0.6], np.float32)).tolist() == [0, 1]


def test_relabelling_needs_a_state():
    with pytest.raises(InputError, match="state of 0, action of 7 numbers; expected 6"):
        relabelled(BRIDGE, np.zeros((3, 0), np.float32), np.zeros((3, 7), np.float32), "here")
