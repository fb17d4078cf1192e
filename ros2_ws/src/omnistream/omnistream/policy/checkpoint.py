# SPDX-License-Identifier: Apache-2.0
"""A policy on disk: a directory with policy.json, contract.json and policy.safetensors. No pickle, nothing executed.

policy.json
    format            "omnistream-policy"
    format_version    1; a reader refuses a newer one
    policy, shape     PolicyConfig and PolicyShape as mappings
    scaling           ActionScaling as a mapping
    tokens            the tokeniser: the words, or that it is the language model's
    language_model    null, or the hash of the user's directory (`language_model_hash`), which is checked at load
    backbone_input    null, or what its features depend on beside the backbone's hash (`BackboneInput`); may be absent
    weights_sha256    of policy.safetensors, which is checked when it is read
    weights_dtype     float32 or float16 on disk, statistics always float32; in memory always float32
    made_by           the command or function that wrote it
    made_with         {omnistream: version}
    training          what is worth knowing of the run: preset, data set, step, validation; free form
contract.json
    the contract (`omnistream.contract`) with the statistics of the training data and the hash of the backbone
policy.safetensors
    what the policy learnt and its input statistics; weights in the user's directory that did not change stay there
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import omnistream
from omnistream.contract import Contract, load_contract, require_same, save_contract
from omnistream.errors import CheckpointError, ConfigError, ContractError
from omnistream.model.config import ModelConfig
from omnistream.policy.config import PolicyConfig, PolicyShape, goal_dimensions
from omnistream.policy.default import policy_folder
from omnistream.policy.language_model import language_model_hash
from omnistream.policy.network import PolicyNetwork
from omnistream.policy.scaling import ActionScaling
from omnistream.policy.tokens import PretrainedTokens, WordTokens, tokens_from_dict
from omnistream.policy.vision import BackboneInput
from omnistream.strict import build
from omnistream.weights.files import (
    check_replaceable,
    home_expanded,
    new_directory,
    read_json,
    sha256_of,
    write_tensors,
)

FORMAT = "omnistream-policy"
FORMAT_VERSION = 1
POLICY_FILE, CONTRACT_FILE, WEIGHTS_FILE = "policy.json", "contract.json", "policy.safetensors"
DTYPES = {"float32": torch.float32, "float16": torch.float16}

FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "format_version": int,
    "policy": dict,
    "shape": dict,
    "scaling": dict,
    "tokens": dict,
    "language_model": (str, type(None)),
    "weights_sha256": str,
    "weights_dtype": str,
    "made_by": str,
    "made_with": dict,
    "training": dict,
}
OPTIONAL: dict[str, type | tuple[type, ...]] = {"backbone_input": (dict, type(None))}


@dataclass(frozen=True, eq=False)
class LoadedPolicy:
    """A network and everything that its numbers mean."""

    network: PolicyNetwork
    """In eval mode where it was loaded."""
    tokens: WordTokens | PretrainedTokens
    contract: Contract
    """Cameras and state that the policy reads, the action it gives, statistics, backbone."""
    scaling: ActionScaling
    training: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    backbone_input: BackboneInput | None = None
    """None: it looks at pixels, or nobody wrote it down."""

    @property
    def config(self) -> PolicyConfig:
        return self.network.config

    @property
    def shape(self) -> PolicyShape:
        return self.network.shape

    def check_contract(self, other: Contract, name: str = "robot") -> None:
        """ContractError, with both sides printed, unless `other` means the same by what this policy reads and gives.

        Cameras of `other` that the policy does not use are no difference, nor is its state where the policy uses none.
        """
        by_name = {camera.name: camera for camera in other.cameras}
        used = tuple(by_name[camera.name] for camera in self.contract.cameras if camera.name in by_name)
        state = other.state if self.contract.state else ()
        statistics = other.state_statistics if self.contract.state else None
        theirs = dataclasses.replace(other, cameras=used, state=state, state_statistics=statistics)
        require_same(self.contract, theirs, names=("policy", name))

    def check_backbone(self, found: str | None, name: str = "backbone") -> None:
        """ContractError, with both hashes, unless features come from the backbone that this policy was trained on."""
        if found != self.contract.backbone:
            raise ContractError(
                f"the policy was trained on features of backbone {self.contract.backbone}, the {name} is {found}; "
                "load that backbone, or train the policy on this one"
            )

    def check_backbone_input(self, model: ModelConfig) -> None:
        """ContractError, with both sides, where a backbone of the same weights is fed or tapped in another way."""
        if self.backbone_input is None:
            return
        found = BackboneInput.of(self.config.vision, model)
        if found != self.backbone_input:
            raise ContractError(
                f"the policy was trained on features of {self.backbone_input}, the backbone has {found}; load the "
                "checkpoint that it was trained on"
            )


def save_policy(
    policy: LoadedPolicy,
    directory: str | Path,
    *,
    language_model: str | Path | None = None,
    dtype: str = "float32",
    made_by: str = "omnistream.policy.save_policy",
    overwrite: bool = False,
) -> Path:
    """Write `policy` to `directory`, whole or not at all; returns the directory.

    dtype: on disk: float32 (bit-exact) or float16. overwrite: replace a policy; anything else is never replaced.
    Raises CheckpointError if `directory` is taken or cannot be written, or if a value is not finite.
    """
    target = home_expanded(directory)
    check_replaceable(target, overwrite, POLICY_FILE, FORMAT, "an omnistream policy")
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype {dtype!r} is unknown; expected one of {', '.join(DTYPES)}")
    # Statistics stay as they are: rounded, they would shift every input.
    exact = {name for name, _ in policy.network.named_buffers()}
    stored = {
        name: tensor.detach()
        .to("cpu", DTYPES[dtype] if tensor.is_floating_point() and name not in exact else None)
        .contiguous()
        for name, tensor in policy.network.learnt().items()
    }
    bad = sorted(name for name, tensor in stored.items() if not bool(torch.isfinite(tensor).all()))
    if bad:
        raise CheckpointError(f"not saved: values are not finite as {dtype}: {', '.join(bad[:5])}")
    try:
        with new_directory(target, replace=overwrite) as partial:
            write_tensors(partial / WEIGHTS_FILE, stored)
            save_contract(partial / CONTRACT_FILE, policy.contract)
            data = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "policy": dataclasses.asdict(policy.config),
                "shape": dataclasses.asdict(policy.shape),
                "scaling": dataclasses.asdict(policy.scaling),
                "tokens": policy.tokens.to_dict(),
                "language_model": None if language_model is None else language_model_hash(language_model),
                "backbone_input": None if policy.backbone_input is None else dataclasses.asdict(policy.backbone_input),
                "weights_sha256": sha256_of(partial / WEIGHTS_FILE),
                "weights_dtype": dtype,
                "made_by": made_by,
                "made_with": {"omnistream": omnistream.__version__},
                "training": dict(policy.training),
            }
            (partial / POLICY_FILE).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{target} cannot be written: {error}") from error
    return target


def load_policy(
    directory: str | Path, *, language_model: str | Path | None = None, contract: Contract | None = None
) -> LoadedPolicy:
    """The policy in a directory, or the shipped one (`default`): on the CPU, in eval mode.

    language_model: the directory of the pre-trained language model, for a policy that uses one.
    contract: of the robot, data set or simulator at hand; ContractError prints both sides where they disagree.
    Raises CheckpointError, naming what is missing, unknown, misshapen, not finite, damaged or too new.
    """
    folder = policy_folder(directory)
    path = folder / POLICY_FILE
    data = read_json(path)
    _check_fields(path, data)
    try:
        config = build(PolicyConfig, data["policy"], "policy")
        shape = build(PolicyShape, data["shape"], "shape")
        scaling = build(ActionScaling, data["scaling"], "scaling")
        tokens = tokens_from_dict(data["tokens"], language_model)
        agreed = load_contract(folder / CONTRACT_FILE)
        _check_shape(agreed, config, shape, scaling)
        given = data.get("backbone_input")
        fed = None if given is None else build(BackboneInput, given, "backbone_input")
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    _check_language_model(path, data["language_model"], config, language_model)
    # Every value is replaced below; the caller's random numbers are left alone.
    with torch.random.fork_rng(devices=[]):
        network = PolicyNetwork(config, shape, tokens, language_model if config.language.pretrained else None)
    _load_weights(folder / WEIGHTS_FILE, data["weights_sha256"], network)
    network.eval().requires_grad_(False)
    policy = LoadedPolicy(network, tokens, agreed, scaling, data["training"], folder, fed)
    if contract is not None:
        policy.check_contract(contract)
    return policy


def _load_weights(path: Path, sha256: str, network: PolicyNetwork) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    found = sha256_of(path)
    if found != sha256:
        raise CheckpointError(
            f"{path} has sha256 {found[:16]}..., {POLICY_FILE} says {sha256[:16]}...; the two files are not of one "
            "policy, or the weights are damaged"
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    expected = network.learnt()
    wrong = [
        name
        for name in sorted(expected.keys() | tensors.keys())
        if name not in expected or name not in tensors or expected[name].shape != tensors[name].shape
    ]
    if wrong:
        raise CheckpointError(f"{path} does not fit its policy: {', '.join(wrong[:5])} ({len(wrong)} tensors)")
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise CheckpointError(f"{path} holds NaN or infinity in {', '.join(bad[:5])}")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])


def _check_fields(path: Path, data: dict[str, Any]) -> None:
    if data.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format is {data.get('format')!r}; expected {FORMAT!r}")
    version = data.get("format_version")
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{path}: format_version is {version!r}; expected an integer from 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version {version} is newer than this version of omnistream reads ({FORMAT_VERSION}); "
            "update omnistream"
        )
    missing, unknown = sorted(set(FIELDS) - set(data)), sorted(set(data) - set(FIELDS) - set(OPTIONAL))
    if missing or unknown:
        raise CheckpointError(f"{path}: missing fields {missing}, unknown fields {unknown}")
    for name, kind in (FIELDS | OPTIONAL).items():
        if name in data and not isinstance(data[name], kind):
            raise CheckpointError(f"{path}: {name} is {data[name]!r}, which is of another type than expected")


def _check_shape(contract: Contract, config: PolicyConfig, shape: PolicyShape, scaling: ActionScaling) -> None:
    """The three parts speak of one robot."""
    names = tuple(camera.name for camera in contract.cameras)
    told = {
        "cameras": (names, shape.cameras),
        "state dimensions": (len(contract.state), shape.state),
        "goal": (goal_dimensions(config.goal, contract.state_names), shape.goal),
        "arm columns": (contract.action.arm, scaling.arm),
        "arm dimensions": (len(contract.action.arm), shape.arm),
        "grippers": (tuple((g.index, g.open, g.closed) for g in contract.action.grippers), scaling.grippers),
        "number of grippers": (len(contract.action.grippers), shape.grippers),
    }
    for what, (left, right) in told.items():
        if left != right:
            raise ConfigError(f"{what}: {CONTRACT_FILE} says {left}, the policy {right}")


def _check_language_model(
    path: Path, stored: str | None, config: PolicyConfig, language_model: str | Path | None
) -> None:
    if not config.language.pretrained:
        return
    assert language_model is not None  # tokens_from_dict has refused that
    found = language_model_hash(language_model)
    if found != stored:
        raise CheckpointError(f"{path}: trained on language model {stored}, {language_model} is {found}")
