# SPDX-License-Identifier: Apache-2.0
"""Depth: L1 weighted by a learned confidence, and a multi-scale gradient term that sharpens edges and flattens planes.

L_depth = c |D' - D| - alpha log c + |grad D' - grad D|    (paper section 3.3, after VGGT; scales after MegaDepth)

Both terms work on log depth by default: an error then means the same relative error at 0.3 m and at 10 m, and the
network's raw output is log depth already. `space="linear"` is the paper's form; docs/training_log.md compares them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from omnistream.heads.heads import LOG_DEPTH_LIMIT
from omnistream_training.losses.reduce import confident, fill, masked_mean

Space = Literal["log", "linear"]
GRADIENT_SCALES = (1, 2, 4, 8)
"""Pixel strides of the gradient term (Li and Snavely 2018; VGGT uses the same four)."""


def depth_loss(
    log_depth: Tensor,
    raw_confidence: Tensor,
    depth: Tensor,
    valid: Tensor,
    *,
    space: Space = "log",
    alpha: float = 0.2,
    gradient: float = 1.0,
    common: float | None = None,
) -> dict[str, Tensor]:
    """Terms `depth` (confidence-weighted error) and `depth_gradient` (already times `gradient`), scalars.

    log_depth, raw_confidence: [B, ..., H, W] raw head outputs. depth: [B, ..., H, W], positive where `valid` (bool).
    common: None: errors count as they are. Else each clip's mean error is taken out of them and costs this much by
        itself, as term `depth_common`. In log space that is the clip's scale, which a picture through an unknown lens
        hardly tells, while its shape is plain to see (compare Eigen et al. 2014, whose loss halves the mean).
    """
    error = in_space(log_depth, space) - _target(depth, valid, space)
    terms: dict[str, Tensor] = {}
    if common is not None:
        shared = clip_mean(error, valid)
        terms["depth_common"] = common * shared.abs().mean()
        error = error - shared.reshape(-1, *(1,) * (error.ndim - 1))
    terms["depth"] = masked_mean(confident(error.abs(), raw_confidence, alpha), valid)
    if gradient:
        terms["depth_gradient"] = gradient * gradient_loss(error, valid)
    return terms


def clip_mean(error: Tensor, valid: Tensor) -> Tensor:
    """[B] mean of `error` [B, ...] over each clip's valid pixels; 0 for a clip without any."""
    count = valid.flatten(1).sum(1).clamp_min(1)
    return torch.where(valid, error, 0).flatten(1).sum(1) / count


def gradient_loss(error: Tensor, valid: Tensor) -> Tensor:
    """Mean over scales of the L1 norm of the horizontal and vertical differences of `error` [..., H, W].

    |grad D' - grad D| = |grad (D' - D)|; a constant offset of the depth costs nothing here. Pairs with an invalid end
    do not count; a scale coarser than the image is left out.
    """
    losses = []
    for stride in GRADIENT_SCALES:
        e, v = error[..., ::stride, ::stride], valid[..., ::stride, ::stride]
        if min(e.shape[-2:]) < 2:
            break
        losses.append(masked_mean((e[..., 1:] - e[..., :-1]).abs(), v[..., 1:] & v[..., :-1]))
        losses.append(masked_mean((e[..., 1:, :] - e[..., :-1, :]).abs(), v[..., 1:, :] & v[..., :-1, :]))
    return 2 * torch.stack(losses).mean() if losses else error.sum() * 0


def in_space(log_depth: Tensor, space: Space) -> Tensor:
    """The raw head output in the space of the loss."""
    clamped = log_depth.clamp(-LOG_DEPTH_LIMIT, LOG_DEPTH_LIMIT)
    return clamped if space == "log" else clamped.exp()


def _target(depth: Tensor, valid: Tensor, space: Space) -> Tensor:
    known = fill(depth, valid, 1.0)
    return known.log() if space == "log" else known
