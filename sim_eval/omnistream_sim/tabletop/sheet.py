# SPDX-License-Identifier: Apache-2.0
"""A picture of the tabletop: what the free camera and those of the environment see."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from omnistream_sim.worlds.clips import clip_seed
from omnistream_sim.worlds.sheet import depth_colours

from .clips import Tabletop
from .config import TabletopConfig
from .env import TabletopEnv


def contact_sheet(
    scene: str, *, clips: int = 8, seed: int = 0, size: int = 128, frames: int = 64, rate: float = 30.0
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """A row per clip: first, middle and last picture and the last depth of a free camera, then an episode's start, as
    the static and the gripper's camera see it.

    Returns the sheet [H, W, 3] and the texts of the clips.
    """
    free = Tabletop(TabletopConfig(scene=scene))
    env = TabletopEnv(scene=scene, static_size=(size, size), gripper_size=(size, size))
    rows: list[NDArray[np.uint8]] = []
    texts: list[str] = []
    for number in range(clips):
        clip = free.clips(
            [clip_seed(seed, number)], frames=frames, size=(size, size), rate=rate, want=("rgb", "depth", "text")
        )
        assert clip.rgb is not None and clip.depth is not None
        observation, _ = env.reset(seed=number)
        parts = [clip.rgb[0, t].numpy() for t in (0, frames // 2, frames - 1)]
        parts.append((255 * depth_colours(clip.depth[0, -1])).to(torch.uint8).numpy())
        parts += [observation["rgb_static"], observation["rgb_gripper"]]
        rows.append(np.concatenate(parts, 1))
        texts += clip.text
    free.close()
    env.close()
    return np.concatenate(rows, 0), tuple(texts)
