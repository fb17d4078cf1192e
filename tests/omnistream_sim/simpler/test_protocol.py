# SPDX-License-Identifier: Apache-2.0
"""SIMPLER's grid, its gripper rules, and Bridge's normalisation there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from omnistream.errors import ConfigError
from omnistream.policy.scaling import ActionScaling
from omnistream_sim.evaluation.episode import Actions, Clock
from omnistream_sim.simpler.gripper import LateClose, Sticky, Threshold, WithGripper
from omnistream_sim.simpler.scripted import PickPlace
from omnistream_sim.simpler.tasks import BRIDGE, EPISODES, Placement, bridge_task

Q01 = (-0.02873, -0.04170, -0.02609, -0.08092, -0.09289, -0.20718)
Q99 = (0.02831, 0.04086, 0.04016, 0.08192, 0.07793, 0.20383)
"""Of Bridge V2's six movements, public dataset_statistics.json."""


@pytest.mark.parametrize("name", BRIDGE)
def test_24_different_starts(name):
    task = BRIDGE[name]
    starts = task.placements()
    assert len(set(starts)) == len(starts) == EPISODES
    assert task.steps == (120 if name == "eggplant" else 60)


def approx(placement, source, target, yaw):
    return (*placement.source, *placement.target, placement.yaw) == pytest.approx((*source, *target, yaw))


def test_starts_by_hand():
    spoon, carrot, stack, eggplant = (BRIDGE[name].placements() for name in ("spoon", "carrot", "stack", "eggplant"))
    assert approx(spoon[0], (-0.235, -0.075), (-0.235, 0.075), 0.0)
    assert approx(spoon[1], (-0.235, -0.075), (-0.235, 0.075), math.pi / 2)
    assert approx(spoon[23], (-0.085, 0.075), (-0.085, -0.075), math.pi / 2)
    assert approx(carrot[6], (-0.235, 0.075), (-0.235, -0.075), math.pi)
    assert approx(carrot[7], (-0.235, 0.075), (-0.235, -0.075), -math.pi / 2)
    assert approx(stack[0], (-0.21, -0.05), (-0.21, 0.05), 0.0)
    assert approx(stack[12], (-0.26, -0.1), (-0.26, 0.1), 0.0)
    assert approx(eggplant[0], (-0.115, 0.191), (-0.125, 0.025), 0.0)
    assert approx(eggplant[23], (-0.095, 0.221), (-0.125, 0.025), -math.pi / 4)
    assert isinstance(spoon[0], Placement)


def test_maniskills_numbers_of_the_starts():
    """The eggplant has 8 places and 8 resting orientations there: of -45, 0, 45, ... 270 degrees, in this order."""
    assert [BRIDGE["carrot"].maniskill_number(number) for number in (0, 7, 23)] == [0, 7, 23]
    eggplant = BRIDGE["eggplant"]
    degrees = [-45, 0, 45, 90, 135, 180, 225, 270]
    places = list(dict.fromkeys(start.source for start in eggplant.placements()))
    for number, start in enumerate(eggplant.placements()):
        place, turn = divmod(eggplant.maniskill_number(number), 8)
        assert places[place] == start.source
        assert math.radians(degrees[turn]) == pytest.approx(start.yaw)


@pytest.mark.parametrize(("task", "yaw"), [("spoon", math.pi / 2), ("carrot", -math.pi / 2), ("stack", 0.0)])
def test_the_script_grasps_across_and_sets_down(task, yaw):
    """In a made-up arm that goes where it is sent: it turns with the thing, closes on it, opens over the target."""
    source, target = np.array([-0.2, 0.05, 0.88]), np.array([-0.1, -0.05, 0.87])
    tool, turned, opened, script = np.array([-0.15, 0.0, 1.0]), 0.0, True, PickPlace()
    pose = [math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)]
    held = False
    for _ in range(60):
        scene = np.concatenate([source, pose, target, [1, 0, 0, 0], tool, [1, 0, 0, 0]])
        action = script({"rgb_static": None, "state": np.zeros(15), "scene": scene}, BRIDGE[task].instruction)
        step = np.array([-action[0], -action[1], action[2]])  # the base is turned by half a turn
        tool, turned = tool + step, turned + action[5]
        held = held and action[6] < 0
        if opened and action[6] < 0:
            held = bool(np.linalg.norm(tool - source) < 0.012)
        opened = action[6] > 0
        if held:
            source = tool.copy()
    assert abs((turned - yaw + math.pi / 2) % math.pi - math.pi / 2) < 0.1
    assert np.linalg.norm(source[:2] - target[:2]) < 0.012 and 0 < source[2] - target[2] < 0.05
    assert opened and tool[2] > source[2] + 0.03


def test_an_unknown_task_is_named():
    with pytest.raises(ConfigError, match="'cup' is unknown; expected some of spoon, carrot, stack, eggplant"):
        bridge_task("cup")


def run(rule, wishes):
    rule.reset()
    return [rule(wish) for wish in wishes]


def test_threshold():
    assert run(Threshold(), [1, 0.51, 0.5, 0]) == [1, 1, -1, -1]


def test_late_close():
    assert run(LateClose(2), [1, 0, 1, 0, 0, 0, 1, 0]) == [1, 1, 1, 1, -1, -1, 1, 1]
    assert run(LateClose(1), [1, 0, 1]) == [1, -1, 1]


def test_sticky_holds_a_change_for_its_steps():
    """Against SIMPLER's rule written down step by step: open, close at step 2, hold 15 steps, then nothing."""
    wishes = [1.0, 1.0] + [0.0] * 20
    assert run(Sticky(15), wishes) == [0, 0] + [1] * 15 + [0] * 5
    assert run(Sticky(3), [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]) == [0, -1, -1, -1, 0, 1]
    assert run(Sticky(3), [0.5, 0.7, 0.4]) == pytest.approx([0, -0.2, 0.3])  # small changes pass as they are


@pytest.mark.parametrize("execute", [0, 1, 2])
def test_a_rule_sees_every_row_that_is_carried_out_and_is_reset(execute):
    """Close, open, close, close, ... in every chunk: only two wishes of rows that are carried out close the gripper."""
    wishes = [-1, 1, -1, -1]
    policy = WithGripper(lambda observation, instruction: [[0] * 6 + [wish] for wish in wishes], LateClose(2))
    actions = Actions(policy, 7, execute, Clock())
    for _ in range(2):
        actions.reset()
        told = [actions.next({}, "x")[6] for _ in range(6)]
        assert told == {0: [1, 1, 1, -1, -1, 1], 1: [1, -1, -1, -1, -1, -1], 2: [1, 1, 1, 1, 1, 1]}[execute]


@pytest.mark.parametrize("squeeze", [1.0, 0.65])
def test_normalisation_there_and_back(squeeze):
    """Bridge's quantiles, then VLM4VLA's clip to +-0.65: what lies within survives, what lies outside is clipped."""
    scaling = ActionScaling(arm=tuple(range(6)), low=Q01, high=Q99, grippers=((6, 1.0, 0.0),), squeeze=squeeze)
    low, high = np.array(Q01), np.array(Q99)
    middle, half = (low + high) / 2, squeeze * (high - low) / 2
    rng = np.random.default_rng(0)
    actions = np.column_stack([middle + half * rng.uniform(-1, 1, (100, 6)), rng.integers(0, 2, 100)])
    moves, opened = scaling.normalise(actions)
    assert np.abs(moves).max() <= 1 and np.abs(moves).max() > 0.95
    assert scaling.restore(moves, opened) == pytest.approx(actions, abs=1e-7)
    far = scaling.restore(*scaling.normalise(np.array([[1.0] * 6 + [1.0]])))
    assert far[0, :6] == pytest.approx(middle + half, abs=1e-7)
