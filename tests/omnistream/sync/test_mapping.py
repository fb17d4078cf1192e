# SPDX-License-Identifier: Apache-2.0
"""The mapping file: what it means, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from omnistream.contract import Camera, Dimension, Gripper
from omnistream.errors import ContractError
from omnistream.sync import Observation, Step, load_mapping_file
from omnistream.sync.assemble import action_vector, fit_picture, state_vector
from omnistream.sync.mapping import Mapping
from omnistream.sync.mapping import __doc__ as DOCUMENTED


@pytest.fixture
def write(tmp_path):
    example = yaml.safe_load(DOCUMENTED.partition("\n\n")[2])

    def with_changes(**changes) -> Mapping:
        path = tmp_path / "mapping.yaml"
        path.write_text(yaml.safe_dump(example | changes))
        return load_mapping_file(path)

    return with_changes


def test_the_documented_example_is_a_contract(write):
    mapping = write()
    contract = mapping.contract({})
    assert contract.cameras == (Camera("front", 224, 224),)
    assert contract.state[0] == Dimension("joint_1", "rad")
    assert contract.action_names == ("dx", "dy", "dz", "gripper")
    assert contract.action.grippers == (Gripper(3, 1.0, -1.0),)
    assert mapping.period == 100_000_000
    assert mapping.topics()[0] == "/camera/image_raw"
    assert [command.max_age for command in mapping.commands()] == [200_000_000, None]


def commanded(mode: str, unit: str, **changes) -> dict:
    part = {"topic": "/a", "fields": ["0"], "names": ["a"], "unit": unit} | changes
    return {"action": {"mode": mode, "frame": "base", "parts": [part]}}


@pytest.mark.parametrize(
    "change",
    [
        commanded("delta", "1"),  # of what is sent without a unit, as MoveIt Servo allows
        commanded("velocity", "rad/s"),
        commanded("absolute", "rad"),
        commanded("unspecified", "m/s"),
        commanded("velocity", "m", gripper={"open": 0.04, "closed": 0.0}),  # a gripper's is always a target
    ],
)
def test_units_that_fit_the_mode(write, change):
    write(**change)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clock": "wall"}, "clock is 'wall'; expected header or log"),
        ({"cameras": []}, "cameras is empty"),
        ({"cameras": [{"name": "front", "topic": "/a", "height": 3}]}, "one of height and width"),
        ({"state": [{"topic": "/a", "fields": ["j"]}]}, "field 'j' has no unit"),
        ({"state": [{"topic": "/a", "fields": ["x"], "names": ["a", "b"]}]}, "2 names for 1 fields"),
        ({"state": [{"topic": "/a", "fields": ["x"]}, {"topic": "/b", "fields": ["x"]}]}, "'x' named twice"),
        ({"state": [{"topic": "/a", "fields": ["x"], "quantity": "torque"}]}, "quantity is 'torque'"),
        ({"action": {"mode": "delta", "frame": "base", "from_state": ["q"]}}, "from_state names 'q'"),
        ({"action": {"mode": "velocity", "frame": "base", "from_state": ["joint_1"]}}, "from_state needs delta"),
        ({"action": {"mode": "relative", "frame": "base", "from_state": []}}, "mode is 'relative'|no dimensions"),
        (
            commanded("delta", "m/s"),
            "action 'a' is in m/s, action.mode is 'delta'; expected a change per control period",
        ),
        (commanded("velocity", "rad"), "action 'a' is in rad, action.mode is 'velocity'"),
        (commanded("absolute", "m", max_age=None), "/a: max_age is null; pick next waits so long"),
        ({"rate": 0}, "rate is 0.0"),
        ({"colour": "red"}, r"mapping has unknown field\(s\) colour"),
        ({"version": 7}, "version 7 is newer"),
    ],
)
def test_what_is_wrong_is_named(write, changes, message):
    with pytest.raises((ContractError, ZeroDivisionError), match=message):
        write(**changes)


def test_differences_of_angles_take_the_short_way(write):
    mapping = write(
        state=[{"topic": "/pose", "fields": ["x", "yaw"]}],
        action={"mode": "delta", "frame": "map", "from_state": ["yaw", "x"]},
    )
    before, after = (Observation(0, 0, {"/pose": np.array(values)}, {}) for values in ([1.0, 3.1], [1.5, -3.1]))
    assert state_vector(mapping, before).tolist() == [1.0, np.float32(3.1)]
    np.testing.assert_allclose(action_vector(mapping, Step(before, {}, after)), [2 * np.pi - 6.2, 0.5], rtol=1e-5)


def test_pictures_are_fitted():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert fit_picture(image, 4, 4) is image
    assert fit_picture(image, 2, 2).tolist()[0][0] == pytest.approx(image[:2, :2].mean((0, 1)), abs=4)
