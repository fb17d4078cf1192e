# SPDX-License-Identifier: Apache-2.0
"""Camera: where the camera is in the stream's first frame, how it is turned, and its field of view.

L_camera = |t' - t| + |q' - q| + 0.5 |fov' - fov|    (paper section 3.3; weights and L1 after VGGT, where L1 was
steadier than Huber)

Poses of clips that share a place are compared in its frame. The network may choose the frame of its poses
(`omnistream.heads.camera`), but from relative poses alone it does not find out that it could: as long as all its
rotations are the same, turning left on one side of a table and on the other ask for opposite corrections.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnistream.heads.camera import in_first_camera, relative_quaternion
from omnistream_training.losses.reduce import fill, masked_mean

MAX_TRANSLATION_ERROR = 100.0
"""Clamp of VGGT: one absurd label does not decide a step."""


def camera_loss(
    raw: Tensor,
    translation: Tensor,
    quaternion: Tensor,
    fov: Tensor,
    *,
    posed: Tensor,
    placed: Tensor,
    calibrated: Tensor,
    motion: float = 0.0,
) -> dict[str, Tensor]:
    """Terms `translation`, `rotation`, `fov`: L1, summed over components, mean over labelled frames. With `motion`,
    times it, the term `motion`: the translation's error without the mean one of each clip.

    The error that all frames of a clip share is larger than that in which they differ, and an absolute value's slope
    tells the larger one's sign only: how a camera moves is then learnt as a by-product, and paths come out in steps.

    raw: [B, T, 9], the camera head's output for whole clips. translation [B, T, 3], unit quaternion [B, T, 4] (x y z w,
    either sign): camera in the clip's first, or in the place where `placed`. fov [B, T, 2] (vertical, horizontal; rad).
    posed, placed, calibrated: [B, T] bool.
    """
    t, _, f = in_first_camera(raw)
    t = torch.where(placed[..., None], raw[..., :3], t)
    # Not normalised (nor is it in VGGT's loss): while rotation is still guesswork, the way to a smaller error of a
    # normalised quaternion is a huge w, and then nothing turns any more. A run of ours had 13.7 after 2,700 steps.
    q = torch.where(placed[..., None], raw[..., 3:7], relative_quaternion(raw))
    terms = {
        "translation": _translation(t, translation, posed),
        "rotation": _rotation(q, quaternion, posed),
        "fov": 0.5 * masked_mean((f - fill(fov, calibrated[..., None], 1.0)).abs().sum(-1), calibrated),
    }
    return terms | {"motion": motion * _motion(t, translation, posed)} if motion else terms


def _translation(found: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    moved = (found - fill(wanted, known[..., None], 0.0)).abs().clamp(max=MAX_TRANSLATION_ERROR)
    return masked_mean(moved.sum(-1), known)


def _motion(found: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    error = torch.where(known[..., None], found - fill(wanted, known[..., None], 0.0), 0.0)
    shared = error.sum(1, keepdim=True) / known.sum(1).clamp_min(1)[:, None, None]
    return masked_mean((error - shared).abs().clamp(max=MAX_TRANSLATION_ERROR).sum(-1), known)


def _rotation(found: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    wanted = fill(wanted, known[..., None], 0.5)
    # q and -q are one rotation: compare with the nearer one.
    same = (found.detach() * wanted).sum(-1, keepdim=True) >= 0
    return masked_mean((found - wanted * (2 * same.to(wanted.dtype) - 1)).abs().sum(-1), known)
