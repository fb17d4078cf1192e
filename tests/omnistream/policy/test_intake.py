# SPDX-License-Identifier: Apache-2.0
"""What a policy is shown, before anybody looks at it: pictures that stand still."""

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
