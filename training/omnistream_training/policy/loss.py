# SPDX-License-Identifier: Apache-2.0
"""What a policy is taught: where to move and whether to hold, for every step of a chunk that the episode still has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omnistream.policy.network import PolicyOutput
from omnistream_training.policy.config import PolicyLoss


def policy_loss(
    output: PolicyOutput, arm: Tensor, opened: Tensor, valid: Tensor, config: PolicyLoss
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the valid steps.

    arm: [B, K, A] recorded movements, normalised. opened: [B, K, G], 1 open, 0 closed. valid: [B, K], False beyond the
    end of the episode.
    """
    weights = valid.float()[..., None] / valid.sum().clamp(min=1)
    moves = F.huber_loss(output.arm, arm, reduction="none", delta=config.delta).mean(-1, keepdim=True)
    terms = {"arm": (moves * weights).sum()}
    loss = terms["arm"]
    if opened.shape[-1]:
        grip = F.binary_cross_entropy_with_logits(output.gripper, opened, reduction="none").mean(-1, keepdim=True)
        terms["gripper"] = (grip * weights).sum()
        loss = loss + config.gripper * terms["gripper"]
    return loss, {name: torch.Tensor.detach(value) for name, value in terms.items()}


def goal_loss(predicted: Tensor, goal: Tensor, config: PolicyLoss) -> Tensor:
    """Mean over samples, keyframes and dimensions: [B, keyframes, goal] each, in deviations from the state's mean."""
    return F.huber_loss(predicted, goal, delta=config.delta)
