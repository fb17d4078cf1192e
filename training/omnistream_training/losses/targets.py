# SPDX-License-Identifier: Apache-2.0
"""What the heads should have said about a batch: everything in the camera of the clip's first frame, or in the frame of
a place that clips share, in one unit.

Shapes: B clips, T frames, H x W pixels, h x w = H/2 x W/2 rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from omnistream_training.data.batch import ClipBatch
from omnistream_training.losses.reduce import fill

Unit = Literal["metric", "relative"]
MIN_DEPTH = 0.05
"""Metres. Nearer than this no depth camera measures, and the logarithm runs away."""


@dataclass(frozen=True)
class Targets:
    """Labels with their masks. Where a mask is False the label is finite but means nothing."""

    depth: Tensor
    """[B, T, H, W] along the optical axis."""
    depth_valid: Tensor
    """[B, T, H, W] bool."""
    rays: Tensor
    """[B, T, h, w, 6] origin and direction, in the clip's place if it is `placed`, else in its first camera."""
    translation: Tensor
    """[B, T, 3] camera in the place or the first camera."""
    quaternion: Tensor
    """[B, T, 4] x y z w, w >= 0: place or first camera from this camera."""
    fov: Tensor
    """[B, T, 2] vertical, horizontal; rad."""
    posed: Tensor
    """[B, T] bool: pose known."""
    calibrated: Tensor
    """[B, T] bool: intrinsics known."""
    scale: Tensor
    """[B] metres per unit of depth and translation; 1 for metric targets."""
    placed: Tensor
    """[B, T] bool: rays and poses are in the frame of the clip's place, see `ClipBatch.place`."""


def make_targets(batch: ClipBatch, unit: Unit = "metric", max_depth: float = 100.0) -> Targets:
    """Labels of `batch`; NaN depth, pose or intrinsics become masked.

    unit: `metric`, or `relative`: depth and translation divided by the mean distance of the first frame's points from
        its camera. DUSt3R, VGGT and DA3 average over the whole clip; a stream cannot know what it has not seen, and a
        unit fixed by frame 0 stays the same however long the stream gets. Without depth in frame 0 a clip is masked.
    max_depth: metres; beyond it depth is not supervised.
    """
    depth, device = batch.depth.float(), batch.depth.device
    valid = depth.isfinite() & (depth > MIN_DEPTH) & (depth < max_depth)
    poses, posed = relative_poses(batch.T_world_camera.to(device, torch.float32))
    K, calibrated = _known_K(batch.K.to(device, torch.float32), posed.shape[1])
    scale = torch.ones(len(depth), device=device)
    if unit == "relative":
        scale, measured = _first_frame_scale(fill(depth, valid, 1.0), valid, K, calibrated)
        valid = valid & measured[:, None, None, None]
        posed = posed & measured[:, None]
    size = (depth.shape[-2], depth.shape[-1])
    placed = posed & (batch.place.to(device)[:, None] if unit == "metric" else torch.zeros_like(posed))
    poses = torch.where(placed[..., None, None], batch.T_world_camera.to(device, torch.float32), poses)
    translation = poses[..., :3, 3] / scale[:, None, None]
    directions = _directions(K, (size[0] // 2, size[1] // 2))  # [B, h, w, 3]
    turned = torch.einsum("btij,bhwj->bthwi", poses[..., :3, :3], directions)
    origins = translation[:, :, None, None].expand_as(turned)
    focal = torch.stack([K[:, 1, 1], K[:, 0, 0]], -1)
    fov = 2 * torch.atan(torch.tensor(size, device=device) / (2 * focal))
    return Targets(
        depth=fill(depth, valid, 1.0) / scale[:, None, None, None],
        depth_valid=valid,
        rays=torch.cat([origins, turned], -1),
        translation=translation,
        quaternion=quaternion_from_matrix(poses[..., :3, :3]),
        fov=fov[:, None].expand(-1, posed.shape[1], -1),
        posed=posed,
        calibrated=calibrated,
        scale=scale,
        placed=placed,
    )


def relative_poses(T_world_camera: Tensor) -> tuple[Tensor, Tensor]:
    """[B, T, 4, 4], NaN where unknown -> T_first_camera, identity where unknown, and the mask [B, T].

    Without the first frame's pose nothing of a clip is known.
    """
    known = T_world_camera.isfinite().flatten(2).all(-1)
    known = known & known[:, :1]
    eye = torch.eye(4, dtype=T_world_camera.dtype, device=T_world_camera.device)
    poses = torch.where(known[..., None, None], T_world_camera, eye)
    first = poses[:, :1]
    turn = first[..., :3, :3].transpose(-1, -2)
    moved = (turn @ (poses[..., :3, 3:] - first[..., :3, 3:])).squeeze(-1)
    out = eye.repeat(*poses.shape[:2], 1, 1)
    out[..., :3, :3] = turn @ poses[..., :3, :3]
    out[..., :3, 3] = moved
    return torch.where(known[..., None, None], out, eye), known


def quaternion_from_matrix(matrix: Tensor) -> Tensor:
    """[..., 3, 3] rotations -> [..., 4] x y z w with w >= 0 (Shepperd 1978, without branches)."""
    m = matrix
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    rows = [
        [1 + xx - yy - zz, xy, xz, wx],
        [xy, 1 - xx + yy - zz, yz, wy],
        [xz, yz, 1 - xx - yy + zz, wz],
        [wx, wy, wz, 1 + xx + yy + zz],
    ]
    products = torch.stack([torch.stack(row, -1) for row in rows], -2)  # 4 * q q^T
    best = products.diagonal(dim1=-2, dim2=-1).argmax(-1)
    q = products.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    q = F.normalize(q, dim=-1)
    return torch.where(q[..., 3:] < 0, -q, q)


def _known_K(K: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """K [B, 3, 3] with unknown ones replaced by the identity, and the mask [B, T]."""
    known = K.isfinite().flatten(1).all(-1) & (K[:, 0, 0] > 0) & (K[:, 1, 1] > 0)
    eye = torch.eye(3, dtype=K.dtype, device=K.device)
    return torch.where(known[:, None, None], K, eye), known[:, None].expand(-1, frames)


def _directions(K: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, h, w, 3]: K^-1 (u, v, 1) at the centres of a half-resolution grid: pixel i there is 2 i + 0.5 here."""
    h, w = size
    u = 2 * torch.arange(w, dtype=K.dtype, device=K.device) + 0.5
    v = 2 * torch.arange(h, dtype=K.dtype, device=K.device) + 0.5
    x = (u - K[:, 0, 2, None]) / K[:, 0, 0, None]
    y = (v - K[:, 1, 2, None]) / K[:, 1, 1, None]
    x, y = x[:, None].expand(-1, h, -1), y[:, :, None].expand(-1, -1, w)
    return torch.stack([x, y, torch.ones_like(x)], -1)


def _first_frame_scale(depth: Tensor, valid: Tensor, K: Tensor, calibrated: Tensor) -> tuple[Tensor, Tensor]:
    """Mean distance of frame 0's points [B], and whether there were any [B]."""
    rays = _directions(K, (depth.shape[-2] // 2, depth.shape[-1] // 2)).norm(dim=-1)
    z, ok = depth[:, 0, ::2, ::2], valid[:, 0, ::2, ::2] & calibrated[:, :1, None]
    count = ok.sum((1, 2))
    mean = torch.where(ok, z * rays[:, : z.shape[1], : z.shape[2]], 0).sum((1, 2)) / count.clamp_min(1)
    return torch.where(count > 0, mean, 1.0), count > 0
