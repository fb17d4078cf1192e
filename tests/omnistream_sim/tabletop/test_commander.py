# SPDX-License-Identifier: Apache-2.0
"""Commands become actions: units, frames, time, and what holds."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from omnistream.errors import InputError
from omnistream_sim.tabletop.commander import Commander
from omnistream_sim.tabletop.env import STEP, TURN
from omnistream_sim.tabletop.kinematics import from_euler, rotation_vector
from omnistream_sim.tabletop.state import State

RATE = 20.0


def pointing(*euler: float) -> State:
    """All that a commander looks at: where the tool is sent."""
    return cast(Any, SimpleNamespace(target_euler=np.array(euler)))


DOWN = pointing(math.pi, 0.0, 0.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_action_lasts_one_period_and_its_gripper_for_ever() -> None:
    commander = Commander(RATE, 0.25)
    commander.act([0.5, 0, 0, 0, 0, 0, -1])
    np.testing.assert_array_equal(commander.next(lambda: DOWN), [0.5, 0, 0, 0, 0, 0, -1])
    np.testing.assert_array_equal(commander.next(lambda: DOWN), [0, 0, 0, 0, 0, 0, -1])
    commander.grip(1.0)
    assert commander.next(lambda: DOWN)[6] == 1
    commander.act([0.1] * 7)
    commander.act([0.2] * 7)
    assert commander.next(lambda: DOWN)[0] == 0.2 and commander.superseded == 1, "the newest wins"


def test_a_velocity_in_si_units_holds_until_its_time_is_over() -> None:
    clock = Clock()
    commander = Commander(RATE, 0.25, clock)
    commander.move([0.1, 0, -0.2, 0, 0, 0])
    for now in (0.0, 0.2):
        clock.now = now
        np.testing.assert_allclose(commander.next(lambda: DOWN)[:6] * STEP * RATE, [0.1, 0, -0.2, 0, 0, 0], atol=1e-12)
    clock.now = 0.26
    assert not commander.next(lambda: DOWN)[:6].any()
    commander.move([9, 0, 0, 0, 0, 0])
    assert commander.next(lambda: DOWN)[0] == 1 and commander.clipped == 1


@pytest.mark.parametrize("euler", [(math.pi, 0.0, 0.0), (math.pi + 0.3, 0.4, -1.2), (2.5, -0.6, 3.1)])
@pytest.mark.parametrize("in_tool", [False, True])
def test_angular_velocity_turns_about_its_axis(euler: tuple[float, ...], in_tool: bool) -> None:
    """The environment adds to Euler angles; what comes out is the rotation that was asked for all the same."""
    asked = np.array([0.1, -0.2, 0.15])
    commander = Commander(RATE, 0.25)
    commander.move([0, 0, 0, *asked], in_tool=in_tool)
    action = commander.next(lambda: pointing(*euler))
    before, after = from_euler(np.array(euler)), from_euler(np.array(euler) + TURN * action[3:6])
    turned = before.T @ after if in_tool else after @ before.T
    np.testing.assert_allclose(rotation_vector(turned) * RATE, asked, atol=1e-9)


def test_along_the_fingers_is_down() -> None:
    commander = Commander(RATE, 0.25)
    commander.move([0, 0, 0.1, 0, 0, 0], in_tool=True)
    np.testing.assert_allclose(commander.next(lambda: DOWN)[:3] * STEP * RATE, [0, 0, -0.1], atol=1e-12)


@pytest.mark.parametrize("values", [[0.0] * 6, [math.nan] * 7, [math.inf, 0, 0, 0, 0, 0, 0]])
def test_what_is_no_action_is_refused(values: list[float]) -> None:
    commander = Commander(RATE, 0.25)
    with pytest.raises(InputError, match="expected 7 finite numbers"):
        commander.act(values)
    with pytest.raises(InputError, match="finite"):
        commander.move([math.nan] * 6)
    with pytest.raises(InputError, match="finite"):
        commander.grip(math.nan)
    assert not commander.next(lambda: DOWN)[:6].any() and commander.accepted == 0
