# SPDX-License-Identifier: Apache-2.0
"""The result of one step, as numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from omnistream.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Outputs of one frame. h, w: network resolution; what was not wanted, or the checkpoint does not have, is None."""

    index: int
    """Frame number since the last reset."""
    stamp: float | None
    """The image's stamp, s."""
    time: float
    """Logical time in frames: the index, or the stamp difference over the nominal period."""
    network_size: tuple[int, int]
    """(h, w)."""
    depth: NDArray[np.float32] | None
    """[h, w] along the optical axis, in the unit that `scale` states; positive."""
    depth_confidence: NDArray[np.float32] | None
    """[h, w], 1 (none) upwards."""
    rays: NDArray[np.float32] | None
    """[h/2, w/2, 6]: origin and direction in the world; point = origin + depth * direction."""
    ray_confidence: NDArray[np.float32] | None
    """[h/2, w/2], 1 upwards."""
    T_world_camera: NDArray[np.float64] | None
    """[4, 4]: camera in the world, which is the optical frame of the stream's frame 0."""
    K: NDArray[np.float64] | None
    """[3, 3] intrinsics at network resolution: the network's guess, or the known ones that it was told (`lens`)."""
    features: NDArray[np.float32]
    """[h/16, w/16, D] final patch tokens."""
    cls: NDArray[np.float32]
    """[D] final CLS token."""
    scale: str
    """`metric` (metres), `relative` (one unknown factor per stream) or `none` (untrained: the numbers mean nothing)."""
    taps: tuple[NDArray[np.float32], ...] = ()
    """If wanted: [h/16, w/16, D] patch tokens of the blocks that the heads tap, shallow to deep, before the final norm.
    Where things are, and their colours, is clearest in the shallow ones."""
    timings: dict[str, float] = field(default_factory=dict)
    """Milliseconds per stage: preprocess, backbone, heads."""

    def points(self) -> NDArray[np.float32]:
        """[h, w, 3] points in the world, origin + depth * direction, rays interpolated to the depth's resolution.

        ConfigError if depth or rays were not wanted or do not exist.
        """
        if self.depth is None or self.rays is None:
            raise ConfigError("points need depth and rays; ask for both in `want`")
        rays = torch.from_numpy(self.rays).movedim(-1, 0)[None]
        full = (
            F.interpolate(rays, size=self.depth.shape, mode="bilinear", align_corners=False)[0].movedim(0, -1).numpy()
        )
        return full[..., :3] + self.depth[..., None] * full[..., 3:]
