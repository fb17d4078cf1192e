# SPDX-License-Identifier: Apache-2.0
"""Everything that decides what a run of `omnistream-train policy` computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from omnistream.errors import ConfigError
from omnistream.policy.config import PolicyConfig
from omnistream.policy.config import preset as policy_preset
from omnistream.policy.scaling import Method, Still
from omnistream_training.optim import OptimConfig


@dataclass(frozen=True, kw_only=True)
class PolicyData:
    """Which episodes, and what of them."""

    folders: tuple[str, ...] = ()
    """Data sets in LeRobot's format; several must have the same contract."""
    cameras: tuple[str, ...] = ()
    """Names, the main one first; none: all that the contract has."""
    state: bool = True
    """Whether the policy feels the robot's own state."""
    failures: bool = False
    """Whether episodes that were recorded as failed are learnt from too."""
    validation: float = 0.1
    """Share of the episodes that are held out, at least one."""
    counterfactual: float = 0.0
    """Share of every batch that is told another sentence than was recorded, and learns what the demonstrator would have
    done then: from data sets that have such plans (`omnistream-sim demos tabletop`), as far as there are any."""
    scaling: Method = "none"
    """Of movements: `none` (they are in [-1, 1] already), `quantile` (1st and 99th percentile), `range`."""
    squeeze: float = 1.0
    """Scaled movements are clipped to this and stretched to [-1, 1] again; 0.65 in VLM4VLA."""
    unscaled: tuple[str, ...] = ()
    """Action dimensions that are in [-1, 1] already whatever `scaling` says."""
    still: Still = "refuse"
    """What becomes of a dimension that hardly moves in the data: `refuse`, or `hold` it at its mean."""

    def __post_init__(self) -> None:
        if not 0 <= self.counterfactual < 1:
            raise ConfigError(f"data.counterfactual is {self.counterfactual}; expected a share, 0 or more, below 1")
        if not 0 < self.validation < 1:
            raise ConfigError(f"data.validation is {self.validation}; expected above 0, below 1")
        if self.scaling not in ("none", "quantile", "range") or not 0 < self.squeeze <= 1:
            raise ConfigError(
                f"data.scaling is {self.scaling!r}, squeeze {self.squeeze}; expected none, quantile or range, and "
                "above 0 up to 1"
            )


@dataclass(frozen=True, kw_only=True)
class PolicyLoss:
    """Huber on movements plus `gripper` times binary cross-entropy on grippers (VLM4VLA)."""

    delta: float = 1.0
    """Where Huber's square becomes a line, in normalised movement."""
    gripper: float = 0.01
    goal: float = 3.0
    """Of the keyframes, for policies that predict them (`policy.goal`): Huber with the same delta, in deviations."""

    def __post_init__(self) -> None:
        if not self.delta > 0 or min(self.gripper, self.goal) < 0:
            raise ConfigError(
                f"loss.delta {self.delta}, gripper {self.gripper}, goal {self.goal}: expected above 0, and 0 or more"
            )


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What training adds to what the policy is told and feels."""

    unknown_words: float = 0.02
    """Share of words replaced by the unknown one, so that it means something. Own vocabulary only, as the next two."""
    dropped_words: float = 0.0
    """Share of words left out."""
    moved_words: int = 0
    """How many places a word may move at most, so that words decide and not their neighbours. Two that lie further
    apart keep their order. Lample et al. 2018 (arXiv 1711.00043, section 2.3) leave out 0.1 and move by 3."""
    no_words: float = 0.0
    """Share of samples that are told nothing, so that the policy knows what to make of silence."""
    state: float = 0.0
    """Of the robot's state, in standard deviations."""
    no_state: float = 0.0
    """Share of samples whose state is blanked, lest the policy look at nothing else."""

    def __post_init__(self) -> None:
        shares = (self.unknown_words, self.dropped_words, self.no_words, self.no_state)
        if self.state < 0 or self.moved_words < 0 or not all(0 <= share < 1 for share in shares):
            raise ConfigError(f"noise is {self}; expected shares from 0 to below 1, deviations and places of 0 or more")


@dataclass(frozen=True, kw_only=True)
class PolicyRunConfig:
    """A run. `backbone` and `language_model` may lie elsewhere on another machine; their hashes are checked."""

    policy: PolicyConfig = field(default_factory=lambda: policy_preset("tabletop_tiny"))
    backbone: str | None = None
    """Checkpoint of the frozen backbone; none: the shipped default weights."""
    language_model: str | None = None
    """Directory of the pre-trained language model, for policies that use one."""
    data: PolicyData = field(default_factory=PolicyData)
    loss: PolicyLoss = field(default_factory=PolicyLoss)
    noise: Noise = field(default_factory=Noise)
    optim: OptimConfig = field(default_factory=OptimConfig)
    steps: int = 1000
    """Optimiser steps."""
    batch: int = 128
    """Samples per step."""
    micro_batch: int = 0
    """Samples at once; gradients of a batch are summed. 0: the whole batch."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network under autocast, and of the frozen backbone's products when features are computed; loss, optimiser
    and what learns are float32."""
    seed: int = 0
    """Of initial weights, batches and held-out episodes. 0 to 32767."""
    eval_every: int = 250
    """Steps between evaluations on held-out episodes; 0: only at the end."""
    eval_frames: int = 2048
    """Held-out frames of an evaluation, evenly spread."""
    save_every: int = 250
    """Steps between saved states."""
    log_every: int = 25
    """Steps between lines of the log."""
    overlays: int = 3
    """Held-out episodes that are drawn with predicted and recorded actions."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "eval_frames", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        for name in ("micro_batch", "eval_every", "overlays"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if self.policy.goal and not self.data.state:
            raise ConfigError(f"policy.goal is {self.policy.goal}, but data.state is off; a goal is a state to get to")
        if not 0 <= self.seed < 1 << 15:
            raise ConfigError(f"seed is {self.seed}; expected 0 to {(1 << 15) - 1}")
        if self.policy.language.pretrained and self.language_model is None:
            raise ConfigError("this policy uses a pre-trained language model; name its directory (--language-model)")
