# SPDX-License-Identifier: Apache-2.0
"""`omnistream-replay` without ROS: equal to what was logged, equal to a loop by hand, and what is damaged is said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from omnistream.cli.replay import main
from omnistream.io.run_log import RunLog, read_run_log
from omnistream.policy.guard import Facts, Stop
from omnistream.policy.intake import checksum
from omnistream.sync.aligner import Observation
from tests.omnistream.io.conftest import BagMaker
from tests.omnistream.replay.conftest import BEGIN, NODE, SECONDS, Robot, parts, write_bag


def run(robot: Robot, *words: object, bag: Path | None = None) -> tuple[int, dict[str, Any]]:
    path = robot.folder / "report.json"
    path.unlink(missing_ok=True)
    code = main([str(bag or robot.bag), "--report", str(path), *map(str, words)])
    return code, json.loads(path.read_text()) if path.exists() else {}


def test_a_run_log_gives_the_same_commands_again(robot: Robot, logged: tuple[Path, str]) -> None:
    log, live = logged
    code, report = run(robot, "--log", log, "--plot", robot.folder / "plot.svg")
    assert code == 0 and report["equal"] and report["command_hash"] == live
    assert report["predictions"] > 3 and report["predictions_different"] == report["different"] == 0
    assert report["compared"] >= report["commands"]["move"] > 3 and report["clamps"]["velocity"] > 0
    assert not report["lost"] and not report["notes"]
    assert "twist about x" in (robot.folder / "plot.svg").read_text()


def test_an_inference_that_raised_is_in_the_log(robot: Robot) -> None:
    """The stream of pictures may hold its frame by then: the replay has to know."""
    log = RunLog(robot.folder / "logs", "policy", {"node": NODE})
    mind = parts(robot, log)[3]
    message = SimpleNamespace(data=b"no message of ours")
    with pytest.raises(AttributeError):
        mind.think(Observation(7, 7, {"static": message}, {"static": 3}), lambda: None)
    log.close()
    event = read_run_log(log.path).events[0]
    assert (event["event"], event["result"], event["number"], event["chunk"]) == ("think", "failed", 1, "")
    assert event["inputs"] == {"static": [4, checksum(message)]}


def test_without_a_log_it_says_so_and_is_the_same_every_time(
    robot: Robot, logged: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--params", robot.file, "--node", NODE, "--latency", 70)
    code, report = run(robot, *words)
    said = capsys.readouterr().out
    assert code == 0 and report["command_hash"] == logged[1] and report["mode"] == "idealised"
    assert "idealised: no run log; each inference takes 70 ms" in said and logged[1] in said
    assert report["messages_in_bag"] == {
        "/arm/static/image_raw": 30, "/arm/wrist/image_raw": 10, "/arm/joint_states": 50,
        f"{NODE}/instruction": 1, f"{NODE}/estop": 0,
    }  # fmt: skip
    assert run(robot, *words)[1]["command_hash"] == logged[1]
    assert run(robot, *words, "--instruction", "lift the red cube")[1]["command_hash"] != logged[1]
    slow = run(robot, *words[:-1], 400)[1]
    assert slow["commands"]["move"] == 0, "the node's own deadline holds"


def test_known_answer_by_a_loop_of_its_own(robot: Robot) -> None:
    """No latency, told what to do from the beginning: at tick k what is predicted from the pictures of that moment."""
    words = ("--params", robot.file, "--node", NODE, "--latency", 0, "--instruction", "open the drawer")
    code, report = run(robot, *words)
    _, _, _, mind, drive = parts(robot)
    mind.instruct("open the drawer")
    pictures = read_pictures(robot.bag)
    ticks = round(SECONDS * 10) + 1  # one more, on what is planned, after the last picture
    drive.start(stamp=0, now=BEGIN)
    for k in range(ticks):
        now = BEGIN + k / 10
        if k < ticks - 1:
            images = {"static": pictures["/arm/static/image_raw"][3 * k], "wrist": pictures["/arm/wrist/image_raw"][k]}
            state = 0.01 * np.array([1, 2, 0]) + 0.001 * k / 10
            drive.adopt(k, mind.session.step(images, state, stamp=now).actions, now)
        drive.tick(Facts(instruction=True, observation_age=0.0), stamp=round(now * 1e9), now=now)
    drive.stop(Stop.DEACTIVATED, stamp=0, now=now)
    assert code == 0 and report["ticks"] == ticks and report["inferences"] == ticks - 1
    assert report["commands"] == {"move": ticks, "stop": 1}
    assert report["picture_age_ms"]["p50"] == 0 and report["picture_age_ms"]["max"] == 100
    assert report["messages"] == drive.left.messages and report["command_hash"] == drive.left.hex


def read_pictures(bag: Path) -> dict[str, list[np.ndarray]]:
    from omnistream.io.bag_reader import BagReader
    from omnistream.policy.intake import camera_input

    found: dict[str, list[np.ndarray]] = {}
    with BagReader(bag) as reader:
        for topic, _, data in reader.raw_messages(["/arm/static/image_raw", "/arm/wrist/image_raw"]):
            found.setdefault(topic.name, []).append(camera_input(reader.decode(topic, data), ""))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_damaged_bag_is_read_as_far_as_it_goes(
    robot: Robot, logged: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = next(path for path in robot.bag.iterdir() if path.suffix in (".mcap", ".db3"))
    data = bytearray(file.read_bytes())
    if file.suffix == ".mcap":
        file.write_bytes(data[: len(data) * 6 // 10])
    else:
        middle = len(data) // 2 // 4096 * 4096
        data[middle : middle + 98304] = bytes(98304)  # eight pictures, two of which were used at least
        file.write_bytes(data)
    code, report = run(robot, "--log", logged[0])
    said = capsys.readouterr().out
    assert code == 1 and not report["equal"] and report["lost"] and "lost: " in said and "NOT EQUAL" in said
    assert report["observations_not_in_bag"] > 0 and "does not have its picture" in report["first_difference"]
    assert report["observations"] > 0
    code, report = run(robot, "--params", robot.file, "--node", NODE)
    assert code == 0 and report["lost"] and 0 < report["messages_in_bag"]["/arm/static/image_raw"] < 30


def test_a_bag_of_something_else_is_told_what_it_has(
    robot: Robot, logged: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    maker = BagMaker(robot.folder / "other", "mcap")
    maker.image("/head/image_raw", np.zeros((8, 8, 3), np.uint8), BEGIN, BEGIN * 10**9)
    maker.text("/arm/static/image_raw", BEGIN * 10**9)
    other = maker.close()
    for words in (("--log", logged[0]), ("--params", robot.file, "--node", NODE)):
        code, _ = run(robot, *words, bag=other)
        error = capsys.readouterr().err
        assert code == 2 and ("/head/image_raw" in error or "expected sensor_msgs/msg/Image" in error)
    silent = write_bag(BagMaker(robot.folder / "silent", "mcap"), instruction=None)
    assert run(robot, "--params", robot.file, "--node", NODE, bag=silent)[0] == 2
    assert "what is it to do?" in capsys.readouterr().err


def test_another_picture_with_the_same_stamp_is_not_taken_for_it(robot: Robot, logged: tuple[Path, str]) -> None:
    log, _ = logged
    lines = log.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if '"event":"think"' in line and '"result":"chunk"' in line)
    event = json.loads(lines[at])
    event["inputs"]["wrist"][1] ^= 1
    lines[at] = json.dumps(event)
    log.write_text("\n".join(lines) + "\n")
    code, report = run(robot, "--log", log)
    assert code == 1 and report["observations_not_in_bag"] == 1
    assert f"observation {event['number']}: " in report["first_difference"]


def test_the_first_difference_is_named(robot: Robot, logged: tuple[Path, str], capsys: Any) -> None:
    log, live = logged
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    changed = [line for line in lines if line.get("event") == "tick" and "left" in line][3]
    changed["facts"]["observation_age"] = 9.0
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, report = run(robot, "--log", log)
    assert code == 1 and report["command_hash"] != live
    assert f"tick {changed['tick']}" in report["first_difference"] and "NOT EQUAL" in capsys.readouterr().out


def test_a_log_that_was_cut_off_is_followed_to_its_end(robot: Robot, logged: tuple[Path, str]) -> None:
    log, live = logged
    data = log.read_bytes()
    log.write_bytes(data[: len(data) * 7 // 10])
    code, report = run(robot, "--log", log)
    assert code == 0 and report["equal"] and report["command_hash"] != live
    assert not report["live"]["closed"] and any("is damaged" in line for line in report["lost"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "which policy?"),
        (("--log", "x.jsonl", "--instruction", "y"), 2, "leave one of them out"),
        (("--log", "x.jsonl"), 3, "No such file"),
        (("--params", "robot.yaml", "--node", "other"), 2, "says nothing to /other; it has arm/policy"),
        (("--policy", "nowhere"), 4, "nowhere"),
        (("--policy", "policy", "--latency", "-1"), 2, "milliseconds"),
        (("--policy", "policy", "--plot", "x.png"), 2, ".svg"),
    ],
)
def test_what_is_wrong_is_said(
    robot: Robot, words: Any, code: int, said: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(robot.folder)
    assert robot.file.exists()
    assert run(robot, *words)[0] == code
    assert said in capsys.readouterr().err


def test_no_bag_and_no_log(robot: Robot, capsys: Any) -> None:
    assert main([str(robot.folder / "weights"), "--policy", "x"]) == 2
    assert "is no bag" in capsys.readouterr().err
    other = robot.folder / "text.jsonl"
    other.write_text('{"a": 1}\n')
    assert main([str(robot.bag), "--log", str(other)]) == 3
    assert "no run log" in capsys.readouterr().err
    other.write_text('{"format": "omnistream-run-log", "version": 99}\n')
    assert main([str(robot.bag), "--log", str(other)]) == 3
    assert "version 99" in capsys.readouterr().err
