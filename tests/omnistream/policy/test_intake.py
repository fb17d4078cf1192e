# SPDX-License-Identifier: Apache-2.0
"""What a policy is shown, before anybody looks at it: pictures that stand still, places and how old they are."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from omnistream.contract import Camera, Contract
from omnistream.policy.intake import Intake
from omnistream.policy.settings import DEFAULTS


def picture(value: int, stamp: int) -> Any:
    header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=stamp))
    return SimpleNamespace(header=header, encoding="mono8", height=2, width=2, step=2, data=bytes([value] * 4))


@pytest.mark.parametrize("frozen", ["front", "wrist"])
def test_each_camera_is_watched_for_the_same_picture(contract: Contract, frozen: str) -> None:
    cameras = tuple(Camera(name, 2, 2) for name in ("front", "wrist"))
    parameters = DEFAULTS | {"max_skew": 0.01, "state_names": [], "joint_names": [], "position_topic": ""}
    intake = Intake(parameters, dataclasses.replace(contract, cameras=cameras), state=False)
    assert intake.identical == 1
    for i in range(5):
        for camera in cameras:
            intake.add_picture(camera.name, picture(7 if camera.name == frozen else i, i), i)
    assert intake.identical == 5
    intake.add_picture(frozen, picture(8, 6), 6)
    assert intake.identical == 1
    intake.forget()
    assert intake.identical == 1


@pytest.mark.parametrize(
    "stamp, ros_now, now, expected",
    [(0, 1000.0, 8.0, 1.0), (999, 1000.0, 8.0, 1.0), (990, 1000.0, 8.0, 10.0), (1003, 1000.0, 8.0, -3.0)],
)
def test_a_place_is_as_old_as_its_stamp_or_its_arrival_says(
    contract: Contract, stamp: int, ros_now: float, now: float, expected: float
) -> None:
    """Whichever is older; where it has no stamp, its arrival at 7 s has to do."""
    intake = Intake(DEFAULTS | {"max_skew": 0.01, "position_topic": "/where"}, contract, state=False)
    assert intake.place_age(ros_now, now) is None
    header = SimpleNamespace(stamp=SimpleNamespace(sec=stamp, nanosec=0), frame_id="base")
    pose = SimpleNamespace(position=SimpleNamespace(x=1, y=2, z=3), orientation=SimpleNamespace(x=0, y=0, z=0, w=1))
    intake.add_pose(SimpleNamespace(header=header, pose=pose), 7.0)
    assert intake.place_age(ros_now, now) == expected
    header.frame_id = "tool0"
    intake.add_pose(SimpleNamespace(header=header, pose=pose), 8.0)
    assert intake.place_age(ros_now, now) == expected and intake.drops == {"position_frame": 1}
