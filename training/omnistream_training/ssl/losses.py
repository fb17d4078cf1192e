# SPDX-License-Identifier: Apache-2.0
"""The four terms of self-supervision, each a function of tensors, all in float32 whatever the network ran in.

Shapes: N samples, K prototypes, D width, V views, B clips. Sources: DINO (2104.14294), iBOT (2111.07832),
Sinkhorn-Knopp centring as in SwAV (2006.09882), KoLeo (1806.03198), Gram anchoring (DINOv3, 2508.10104);
paper section 3.2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from omnistream.errors import ConfigError

P = ParamSpec("P")
T = TypeVar("T")


def full_precision(function: Callable[P, T]) -> Callable[P, T]:
    """`function` without autocast, which computes every product of matrices in bfloat16, whatever goes in."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        device = next(value.device.type for value in args if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return run


@torch.no_grad()
@full_precision
def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3, *, shared: bool = False) -> Tensor:
    """Soft assignments [N, K] of samples to prototypes: every row sums to 1, every column (almost) to N / K.

    Without it a teacher may put everything on one prototype, which the student predicts without looking.
    logits: [N, K]. More iterations bring the columns closer; rows are exact after each.
    shared: the samples are those of all processes, each of which passes its own and gets its own back.
    """
    if logits.ndim != 2 or 0 in logits.shape:
        raise ConfigError(f"logits are {tuple(logits.shape)}; expected [samples, prototypes], neither of them 0")
    scaled = logits.float() / temperature
    # In logarithms, where a prototype that nobody is near stays a number: exp() of it would be 0, and 0 / 0 follows.
    top = scaled.max()
    if shared:
        dist.all_reduce(top, dist.ReduceOp.MAX)  # one for all, or the processes' samples would not weigh alike
    log_q = scaled - top
    for _ in range(iterations):
        log_q = log_q - _over_samples(log_q, shared)
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.exp()


def _over_samples(log_q: Tensor, shared: bool) -> Tensor:
    """logsumexp [1, K] over the samples, of all processes if `shared`."""
    if not shared:
        return log_q.logsumexp(0, keepdim=True)
    top = log_q.amax(0, keepdim=True)
    dist.all_reduce(top, dist.ReduceOp.MAX)
    total = (log_q - top).exp().sum(0, keepdim=True)
    dist.all_reduce(total)
    return top + total.log()


@full_precision
def dino_loss(student: Tensor, teacher: Tensor, temperature: float, *, same_views: bool) -> Tensor:
    """Mean cross-entropy between the views of a clip.

    student: logits [V, B, K]. teacher: probabilities [G, B, K].
    same_views: the student's views are the teacher's own; a view is then not compared with itself.
    """
    log_p = F.log_softmax(student.float() / temperature, -1)
    pairs = -torch.einsum("vbk,gbk->vg", log_p, teacher.float()) / student.shape[1]
    if not same_views:
        return pairs.mean()
    views = len(student)
    if views < 2 or len(teacher) != views:
        raise ConfigError(f"{views} student and {len(teacher)} teacher views; expected as many of each, two or more")
    return (pairs.sum() - pairs.diagonal().sum()) / (views * (views - 1))


@full_precision
def ibot_loss(student: Tensor, teacher: Tensor, weights: Tensor, crops: int, temperature: float) -> Tensor:
    """Cross-entropy of masked patches.

    student: logits [N, K] of the masked patches of all crops. teacher: probabilities [N, K] of the same places, seen.
    weights: [N], one over the number of masked patches of the crop, so that every masked crop counts alike.
    crops: how many there are, masked or not.
    """
    log_p = F.log_softmax(student.float() / temperature, -1)
    return -((teacher.float() * log_p).sum(-1) * weights).sum() / crops


@full_precision
def koleo_loss(features: Tensor) -> Tensor:
    """-mean log distance to the nearest other sample, on the unit sphere: features [N, D] spread out evenly.

    0 for a single sample, which has no neighbour.
    """
    if len(features) < 2:
        return features.float().sum() * 0.0
    x = F.normalize(features.float(), dim=-1)
    with torch.no_grad():
        nearest = (x @ x.T).fill_diagonal_(-2.0).argmax(1)
    return -((x - x[nearest]).norm(dim=-1) + 1e-8).log().mean()


@full_precision
def gram_loss(student: Tensor, anchor: Tensor) -> Tensor:
    """Mean squared difference of the cosine similarities between the patches of a frame.

    student, anchor: patches [..., P, D] of the same frames; the leading dimensions are frames. Blind to a rotation of
    the feature space: the student may move on, what looks alike stays alike.
    """
    x, y = F.normalize(student.float(), dim=-1), F.normalize(anchor.float(), dim=-1)
    return F.mse_loss(x @ x.transpose(-1, -2), y @ y.transpose(-1, -2))
