# SPDX-License-Identifier: Apache-2.0
"""One optimiser step of a policy: network, loss, optimisers and averaged weights. Knows no files and no clock."""

from __future__ import annotations

import torch
from torch import Tensor

from omnistream.policy.network import PolicyNetwork, PolicyOutput, in_deviations
from omnistream_training.learner import Progress
from omnistream_training.optim import Optimizers, WeightAverage, rate_at
from omnistream_training.policy.config import PolicyRunConfig
from omnistream_training.policy.loss import goal_loss, policy_loss
from omnistream_training.policy.samples import Batch


class PolicyLearner:
    """The state that training changes. `gradient`, then `update`, is one step."""

    def __init__(self, config: PolicyRunConfig, network: PolicyNetwork, device: str) -> None:
        self.config, self.device = config, torch.device(device)
        self.network = network.to(self.device).train()
        self.optimizers = Optimizers(self.network, config.optim)
        self.average = WeightAverage(self.optimizers.parameters, config.optim.ema)
        self.progress = Progress()
        self._samples = 0

    def gradient(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of the batch's loss, clipped. Returns `loss`, the norm before clipping, and the loss terms."""
        sums: dict[str, Tensor] = {}
        steps = batch.valid.sum().clamp(min=1)
        for part in batch.parts(self.config.micro_batch):
            # Shares of the steps that count, and of the samples, so that parts add up to the whole.
            share, samples = part.valid.sum() / steps, len(part) / len(batch)
            out, goal = self.forward(part), self.goal(part)
            loss, terms = policy_loss(out, part.arm, part.opened, part.valid, self.config.loss)
            loss, terms = loss * share, {name: value * share for name, value in terms.items()}
            if out.goal is not None and goal is not None:
                off = goal_loss(out.goal, goal, self.config.loss)
                loss = loss + self.config.loss.goal * off * samples
                terms["goal"] = off.detach() * samples
            loss.backward()
            for name, value in {"loss": loss.detach(), **terms}.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value
        self._samples = len(batch)
        return {**sums, "norm": self.optimizers.clip()}

    def update(self) -> None:
        """Move the weights along the gradients of `gradient`, and the averaged weights after them."""
        step = self.progress.step
        self.optimizers.step(rate_at(step, self.config.steps, self.config.optim))
        self.average.update(step)
        self.progress.step += 1
        self.progress.frames += self._samples

    def forward(self, batch: Batch) -> PolicyOutput:
        """Under autocast as configured."""
        lower = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=lower):
            out = self.network(batch.visual, batch.words, batch.known, batch.state)
        return PolicyOutput(out.arm.float(), out.gripper.float(), None if out.goal is None else out.goal.float())

    def goal(self, batch: Batch) -> Tensor | None:
        """[B, keyframes, goal] as the network predicts it: in deviations from the state's mean."""
        if batch.keyframes is None:
            return None
        which = list(self.network.shape.goal)
        return in_deviations(batch.keyframes, self.network.state_mean[which], self.network.state_std[which])
