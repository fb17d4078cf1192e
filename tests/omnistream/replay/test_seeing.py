# SPDX-License-Identifier: Apache-2.0
"""Perception's stream, logged and made again without ROS: resets, a lens that bends lines, a full cache, features."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnistream.cli.replay import main
from omnistream.errors import CheckpointError, InputError
from omnistream.io.pixels import checksum
from omnistream.io.run_log import RunLog, circumstances, read_run_log
from omnistream.policy.intake import camera_input
from omnistream.replay import seeing
from omnistream.replay.seeing import SeeingAgain, feature_message
from omnistream.stream.camera import CameraStream
from omnistream.stream.gate import DropReason, ResetReason, StreamGate
from omnistream.stream.rectify import Lens, Undistortion
from omnistream.stream.session import StreamSession
from omnistream.weights import load_model, random_model, save_model
from tests.omnistream.io.conftest import BagMaker
from tests.omnistream.policy.conftest import MODEL, one_thread  # noqa: F401
from tests.omnistream.replay.conftest import BEGIN

K = np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])
SIZE = (48, 64)


@pytest.fixture
def parameters(tmp_path: Path) -> dict[str, Any]:
    save_model(random_model(MODEL, 0), tmp_path / "weights")
    return {
        "weights": str(tmp_path / "weights"),
        "engine": "torch",
        "policy": "full:4",
        "image_size": 64,
        "time_base": "index",
        "nominal_rate": 10.0,
        "max_gap": 1.0,
        "dtype": "float32",
        "device": "cpu",
        "num_threads": 1,
        "expected_image_size": [64, 48],
    }


def live(folder: Path, parameters: dict[str, Any]) -> tuple[Path, Path, list[Any], dict[int, int]]:
    """Bag, log, what became of each image, and the checksum of the features of each stamp."""
    session = StreamSession(
        load_model(parameters["weights"]), engine="torch", policy="full:4", image_size=64, dtype="float32", device="cpu"
    )
    header = {
        "node": "/see",
        "parameters": parameters,
        "topics": {"": "/image_raw"},
        "model": session.model_hash,
        "threads": 1,
        "engine": "torch cpu float32",
    }
    log = RunLog(folder / "logs", "see", header | circumstances())
    stream = CameraStream("", session, StreamGate("index", 1.0), log)
    maker = BagMaker(folder / "bag", "mcap")
    undistort = Undistortion(Lens(tuple(K.ravel().tolist()), (-0.2, 0.05, 0.0, 0.0), "plumb_bob"), SIZE)
    draw = np.random.default_rng(0)
    taken, features = [], {}
    # A repeated stamp, a gap, another frame_id, and more than four images in a row.
    shown = [(0, "a"), (100, "a"), (100, "a"), (200, "a"), (5000, "a"), *((5100 + 100 * i, "b") for i in range(7))]
    for milliseconds, frame in shown:
        image = draw.integers(0, 256, (*SIZE, 3), np.uint8)
        stamp = BEGIN * 10**9 + milliseconds * 10**6
        maker.image("/image_raw", image, BEGIN + milliseconds / 1e3, stamp)
        one = stream.take(
            image,
            stamp=stamp,
            crc=lambda image=image: checksum(image.tobytes()),  # type: ignore[misc]
            frame_id=frame,
            K=K,
            undistort=undistort if milliseconds > 5000 else None,
        )
        taken.append(one)
        if one.result is not None:
            message = feature_message(one.result, session, session.frames_seen, "float16")
            features[stamp] = checksum(message.data, message.cls)
    log.close(hash={"": stream.hash.hexdigest()})
    return maker.close(), log.path, taken, features


def test_what_perception_saw_is_made_again(
    tmp_path: Path, parameters: dict[str, Any], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag, log, taken, features = live(tmp_path, parameters)
    assert [one.dropped for one in taken].count(DropReason.EQUAL_STAMP) == 1
    events = [event for event in read_run_log(log).events if event["event"] == "image"]
    assert [event["reset"] for event in events][:5] == ["", "", "", ResetReason.GAP, ResetReason.FRAME_ID_CHANGED]
    assert ResetReason.STREAM_FULL in [event["reset"] for event in events]
    path = tmp_path / "report.json"
    assert main([str(bag), "--perception", str(log), "--report", str(path)]) == 0, capsys.readouterr()
    report = json.loads(path.read_text())["perception"]
    assert report["equal"] and report["images"] == len(events) == 11 and not report["images_not_in_bag"]
    assert report["result_hash"] == report["live_hash"] and "equal: every result" in capsys.readouterr().out
    with SeeingAgain(read_run_log(log), bag, {}) as again:
        assert list(again.feature_topics) == ["/see/features"]
        for stamp, crc in features.items():
            found = again.find("/see/features", stamp, crc)
            assert camera_input(found, "full:4").backbone == found.model_hash  # type: ignore[union-attr]
        assert again.find("/see/features", 1, 0) is None and again.find("/other", 1, 0) is None
    monkeypatch.setattr(seeing, "KEPT", 2)
    with SeeingAgain(read_run_log(log), bag, {}) as again:
        assert again.find("/see/features", 1, 0) is None, "and what follows is found all the same"
        assert all(again.find("/see/features", stamp, crc) is not None for stamp, crc in features.items())


def test_what_is_not_as_it_was_is_said(tmp_path: Path, parameters: dict[str, Any], capsys: Any) -> None:
    bag, log, _, _ = live(tmp_path, parameters)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    images = [line for line in lines if line.get("event") == "image"]
    images[2]["result"] = "0" * 64
    images[-1]["crc"] ^= 1
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(bag), "--perception", str(log)]) == 1
    said = capsys.readouterr().out
    assert "NOT EQUAL: 1 of 11 differ, 1 not in the bag" in said and str(images[2]["stamp"]) in said
    save_model(random_model(MODEL, 1), tmp_path / "others")
    lines[0]["parameters"]["weights"] = str(tmp_path / "others")
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(CheckpointError, match="the run was made with"):
        SeeingAgain(read_run_log(log), bag, {})
    assert main([str(bag), "--perception", str(log)]) == 4
    assert main([str(bag), "--perception", str(log), "--weights", str(tmp_path / "others")]) == 0, "it was asked for"


def test_it_ends_where_live_went_on_with_other_memory(tmp_path: Path, parameters: dict[str, Any], capsys: Any) -> None:
    """`~/set_window` and `~/load_weights`: the log does not hold another model."""
    bag, log, _, _ = live(tmp_path, parameters)
    lines = log.read_text().splitlines()
    at = [index for index, line in enumerate(lines) if '"event":"image"' in line][4]
    told = {"event": "replaced", "camera": "", "policy": "window:2", "model": "abc"}
    log.write_text("\n".join([*lines[:at], json.dumps(told), *lines[at:]]) + "\n")
    assert main([str(bag), "--perception", str(log)]) == 1
    said = capsys.readouterr().out
    assert "live it went on with window:2 of model abc: the replay ends there" in said and "images   4 stepped" in said


def test_images_that_live_did_not_use_are_no_pause_in_the_replay_either(
    tmp_path: Path, parameters: dict[str, Any], capsys: Any
) -> None:
    """The log does not name them; it says whether there was a pause."""
    given = {name: parameters[name] for name in ("engine", "policy", "image_size", "dtype", "device")}
    session = StreamSession(load_model(parameters["weights"]), **given)
    header = {"node": "/see", "parameters": parameters, "topics": {"": "/image_raw"}, "model": session.model_hash}
    log = RunLog(tmp_path / "logs", "see", header | {"threads": 1})
    stream = CameraStream("", session, StreamGate("index", 1.0), log)
    maker = BagMaker(tmp_path / "bag", "mcap")
    for milliseconds in range(0, 6000, 500):
        picture = np.full((*SIZE, 3), milliseconds % 251, np.uint8)
        stamp = BEGIN * 10**9 + milliseconds * 10**6
        maker.image("/image_raw", picture, BEGIN + milliseconds / 1e3, stamp)
        if milliseconds % 2000:
            stream.heard(stamp)
        else:
            assert stream.take(picture, stamp=stamp, crc=partial(checksum, picture.tobytes())).result is not None
    assert session.frames_seen == 3
    log.close(hash={"": stream.hash.hexdigest()})
    path = tmp_path / "report.json"
    words = [str(maker.close()), "--perception", str(log.path), "--report", str(path)]
    assert main(words) == 0, capsys.readouterr()
    report = json.loads(path.read_text())["perception"]
    assert report["images"] == 3 and report["resets"] == {}


def test_an_image_that_failed_live_is_remembered_by_the_gate(
    tmp_path: Path, parameters: dict[str, Any], capsys: Any
) -> None:
    """Its gap was a reset; the image after it comes half a second later and is none."""
    given = {name: parameters[name] for name in ("engine", "policy", "image_size", "dtype", "device")}
    session = StreamSession(load_model(parameters["weights"]), **given)
    header = {"node": "/see", "parameters": parameters, "topics": {"": "/image_raw"}, "model": session.model_hash}
    log = RunLog(tmp_path / "logs", "see", header | {"threads": 1})
    stream = CameraStream("", session, StreamGate("index", 1.0), log)
    maker = BagMaker(tmp_path / "bag", "mcap")
    lens = Lens(tuple(K.ravel().tolist()), (-0.2, 0.05, 0.0, 0.0), "plumb_bob")
    undistort, other_size = Undistortion(lens, SIZE), Undistortion(lens, (8, 8))
    for milliseconds in (0, 100, 4500, 5000, 5100):
        picture = np.full((*SIZE, 3), milliseconds % 251, np.uint8)
        stamp = BEGIN * 10**9 + milliseconds * 10**6
        maker.image("/image_raw", picture, BEGIN + milliseconds / 1e3, stamp)
        failing = milliseconds == 4500
        crc = checksum(picture.tobytes())
        with pytest.raises(InputError) if failing else contextlib.nullcontext():
            stream.take(
                picture,
                stamp=stamp,
                crc=partial(int, crc),
                frame_id="a",
                undistort=other_size if failing else undistort,
            )
    log.close(hash={"": stream.hash.hexdigest()})
    path = tmp_path / "report.json"
    words = [str(maker.close()), "--perception", str(log.path), "--report", str(path)]
    assert main(words) == 0, capsys.readouterr()
    report = json.loads(path.read_text())["perception"]
    assert report["images"] == 4 and report["images_failed_live"] == 1 and report["resets"] == {"gap": 1}
