# SPDX-License-Identifier: Apache-2.0
"""The teacher: an average over time of the student, which learns nothing by itself."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from omnistream_training.ssl.config import SslConfig


class Teacher(nn.Module):
    """Averaged copies of the student's modules, in evaluation mode, without gradients."""

    def __init__(self, **student: nn.Module) -> None:
        """student: modules by name; `teacher.NAME` is the averaged one."""
        super().__init__()
        self._names = tuple(student)
        for name, module in student.items():
            self.add_module(name, copy.deepcopy(module).requires_grad_(False).eval())

    @torch.no_grad()
    def follow(self, momentum: float, **student: nn.Module) -> None:
        """teacher = momentum * teacher + (1 - momentum) * student."""
        for name in self._names:
            mine = [p.detach() for p in self.get_submodule(name).parameters()]
            torch._foreach_lerp_(mine, [p.detach() for p in student[name].parameters()], 1 - momentum)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode, whatever the modules around it do."""
        return super().train(False)


def momentum_at(step: int, steps: int, config: SslConfig) -> float:
    """Of the teacher after `step` of `steps`: a cosine from the one to the other."""
    start, end = config.momentum
    done = min(1.0, step / max(1, steps))
    return end - (end - start) * (1 + math.cos(math.pi * done)) / 2


def temperature_at(step: int, config: SslConfig) -> float:
    """Of the teacher's assignments at `step`."""
    start, end = config.teacher_temperature
    return start + (end - start) * min(1.0, step / max(1, config.temperature_steps))
