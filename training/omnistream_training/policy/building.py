# SPDX-License-Identifier: Apache-2.0
"""Everything a run stands on, put together from its configuration: data, features, network, held-out frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnistream.contract import Contract
from omnistream.episodes import EpisodeDataset
from omnistream.episodes.plans import PLANS_FILE
from omnistream.errors import ConfigError
from omnistream.model.omnistream import OmniStream
from omnistream.policy.config import PolicyShape, goal_dimensions
from omnistream.policy.network import PolicyNetwork
from omnistream.policy.scaling import SMALLEST_RANGE, ActionScaling, scaling_from
from omnistream.policy.tokens import PretrainedTokens, WordTokens
from omnistream.policy.vision import BackboneInput
from omnistream.weights import default_model, load_model, model_hash
from omnistream.weights.files import sha256_of
from omnistream_training.policy.config import PolicyRunConfig
from omnistream_training.policy.features import FeatureCache
from omnistream_training.policy.fingerprint import folder_hash
from omnistream_training.policy.foresight import check_plans
from omnistream_training.policy.samples import (
    Batch,
    Samples,
    Track,
    check_word_count,
    read_tracks,
    sentences,
    split,
    used_contract,
    with_statistics,
)
from omnistream_training.robot_data.formats import open_any

FAR = 20.0
"""Deviations of the recorded state that keyframes may be off its mean."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What `prepare` made."""

    datasets: list[EpisodeDataset]
    train: Samples
    held_out: Samples
    network: PolicyNetwork
    """With the input statistics of the training frames."""
    contract: Contract
    """Of the policy: with statistics of the training episodes and the backbone's hash."""
    backbone_input: BackboneInput | None
    scaling: ActionScaling
    tokens: WordTokens | PretrainedTokens
    identity: dict[str, str]
    """Hashes of what the run depends on, by name; a resumed run must find the same."""
    description: str

    def draw(self, config: PolicyRunConfig, step: int) -> Batch:
        """The batch of a step."""
        share = config.data.counterfactual
        return self.train.draw(step, config.batch, config.seed, config.noise, self.network.state_std, share)


def prepare(
    config: PolicyRunConfig,
    cache: Path,
    device: str,
    *,
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> Setup | None:
    """Open the data, compute features that are missing, build the network; None if `stop()` came first.

    Raises ConfigError, InputError or ContractError, each naming what does not fit.
    """
    if not config.data.folders:
        raise ConfigError("no data: name data sets (--data.folders DIR ...)")
    datasets = [open_any(Path(folder).expanduser()) for folder in config.data.folders]
    for dataset in datasets:
        for sentence in dataset.lost:
            say(f"{dataset.path}: {sentence}")
    contract = used_contract(datasets, config.data)
    goal = goal_dimensions(config.policy.goal, contract.state_names)
    tracks = read_tracks(datasets, config.data)
    for track in tracks:
        if track.plans is not None:
            where = datasets[track.dataset].path
            check_plans(track.plans, where, config.policy.goal, config.policy.keyframes)
    if config.data.counterfactual:
        bare = set(range(len(datasets))) - {track.dataset for track in tracks if track.plans is not None}
        for number in sorted(bare):
            say(f"{datasets[number].path} has no {PLANS_FILE}: nothing counterfactual is learnt from it")
    train, apart = split(tracks, config.data.validation, config.seed)
    model, about = _backbone(config)
    # Without the plans: they may be written anew, and no feature changes.
    hashes = [folder_hash(dataset.path, without=(PLANS_FILE,)) for dataset in datasets]
    features = FeatureCache(cache, config.policy.vision, model, device=device, precision=config.precision)
    tables = []
    for dataset, digest in zip(datasets, hashes, strict=True):
        row = []
        for camera in contract.cameras:
            table = features.table(dataset, digest, camera.name, say=say, stop=stop)
            if table is None:
                return None
            row.append(table)
        tables.append(row)
    contract = with_statistics(contract, train)
    backbone = None if model is None else model_hash(model.backbone)
    contract = dataclasses.replace(contract, backbone=backbone)
    data = config.data
    scaling = scaling_from(contract, data.scaling, squeeze=data.squeeze, unscaled=data.unscaled, still=data.still)
    tokens = _tokens(config, train)
    shape = PolicyShape(
        cameras=tuple(camera.name for camera in contract.cameras),
        grids=tuple(table.grid for table in tables[0]),
        feature_dim=features.dim,
        arm=len(contract.action.arm),
        grippers=len(contract.action.grippers),
        state=len(contract.state),
        goal=goal,
    )
    told: dict[str, Any] = {"goal": config.policy.goal, "state": contract.state_names}
    told["keyframes"] = config.policy.keyframes
    learnt, held_out = (
        Samples(part, tables, tokens, scaling, config.policy.chunk, device, **told) for part in (train, apart)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = PolicyNetwork(config.policy, shape, tokens, config.language_model)
    network.visual_mean[:], network.visual_std[:] = learnt.visual_statistics()
    if shape.state:
        network.state_mean[:], network.state_std[:] = learnt.state_statistics()
        still = [name for name, std in zip(contract.state_names, network.state_std, strict=True) if not std]
        if still:
            say(f"state that moves by less than {SMALLEST_RANGE} in these data, and is not read: {', '.join(still)}")
    _check_goal(config.policy.goal, learnt, network.state_mean[list(goal)], network.state_std[list(goal)])
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    clipped = scaling.clipped(learnt.recorded())
    texts = sentences(train, planned=bool(data.counterfactual))
    description = (
        f"{len(train)} episodes ({len(learnt)} frames) to learn from, {len(apart)} ({len(held_out)}) held out, "
        f"{len(texts)} instructions, cameras {', '.join(shape.cameras)}, {shape.state} numbers of state; {about}; "
        f"{learning / 1e6:.2f} M parameters learn; clipped labels at most {clipped.max():.1%}"
    )
    if data.counterfactual:
        description += f"; {len(learnt.others)} counterfactual plans to learn from"
    names = [contract.action_names[i] for i in scaling.arm]
    held = [name for name, low, high in zip(names, scaling.low, scaling.high, strict=True) if low == high]
    if held:
        description += f"; held still: {', '.join(held)}"
    identity = {"backbone": str(backbone)} | {f"data {i}": digest for i, digest in enumerate(hashes)}
    for i, dataset in enumerate(datasets):
        plans = Path(dataset.path) / PLANS_FILE
        identity |= {f"plans {i}": sha256_of(plans)[:16]} if plans.is_file() else {}
    fed = None if model is None else BackboneInput.of(config.policy.vision, model.config)
    return Setup(datasets, learnt, held_out, network, contract, fed, scaling, tokens, identity, description)


def _backbone(config: PolicyRunConfig) -> tuple[OmniStream | None, str]:
    """The frozen model and a phrase about it; None where the policy looks at pixels."""
    if config.policy.vision.source == "pixels":
        return None, "no backbone: bare pixels"
    if config.backbone is None:
        return default_model()
    return load_model(config.backbone), f"backbone {Path(config.backbone).name}"


def _check_goal(goal: Sequence[str], samples: Samples, mean: Tensor, std: Tensor) -> None:
    """ConfigError where a dimension that hardly moves in the recordings moves in plans: its deviation is no unit."""
    if not goal:
        return
    apart = (samples.all_keyframes() - mean).abs().amax((0, 1))
    off = torch.where(std > 0, apart / std, torch.where(apart < SMALLEST_RANGE, 0.0, torch.inf))
    far = int(off.argmax())
    if off[far] > FAR:
        raise ConfigError(
            f"policy.goal has {goal[far]!r}, which deviates by {std[far]:.2g} in recorded states; its keyframes are "
            f"up to {off[far]:.0f} times that off; expected {FAR:g} at most: leave it out"
        )


def _tokens(config: PolicyRunConfig, train: list[Track]) -> WordTokens | PretrainedTokens:
    if config.policy.language.pretrained:
        if config.language_model in (None, "-"):
            raise ConfigError("this policy uses a pre-trained language model; name its directory (--language-model)")
        return PretrainedTokens(str(config.language_model))
    tokens = WordTokens.of(sentences(train, planned=bool(config.data.counterfactual)))
    check_word_count(tokens, train)
    return tokens
