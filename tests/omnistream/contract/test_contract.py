# SPDX-License-Identifier: Apache-2.0
"""The contract: what is written is what is read, what is wrong is named, and two that differ are both printed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from omnistream.contract import (
    Action,
    Camera,
    Contract,
    Dimension,
    Gripper,
    Statistics,
    contract_from_dict,
    contract_to_dict,
    differences,
    load_contract,
    require_same,
    save_contract,
)
from omnistream.errors import ContractError


@pytest.fixture
def contract() -> Contract:
    row = (0.1, 2e-5)
    return Contract(
        rate=10.0,
        cameras=(Camera("front", 120, 160), Camera("wrist", 64, 64)),
        state=(Dimension("x", "m"), Dimension("angle", "rad")),
        action=Action(
            (Dimension("dx", "m"), Dimension("gripper", "1")), "delta", "base_link", (Gripper(1, 1.0, -1.0),)
        ),
        action_statistics=Statistics(7, row, row, row, row, row, row),
        backbone="0123456789abcdef",
    )


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_gives_back_what_was_written(tmp_path, contract, suffix):
    path = tmp_path / f"contract.{suffix}"
    save_contract(path, contract)
    assert load_contract(path) == contract


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2 is newer"),
        ({"version": "1"}, "version is '1'"),
        ({"format": "other"}, "format is 'other'; expected 'omnistream-contract'"),
        ({"colour": 1}, r"contract has unknown field\(s\) colour; known: rate"),
        ({"rate": "ten"}, "contract.rate is 'ten'; expected float"),
        ({"rate": -1.0}, "rate is -1.0"),
        ({"rate": True}, "rate is True"),
        ({"cameras": [{"name": "front", "height": 0, "width": 4}]}, "is 0x4; expected 1 to 16384"),
        ({"cameras": [{"name": "front", "height": 4}]}, r"contract.cameras\[0\] lacks field\(s\) width"),
        ({"state": [{"name": "x", "unit": "mm"}]}, "unit 'mm'; expected one of m, rad"),
        ({"state": [{"name": "x", "unit": "m"}] * 2}, "'x' named twice"),
        (
            {"action_statistics": None, "state_statistics": {"count": 1}},
            r"state_statistics lacks field\(s\) minimum",
        ),
    ],
)
def test_what_is_wrong_is_named(contract, change, message):
    with pytest.raises(ContractError, match=message):
        contract_from_dict(contract_to_dict(contract) | change)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "contract.yaml"
    path.write_text("rate: [1, 2")
    with pytest.raises(ContractError, match=r"contract\.yaml: cannot be read"):
        load_contract(path)
    path.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ContractError, match="cannot be read"):
        load_contract(path)


def test_statistics_must_be_finite_and_fit(contract):
    with pytest.raises(ContractError, match="NaN"):
        Statistics(1, (float("nan"),), (0.0,), (0.0,), (0.0,), (0.0,), (0.0,))
    with pytest.raises(ContractError, match="action statistics have 2 dimensions; expected 1"):
        replace(contract, action=Action((Dimension("dx", "m"),)))


def test_a_mismatch_prints_both_sides(contract):
    action = replace(contract.action, frame="tool0", grippers=(Gripper(1, -1.0, 1.0),))
    other = replace(contract, action=action, rate=15.0, backbone=None)
    assert [d.field for d in differences(contract, other)] == [
        "rate",
        "action.frame",
        "action.grippers[0].open",
        "action.grippers[0].closed",
    ]
    with pytest.raises(ContractError) as caught:
        require_same(contract, other, names=("checkpoint", "robot"))
    for word in ("checkpoint and robot disagree in 4 field(s)", "base_link", "tool0", "10.0", "15.0"):
        assert word in str(caught.value)


def test_comparison_ignores_statistics_and_what_it_is_told_to(contract):
    require_same(contract, replace(contract, action_statistics=None, backbone=None))
    require_same(contract, replace(contract, cameras=contract.cameras[:1]), ignore=("cameras", "action_statistics"))
    assert differences(contract, replace(contract, backbone="fedcba9876543210"))


def test_what_is_not_stated_can_be_asked_for(contract):
    assert contract.unspecified == ()
    foreign = replace(contract, action=Action((Dimension("a"), Dimension("b", "m"))), action_statistics=None)
    assert foreign.unspecified == ("action.mode", "action.frame", "unit of action a")
    assert yaml.safe_load(yaml.safe_dump(contract_to_dict(foreign)))["action"]["mode"] == "unspecified"


def test_names(contract):
    assert contract.action.arm == (0,)
    assert contract.state_names == ("x", "angle")
    assert contract.camera("wrist").width == 64
    with pytest.raises(ContractError, match="no camera 'rear'; there are"):
        contract.camera("rear")
