# SPDX-License-Identifier: Apache-2.0
"""Reductions for losses with missing labels: never NaN, and a clip without labels pulls at nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` (bool, broadcast to values) holds: a scalar; 0 and no gradient for an empty mask.

    Values outside the mask may be anything, NaN too. Their gradient is 0, provided that they were computed from finite
    numbers: 0 * NaN is NaN in a backward pass, so labels are filled with `fill` *before* any arithmetic.
    No synchronisation with the device.
    """
    mask = mask.expand_as(values)
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)


def fill(labels: Tensor, mask: Tensor, value: float) -> Tensor:
    """`labels` where `mask` holds, `value` elsewhere."""
    return torch.where(mask, labels, torch.full_like(labels, value))


def confident(error: Tensor, raw_confidence: Tensor, alpha: float, limit: float = 6.0) -> Tensor:
    """c * error - alpha * log c with c = 1 + exp(raw), elementwise (Kendall and Gal 2017; this form: DUSt3R, VGGT).

    At a fixed error e the best c is max(1, alpha / e): the network may call a pixel sure only where it is right.
    raw is clamped to `limit` from above: without a bound a perfect pixel drives the loss to minus infinity.
    """
    log_c = torch.nn.functional.softplus(raw_confidence.clamp(max=limit))
    return log_c.exp() * error - alpha * log_c
