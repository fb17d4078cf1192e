# SPDX-License-Identifier: Apache-2.0
"""Loading a policy as a robot runs it: contract first, then the network, warmed up so that its first answer is not
late. The node and `omnistream-replay` share this; parameters are any mapping by the names of docs/reference.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from omnistream.contract import load_contract
from omnistream.errors import CheckpointError, ConfigError
from omnistream.io.run_log import circumstances
from omnistream.model.omnistream import OmniStream
from omnistream.policy.checkpoint import POLICY_FILE, LoadedPolicy, load_policy
from omnistream.policy.default import DEFAULT
from omnistream.policy.session import PolicySession
from omnistream.weights import default_model, load_model, model_hash
from omnistream.weights.files import read_json


def open_policy(parameters: Mapping[str, Any]) -> LoadedPolicy:
    """Raises CheckpointError for a damaged one, ContractError, with both sides, for one that means something else."""
    if not parameters["policy"]:
        raise CheckpointError(
            f"parameter policy is empty; expected a policy's directory (omnistream-train policy), or {DEFAULT!r}"
        )
    contract = load_contract(parameters["contract"]) if parameters["contract"] else None
    return load_policy(parameters["policy"], language_model=parameters["language_model"] or None, contract=contract)


def open_session(policy: LoadedPolicy, parameters: Mapping[str, Any]) -> PolicySession:
    """A session that has answered once, and has forgotten it. ContractError for another backbone."""
    if parameters["num_threads"]:
        torch.set_num_threads(parameters["num_threads"])
    backbone = None
    if parameters["source"] == "features":
        if policy.config.vision.source == "pixels":
            raise ConfigError("the policy looks at pixels, not at features; set source to images")
    elif policy.config.vision.source == "backbone":
        backbone = _backbone(policy, parameters["weights"])
    engine = {name: parameters[name] for name in ("engine", "dtype", "device")}
    session = PolicySession(policy, backbone, **engine)
    if parameters["source"] == "images":
        _warm_up(session)
    return session


def identity(session: PolicySession) -> dict[str, Any]:
    """What decides, beside parameters and inputs, which numbers come out: for the header of a run log."""
    policy = session.policy
    stored = {} if policy.path is None else read_json(policy.path / POLICY_FILE)
    return {
        "policy_sha256": stored.get("weights_sha256"),
        "backbone": policy.contract.backbone,
        "engine": ", ".join(session.engines) or None,
        "policy_device": str(session.device),
    } | circumstances()


def _backbone(policy: LoadedPolicy, weights: str) -> OmniStream:
    if not weights:
        raise ConfigError(
            f"parameter weights is empty; expected the backbone that the policy was trained on, or {DEFAULT!r}"
        )
    if weights != DEFAULT:
        return load_model(weights)
    model, about = default_model()
    policy.check_backbone(model_hash(model.backbone), f"default ({about})")
    return model


def _warm_up(session: PolicySession) -> None:
    contract = session.policy.contract
    black = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in contract.cameras}
    session.set_instruction("stay")
    for index in range(2):
        session.step(black, np.zeros(len(contract.state)), stamp=index / contract.rate)
    session.reset()
