# SPDX-License-Identifier: Apache-2.0
"""How far predictions are from recorded actions on held-out episodes, beside what needs no policy.

It steers a run and finds blunders: a wrong unit, a swapped axis, an instruction that nobody reads. It does not say
whether the robot succeeds: a small error at the wrong moment drops the cube (docs/policy.md). Evaluate closed loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omnistream.contract import Contract
from omnistream.policy.network import PolicyOutput
from omnistream_training.policy.learner import PolicyLearner
from omnistream_training.policy.samples import Batch, Samples

AT_ONCE = 256

F32 = NDArray[np.float32]


class Offline:
    """Held-out frames, evenly spread; the same ones at every evaluation."""

    def __init__(self, samples: Samples, contract: Contract, train: Samples, frames: int) -> None:
        """train: the samples that the mean action is of."""
        self.samples, self.contract = samples, contract
        self.numbers = np.unique(np.linspace(0, len(samples) - 1, min(frames, len(samples))).astype(int))
        self._places = [samples.where(int(number)) for number in self.numbers]
        recorded = train.recorded().astype(np.float64)
        self._mean = recorded.mean(0)
        arm, opened = train.scaling.normalise(recorded)
        self._scaled_mean = np.concatenate([arm.mean(0), opened.mean(0)])
        count = len(samples.others)
        self.others = np.unique(np.linspace(0, count - 1, min(frames, count)).astype(int))
        self._wanted, self._valid = _targets(samples.batch(part) for part in _parts(self.numbers))
        self._other_targets = _targets(samples.otherwise(part) for part in _parts(self.others)) if count else None

    def run(self, learner: PolicyLearner) -> dict[str, Any]:
        """Metrics of the network as it is (call it in eval mode).

        error: mean absolute difference of normalised actions over the valid steps of a chunk, all dimensions alike
        (grippers: of the probability); 0 is perfect. The best state of a run is chosen by it.
        mean_error, repeat_error: the same of the training data's mean action, and of the action before, repeated.
        blank_error, other_error: of this policy told nothing, and told another instruction: near `error` means that it
        does not listen. gripper_error: share of steps on the wrong side.
        counterfactual_error: `error` where another sentence is told than was recorded, from what the demonstrator would
        have done. keyframe_mae: per dimension of the policy's goal, in its own unit, of the next keyframe, there too.
        dimensions: per action, in its own unit, of the first step: mae and rmse, and mae of the two baselines.
        """
        predicted = self.predict(learner)
        result: dict[str, Any] = {
            "error": self._error(predicted),
            "mean_error": self._error(np.broadcast_to(self._scaled_mean, predicted.shape)),
            "repeat_error": self._error(np.broadcast_to(self._before(scaled=True)[:, None], predicted.shape)),
            "blank_error": self._error(self.predict(learner, [""] * len(self.numbers))),
        }
        others = self._other_instructions()
        if others is not None:
            result["other_error"] = self._error(self.predict(learner, others))
        arms = len(self.contract.action.arm)
        if self.contract.action.grippers:
            wrong = (predicted[..., arms:] > 0.5) != (self._wanted[..., arms:] > 0.5)
            result["gripper_error"] = float(wrong[self._valid].mean())
        answers, goals = self._told_otherwise(learner)
        if self._other_targets is not None:
            wanted, valid = self._other_targets
            result["counterfactual_error"] = float(np.abs(answers - wanted)[valid].mean())
        result = {name: round(value, 5) for name, value in result.items()} | goals
        return result | {"frames": len(self.numbers), "dimensions": self._dimensions(predicted[:, 0])}

    @torch.no_grad()
    def predict(self, learner: PolicyLearner, instructions: Sequence[str] | None = None) -> F32:
        """[F, K, arm + grippers]: normalised movements, and probabilities of open."""
        rows = []
        for first in range(0, len(self.numbers), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            told = None if instructions is None else instructions[part]
            rows.append(_answer(learner.forward(self.samples.batch(self.numbers[part], told))))
        return np.concatenate(rows)

    @torch.no_grad()
    def _told_otherwise(self, learner: PolicyLearner) -> tuple[F32, dict[str, Any]]:
        """Answers [M, K, arm + grippers] to counterfactual samples, and keyframe_mae; of the recorded ones where there
        are no others, and no keyframe_mae for a policy without a goal."""
        others = self._other_targets is not None
        draw, rows = (self.samples.otherwise, self.others) if others else (self.samples.batch, self.numbers)
        goal = list(learner.network.shape.goal)
        if not others and not goal:
            return np.zeros(0, np.float32), {}
        answers, off = [], []
        for part in _parts(rows):
            batch = draw(part)
            out, told = learner.forward(batch), learner.goal(batch)
            answers.append(_answer(out))
            if out.goal is not None and told is not None:
                off.append(((out.goal - told)[:, 0].abs() * learner.network.state_std[goal]).cpu())
        if not off:
            return np.concatenate(answers), {}
        names = [self.contract.state_names[i] for i in goal]
        means = zip(names, torch.cat(off).mean(0).tolist(), strict=True)
        return np.concatenate(answers), {"keyframe_mae": {name: float(f"{value:.4g}") for name, value in means}}

    def _error(self, predicted: NDArray[np.floating]) -> float:
        return float(np.abs(predicted - self._wanted)[self._valid].mean())

    def _before(self, scaled: bool) -> NDArray[np.float64]:
        """[F, A]: the action before each frame; the mean action before the first of an episode."""
        rows = []
        for track, t in self._places:
            action = self.samples.tracks[track].action[t - 1].astype(np.float64)
            if scaled:
                action = np.concatenate(self.samples.scaling.normalise(action))
            rows.append(action if t else self._scaled_mean if scaled else self._mean)
        return np.stack(rows)

    def _dimensions(self, first: F32) -> dict[str, dict[str, float]]:
        arms = len(self.contract.action.arm)
        predicted = self.samples.scaling.restore(first[:, :arms], first[:, arms:])
        wanted = np.stack([self.samples.tracks[track].action[t] for track, t in self._places]).astype(np.float64)
        repeat = self._before(scaled=False)
        table = {}
        for i, dimension in enumerate(self.contract.action.dimensions):
            off = predicted[:, i] - wanted[:, i]
            table[dimension.name] = {
                "mae": float(f"{np.abs(off).mean():.4g}"),
                "rmse": float(f"{np.sqrt((off**2).mean()):.4g}"),
                "mean_mae": float(f"{np.abs(self._mean[i] - wanted[:, i]).mean():.4g}"),
                "repeat_mae": float(f"{np.abs(repeat[:, i] - wanted[:, i]).mean():.4g}"),
            }
        return table

    def _other_instructions(self) -> list[str] | None:
        """For every frame an instruction that occurs here and is not its own; None where there is but one."""
        texts = [self.samples.tracks[track].instruction for track, _ in self._places]
        kinds = sorted(set(texts))
        if len(kinds) < 2:
            return None
        return [kinds[(kinds.index(text) + 1 + i % (len(kinds) - 1)) % len(kinds)] for i, text in enumerate(texts)]


def _parts(rows: NDArray[np.integer]) -> Iterator[NDArray[np.integer]]:
    return (rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE))


def _targets(batches: Iterable[Batch]) -> tuple[F32, NDArray[np.bool_]]:
    """[F, K, arm + grippers] wanted, and [F, K] what of it counts."""
    found = [(torch.cat([b.arm, b.opened], -1).cpu().numpy(), b.valid.cpu().numpy()) for b in batches]
    return np.concatenate([wanted for wanted, _ in found]), np.concatenate([valid for _, valid in found])


def _answer(out: PolicyOutput) -> F32:
    """[F, K, arm + grippers]: normalised movements, and probabilities of open."""
    return torch.cat([out.arm, out.gripper.sigmoid()], -1).cpu().numpy()


def summary(result: dict[str, Any]) -> str:
    """The numbers of `Offline.run` as a line for people."""
    text = (
        f"error {result['error']:.4f} (mean action {result['mean_error']:.4f}, repeat last "
        f"{result['repeat_error']:.4f}, told nothing {result['blank_error']:.4f}"
    )
    text += f", told another {result['other_error']:.4f})" if "other_error" in result else ")"
    if "counterfactual_error" in result:
        text += f"; counterfactual {result['counterfactual_error']:.4f}"
    if "keyframe_mae" in result:
        off = (f"{name} {value:.3g}" for name, value in result["keyframe_mae"].items())
        text += f"; keyframe off by {', '.join(off)}"
    return text + (f"; gripper wrong {result['gripper_error']:.1%}" if "gripper_error" in result else "")


def table(result: dict[str, Any], contract: Contract) -> str:
    """Errors per action dimension, one row each."""
    lines = [f"{'action':<14}{'unit':>8}{'mae':>12}{'rmse':>12}{'mean action':>14}{'repeat last':>14}"]
    for dimension in contract.action.dimensions:
        row = result["dimensions"][dimension.name]
        lines.append(
            f"{dimension.name:<14}{dimension.unit:>8}{row['mae']:>12.4g}{row['rmse']:>12.4g}"
            f"{row['mean_mae']:>14.4g}{row['repeat_mae']:>14.4g}"
        )
    return "\n".join(lines)
