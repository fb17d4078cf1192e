# SPDX-License-Identifier: Apache-2.0
"""Optimiser, learning rate, and the moving average of the weights.

AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from omnistream.errors import ConfigError
from omnistream_training.muon import Muon


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Learning rates are peaks; `rate_at` scales them over the run."""

    lr: float = 1e-3
    """AdamW."""
    muon_lr: float = 0.0
    """Muon on the block matrices; 0: AdamW there too."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    """Of matrices; none on biases, norms, gains and tokens."""
    schedule: Literal["cosine", "trapezoid"] = "cosine"
    """`trapezoid` holds the peak and falls at the end: such a run can be prolonged, and cut short at any moment."""
    warmup: int = 200
    """Steps of linear rise."""
    decay: float = 0.3
    """Share of the run that a trapezoid's fall takes."""
    final: float = 0.02
    """Last rate, relative to the peak."""
    clip: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.999
    """Momentum of the averaged weights, which are what is evaluated and shipped; less at the start."""

    def __post_init__(self) -> None:
        if not self.lr > 0 or self.muon_lr < 0 or self.weight_decay < 0 or not self.clip > 0:
            raise ConfigError(
                f"optim.lr {self.lr}, muon_lr {self.muon_lr}, weight_decay {self.weight_decay}, clip {self.clip}: "
                "expected above 0, 0 or more, 0 or more, above 0"
            )
        if not 0 <= self.ema < 1 or not 0 <= self.decay <= 1 or not 0 <= self.final <= 1 or self.warmup < 0:
            raise ConfigError(
                f"optim.ema {self.ema}, decay {self.decay}, final {self.final}, warmup {self.warmup}: expected "
                "[0, 1), [0, 1], [0, 1], 0 or more"
            )


def rate_at(step: int, steps: int, config: OptimConfig) -> float:
    """Factor on the peak learning rates at `step` of `steps`."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "trapezoid":
        start = steps - int(config.decay * steps)
        done = min(1.0, max(0.0, (step - start) / max(1, steps - start)))
        fall = 1 - done
    else:
        done = min(1.0, max(0.0, (step - config.warmup) / max(1, steps - config.warmup)))
        fall = (1 + math.cos(math.pi * done)) / 2
    return rise * (config.final + (1 - config.final) * fall)


class Optimizers:
    """AdamW and, if wanted, Muon, as one."""

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self.config = config
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        muon, decayed, plain = _groups(model, use_muon=config.muon_lr > 0)
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=1e-8, fused=True
        )
        self.muon = Muon(muon, lr=config.muon_lr, weight_decay=config.weight_decay) if muon else None

    @property
    def members(self) -> list[torch.optim.Optimizer]:
        """AdamW, and Muon if there is one."""
        return [optimizer for optimizer, _ in self._members()]

    def clip(self) -> Tensor:
        """Limit the gradient's norm to `config.clip`; returns the norm before (on the device, no synchronisation)."""
        return nn.utils.clip_grad_norm_(self.parameters, self.config.clip)

    def step(self, factor: float) -> None:
        """Update with the peak rates times `factor`, and clear the gradients."""
        for optimizer, peak in self._members():
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers."""
        return {type(optimizer).__name__: optimizer.state_dict() for optimizer, _ in self._members()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        for optimizer, _ in self._members():
            optimizer.load_state_dict(state[type(optimizer).__name__])

    def _members(self) -> list[tuple[torch.optim.Optimizer, float]]:
        members: list[tuple[torch.optim.Optimizer, float]] = [(self.adamw, self.config.lr)]
        return [*members, (self.muon, self.config.muon_lr)] if self.muon is not None else members


def _groups(model: nn.Module, use_muon: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Trainable parameters for Muon, for AdamW with weight decay, and without."""
    muon: list[Tensor] = []
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if use_muon and ".blocks." in f".{name}" and parameter.ndim == 2:
            muon.append(parameter)
        elif parameter.ndim >= 2 and not name.endswith("_token"):
            decayed.append(parameter)
        else:
            plain.append(parameter)
    return muon, decayed, plain


class WeightAverage:
    """Exponential moving average of parameters (Polyak); starts fast, so that early averages forget the beginning."""

    def __init__(self, parameters: Iterable[Tensor], momentum: float) -> None:
        self.momentum = momentum
        self.source = list(parameters)
        self.average = [p.detach().clone() for p in self.source]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimiser step number `step` (from 0)."""
        momentum = min(self.momentum, (step + 1) / (step + 10))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.source], 1 - momentum)
