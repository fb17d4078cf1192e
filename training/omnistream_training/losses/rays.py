# SPDX-License-Identifier: Apache-2.0
"""Rays and the points that they span: R = (origin, direction) in the world, P = origin + depth * direction.

L_ray = |R' - R|, L_points = |P' - P|    (paper section 3.3; the ray map is Depth Anything 3's: directions are R K^-1 p,
not normalised, so that the depth along z scales them)
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from omnistream_training.losses.reduce import confident, fill, masked_mean


def ray_loss(rays: Tensor, raw_confidence: Tensor, target: Tensor, known: Tensor, *, alpha: float = 0.2) -> Tensor:
    """Confidence-weighted L1 of the six numbers of a ray, summed; mean over the pixels of frames that are `known`.

    rays, target: [B, T, h, w, 6]; raw_confidence: [B, T, h, w]; known: [B, T] bool, frames with pose and intrinsics.
    """
    mask = known[:, :, None, None]
    error = (rays - fill(target, mask[..., None], 0.0)).abs().sum(-1)
    return masked_mean(confident(error, raw_confidence, alpha), mask)


def point_loss(rays: Tensor, depth: Tensor, target_rays: Tensor, target_depth: Tensor, valid: Tensor) -> Tensor:
    """Mean L1 distance of the points at ray resolution, divided by their target depth.

    Relative, because an error of 10 cm is none on a far wall and a miss on a table; it keeps this term in step with the
    others when a scene is large.

    rays, target_rays: [B, T, h, w, 6]; depth, target_depth, valid (bool): [B, T, h, w], see `halve`.
    """
    z = fill(target_depth, valid, 1.0)
    target = fill(target_rays, valid[..., None], 0.0)
    predicted = rays[..., :3] + depth[..., None] * rays[..., 3:]
    wanted = target[..., :3] + z[..., None] * target[..., 3:]
    return masked_mean((predicted - wanted).abs().sum(-1) / z, valid)


def halve(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Depth [B, T, H, W] at the resolution of the rays [B, T, H/2, W/2]: means of 2 x 2; valid where all four are.

    Prediction and label go through the same function, so that a perfect prediction has exactly no error.
    """
    pooled = F.avg_pool2d(fill(depth, valid, 0.0), 2)
    complete = F.avg_pool2d(valid.to(depth.dtype), 2) > 0.99
    return pooled, complete
