# SPDX-License-Identifier: Apache-2.0
"""A bag without a run log: what it says of the arm and of e-stops counts, and holes in its time are told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnistream.cli.replay import main
from omnistream.contract import Action, Camera, Contract, Dimension
from omnistream.errors import InputError
from omnistream.policy import mind
from omnistream.policy.checkpoint import save_policy
from tests.omnistream.io.conftest import BagMaker
from tests.omnistream.policy.conftest import CONFIG, make_policy, one_thread, statistics  # noqa: F401

BEGIN = 1000.0
PIXELS = dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, source="pixels"))
CONTRACT = Contract(
    rate=10.0,
    cameras=(Camera("front", 64, 64),),
    state=(),
    action=Action(tuple(Dimension(name, "m") for name in "xyz"), mode="delta", frame="base"),
    action_statistics=statistics(3),
)

Write = Callable[[BagMaker, float], None]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_policy(make_policy(CONTRACT, PIXELS, None), tmp_path_factory.mktemp("policies") / "pixels"))


@pytest.fixture
def replayed(tmp_path: Path, policy: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """A bag of pictures at the given times (s), and of what `more` writes at some; its replay's code and report."""

    def replayed(times: list[float], more: dict[float, Write], **parameters: Any) -> tuple[int, dict[str, Any]]:
        maker = BagMaker(tmp_path / "bag", "mcap")
        draw = np.random.default_rng(0)
        for index, second in enumerate(times):
            log_time = round((BEGIN + index / 10) * 1e9)
            if (write := more.get(second)) is not None:
                write(maker, log_time)
            picture = draw.integers(0, 256, (64, 64, 3), np.uint8)
            maker.image("/front/image_raw", picture, BEGIN + second if second >= 0 else 0.0, log_time)
        bag = maker.close()
        given = {"policy": str(policy), "ramp": 0.0, "velocity_limit": [0.1], "acceleration_limit": [9.0]} | parameters
        file = tmp_path / "robot.yaml"
        lines = [f"    {name}: {value!r}" for name, value in given.items()]
        file.write_text("\n".join(["/**:", "  ros__parameters:", *lines]))
        report = tmp_path / "report.json"
        words = [
            "--params",
            str(file),
            "--instruction",
            "lift the red cube",
            "--latency",
            "20",
            "--report",
            str(report),
        ]
        code = main([str(bag), *words])
        return code, json.loads(report.read_text()) if report.exists() else {}

    return replayed


def every(period: float, count: int, begin: float = 0.0) -> list[float]:
    return [round(begin + i * period, 6) for i in range(count)]


def estop(maker: BagMaker, log_time: int) -> None:
    maker.write("/policy/estop", maker.type("std_msgs/msg/Bool")(data=True), log_time)


def place(maker: BagMaker, log_time: int, stamp: float | None = None) -> None:
    point, turn = maker.type("geometry_msgs/msg/Point"), maker.type("geometry_msgs/msg/Quaternion")
    pose = maker.type("geometry_msgs/msg/Pose")(
        position=point(x=0.5, y=0.0, z=0.2), orientation=turn(x=0.0, y=0.0, z=0.0, w=1.0)
    )
    header = maker.header(log_time / 1e9 if stamp is None else stamp, "base")
    message = maker.type("geometry_msgs/msg/PoseStamped")(header=header, pose=pose)
    maker.write("/tool", message, log_time)


def test_an_estop_in_the_bag_is_latched(replayed: Any) -> None:
    code, report = replayed(every(0.1, 20), {1.0: estop})
    assert code == 0 and report["stops"]["estop"] == 1 and report["inferences"] < 12
    assert 5 < report["commands"]["move"] < 11 and report["messages_in_bag"]["/policy/estop"] == 1


@pytest.mark.parametrize("stamp", [None, 0.0])
def test_nothing_moves_before_it_is_known_where_the_arm_is(replayed: Any, stamp: float | None) -> None:
    where = {round(0.5 + 0.1 * i, 6): partial(place, stamp=stamp) for i in range(15)}
    bounds = {"lower_bound": [0.49, -0.01, 0.19], "upper_bound": [0.51, 0.01, 0.21]}
    code, report = replayed(every(0.1, 20), where, outputs=["pose"], position_topic="/tool", **bounds)
    assert code == 0 and report["ticks"] == 20 and 0 < report["commands"]["move"] <= 16
    assert report["clamps"]["bounds"] > 0


def test_pictures_that_cannot_be_used_stop_it_as_they_do_live(replayed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use, calls = mind.camera_input, iter(range(99))

    def damaged(message: Any, memory: str) -> Any:
        if next(calls) in (3, 4, 8, 9, 10, 11):
            raise InputError("no picture")
        return use(message, memory)

    monkeypatch.setattr(mind, "camera_input", damaged)
    code, report = replayed(every(0.1, 20), {}, max_failures=3)
    assert code == 0 and report["observations_by_result"]["unusable"] == 6 and report["stops"]["fault"] == 1
    assert report["notes"] == ["observation 11: no picture"]
    assert report["observations"] == 20 and report["inferences"] <= 6, "nobody starts it again"


def test_holes_in_time_are_told_and_not_filled_with_ticks(replayed: Any, capsys: Any) -> None:
    code, report = replayed([*every(0.1, 10), *every(0.1, 10, 3600.0)], {})
    assert code == 0 and report["ticks"] < 130 and report["commands"]["move"] > 15
    assert "3599 s without a message" in report["notes"][0] and "note: 3599 s" in capsys.readouterr().out


def test_a_clock_that_goes_back_is_told(replayed: Any) -> None:
    _, report = replayed([*every(0.1, 10, 100.0), *every(0.1, 10)], {})
    assert "go back by 101 s" in report["notes"][0] and report["inferences"] == 10


def test_pictures_without_stamps_are_refused(replayed: Any, capsys: Any) -> None:
    assert replayed([-1.0] * 3, {})[0] == 3
    assert "have no stamps" in capsys.readouterr().err
