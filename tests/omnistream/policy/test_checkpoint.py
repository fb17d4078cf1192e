# SPDX-License-Identifier: Apache-2.0
"""A policy on disk: the same actions after a round trip; damage, strangers and newer formats refused by name."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from omnistream.contract import Contract, load_contract, save_contract
from omnistream.errors import CheckpointError, ContractError
from omnistream.model.omnistream import OmniStream
from omnistream.policy import load_policy, save_policy
from omnistream.policy.checkpoint import CONTRACT_FILE, POLICY_FILE, WEIGHTS_FILE, LoadedPolicy
from omnistream.policy.session import PolicySession
from omnistream.policy.vision import BackboneInput
from omnistream.weights import random_model
from omnistream.weights.files import sha256_of
from tests.omnistream.policy.conftest import CONFIG, images, make_policy

STATE = np.zeros(3, np.float32)


@pytest.fixture
def saved(policy: LoadedPolicy, tmp_path: Path) -> Path:
    return save_policy(policy, tmp_path / "policy", made_by="a test")


def actions(policy: LoadedPolicy, backbone: OmniStream, contract: Contract) -> np.ndarray:
    session = PolicySession(policy, backbone, engine="torch", device="cpu")
    session.set_instruction("lift the red cube")
    return np.stack([session.step(frame, STATE).actions for frame in images(contract, 3)])


def test_a_round_trip_gives_the_same_actions(
    policy: LoadedPolicy, saved: Path, backbone: OmniStream, contract: Contract
) -> None:
    loaded = load_policy(saved, contract=contract)
    assert np.array_equal(actions(loaded, backbone, contract), actions(policy, backbone, contract))
    assert loaded.contract == policy.contract and loaded.scaling == policy.scaling
    assert loaded.config == policy.config and loaded.shape == policy.shape
    assert loaded.tokens.encode("open the cube") == policy.tokens.encode("open the cube")
    assert loaded.training == {"preset": "test"}
    assert sorted(path.name for path in saved.iterdir()) == [CONTRACT_FILE, POLICY_FILE, WEIGHTS_FILE]


def test_half_precision_is_half_as_large_and_close(
    policy: LoadedPolicy, saved: Path, tmp_path: Path, backbone: OmniStream, contract: Contract
) -> None:
    small = save_policy(policy, tmp_path / "small", dtype="float16")
    assert (small / WEIGHTS_FILE).stat().st_size < 0.6 * (saved / WEIGHTS_FILE).stat().st_size
    assert actions(load_policy(small), backbone, contract) == pytest.approx(
        actions(policy, backbone, contract), abs=5e-3
    )


def test_statistics_are_not_rounded(policy: LoadedPolicy, tmp_path: Path) -> None:
    network = policy.network
    for name in ("visual_mean", "visual_std", "state_mean", "state_std"):
        getattr(network, name).copy_(torch.rand_like(getattr(network, name)) + 0.1)
    found = load_policy(save_policy(policy, tmp_path / "small", dtype="float16")).network
    for name, value in network.named_buffers():
        assert torch.equal(value, dict(found.named_buffers())[name]), name
    assert load_file(tmp_path / "small" / WEIGHTS_FILE)["query"].dtype == torch.float16


def test_a_backbone_of_the_same_weights_that_is_fed_in_another_way_is_refused(
    contract: Contract, backbone: OmniStream, tmp_path: Path
) -> None:
    fed = BackboneInput.of(CONFIG.vision, backbone.config)
    policy = dataclasses.replace(make_policy(contract, CONFIG, backbone), backbone_input=fed)
    loaded = load_policy(save_policy(policy, tmp_path / "policy"))
    assert loaded.backbone_input == fed
    other = random_model(dataclasses.replace(backbone.config, mean=(0.5, 0.5, 0.5)), 0)
    other.backbone.load_state_dict(backbone.backbone.state_dict())
    PolicySession(loaded, backbone, engine="torch", device="cpu")
    with pytest.raises(ContractError, match=r"(?s)trained on features of .*mean=\(0.485.*has .*mean=\(0.5, 0.5, 0.5\)"):
        PolicySession(loaded, other, engine="torch", device="cpu")
    path = tmp_path / "policy" / POLICY_FILE
    data = json.loads(path.read_text())
    del data["backbone_input"]  # as before it was written down
    path.write_text(json.dumps(data))
    PolicySession(load_policy(path.parent), other, engine="torch", device="cpu")


def test_a_goal_travels_with_the_policy(tmp_path: Path, backbone: OmniStream, contract: Contract) -> None:
    policy = make_policy(contract, dataclasses.replace(CONFIG, goal=("pz", "px")), backbone)
    assert policy.shape.goal == (2, 0)
    loaded = load_policy(save_policy(policy, tmp_path / "policy"))
    assert np.array_equal(actions(loaded, backbone, contract), actions(policy, backbone, contract))
    path = tmp_path / "policy" / POLICY_FILE
    path.write_text(path.read_text().replace('"pz"', '"elbow"'))
    with pytest.raises(CheckpointError, match="goal has 'elbow'; expected names of the state: px, py, pz"):
        load_policy(path.parent)


def test_another_robots_contract_is_refused_with_both_sides(saved: Path, contract: Contract) -> None:
    with pytest.raises(ContractError, match=r"(?s)policy.*robot.*action.frame.*base.*tool"):
        load_policy(
            saved, contract=dataclasses.replace(contract, action=dataclasses.replace(contract.action, frame="tool"))
        )


@pytest.mark.parametrize("field", ["action.mode", "action.dimensions[1].unit", "state[2].unit"])
def test_another_mode_or_unit_is_refused(saved: Path, contract: Contract, field: str) -> None:
    dimensions, state = list(contract.action.dimensions), list(contract.state)
    mode = "absolute" if field == "action.mode" else contract.action.mode
    if field.startswith("action.dimensions"):
        dimensions[1] = dataclasses.replace(dimensions[1], unit="m/s")
    if field.startswith("state"):
        state[2] = dataclasses.replace(state[2], unit="rad")
    action = dataclasses.replace(contract.action, dimensions=tuple(dimensions), mode=mode)
    with pytest.raises(ContractError, match=re.escape(field)):
        load_policy(saved, contract=dataclasses.replace(contract, action=action, state=tuple(state)))


def test_a_contract_that_is_not_the_policys_is_refused(saved: Path) -> None:
    contract = load_contract(saved / CONTRACT_FILE)
    save_contract(saved / CONTRACT_FILE, dataclasses.replace(contract, cameras=contract.cameras[:1]))
    with pytest.raises(CheckpointError, match=r"cameras: contract.json says \('static',\), the policy"):
        load_policy(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format is 'other'"),
        ({"format_version": 2}, "newer than this version"),
        ({"format_version": "1"}, "expected an integer"),
        ({"extra": 1}, r"unknown fields \['extra'\]"),
        ({"tokens": {"kind": "bytes"}}, "tokeniser is"),
        ({"policy": {"trunk": "forest"}}, "trunk is 'forest'"),
        ({"policy": {"chunk": "4"}}, "policy.chunk is '4'; expected int"),
        ({"scaling": {}}, "scaling lacks field"),
        ({"weights_sha256": "0" * 64}, "says 0000000000000000"),
    ],
)
def test_a_changed_description_is_refused_by_name(saved: Path, change: dict, message: str) -> None:
    path = saved / POLICY_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load_policy(saved)


def test_damaged_weights_are_refused(saved: Path) -> None:
    path = saved / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="sha256"):
        load_policy(saved)
    path.unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        load_policy(saved)


@pytest.mark.parametrize("what", ["missing", "misshapen", "not finite"])
def test_weights_of_another_network_are_refused(saved: Path, what: str) -> None:
    """Even with the right digest."""
    tensors = load_file(saved / WEIGHTS_FILE)
    if what == "missing":
        del tensors["query"]
    elif what == "misshapen":
        tensors["query"] = tensors["query"][..., :5].contiguous()
    else:
        tensors["query"][0, 0, 0] = float("nan")
    save_file(tensors, saved / WEIGHTS_FILE)
    data = json.loads((saved / POLICY_FILE).read_text())
    data["weights_sha256"] = sha256_of(saved / WEIGHTS_FILE)
    (saved / POLICY_FILE).write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="query"):
        load_policy(saved)


def test_only_a_policy_is_overwritten(policy: LoadedPolicy, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already"):
        save_policy(policy, saved)
    save_policy(policy, saved, overwrite=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(CheckpointError, match="not an omnistream policy"):
        save_policy(policy, tmp_path / "photos", overwrite=True)


def test_a_folder_that_is_no_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="policy.json does not exist"):
        load_policy(tmp_path)
