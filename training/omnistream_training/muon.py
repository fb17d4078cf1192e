# SPDX-License-Identifier: Apache-2.0
"""Muon (Jordan et al. 2024): momentum, then the update's nearest orthogonal matrix by a Newton-Schulz iteration.

torch has one from 2.9 on; we support 2.6, keep fused query-key-value matrices apart, and run equal shapes as one batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from omnistream_training.distributed import whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Quintic of the original: singular values end up in about 0.7 .. 1.2 after five rounds, fast rather than exact."""
ROUNDS = 5
RMS = 0.2
"""Root mean square of an update element relative to lr, AdamW's typical value: both can share rates and decay
(Liu et al. 2025, "Muon is scalable")."""


class Muon(torch.optim.Optimizer):
    """For matrices [rows, columns] only. Rows that are a multiple k > 1 of the columns by a fused projection are split
    when `rows == 3 * columns` (query, key and value are three maps, not one)."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(tuple(p.shape), []).append(p)
            for shape, members in by_shape.items():
                self._update(shape, members, group)

    def _update(self, shape: tuple[int, ...], members: list[Tensor], group: dict[str, Any]) -> None:
        buffers = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in members]
        grads = [p.grad for p in members if p.grad is not None]
        torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(grads, buffers, group["momentum"])
        rows, columns = shape
        parts = 3 if rows == 3 * columns else 1
        # Of matrices that several processes hold, each process puts them together and works on all of them.
        matrices = torch.stack([whole(momentum) for momentum in nesterov])
        updates = orthogonalise(matrices.reshape(-1, rows // parts, columns))
        updates = updates.reshape(len(members), rows, columns) * (RMS * max(rows // parts, columns) ** 0.5)
        torch._foreach_mul_(members, 1 - group["lr"] * group["weight_decay"])
        steps = [_share(update, p) for update, p in zip(updates.to(members[0].dtype), members, strict=True)]
        torch._foreach_add_(members, steps, alpha=-group["lr"])


def _share(update: Tensor, p: Tensor) -> Tensor:
    """The part of a whole update that belongs to this process's part of `p`."""
    if not isinstance(p, DTensor):
        return update
    replicated = DTensor.from_local(update, p.device_mesh, [Replicate()] * p.device_mesh.ndim, run_check=False)
    return replicated.redistribute(placements=p.placements)


def orthogonalise(matrices: Tensor) -> Tensor:
    """[n, rows, columns] -> about U V^T of each, float32; computed in bfloat16, which the iteration forgives."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.transpose(-1, -2)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(-1, -2) if tall else x).float()
