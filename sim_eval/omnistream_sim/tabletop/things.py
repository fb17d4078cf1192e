# SPDX-License-Identifier: Apache-2.0
"""What a picture of the tabletop shows: an id per pixel, and the things that ids stand for, as `omnistream-eval probe`
asks for them (`worlds.things`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnistream_sim.worlds.things import Thing

from .camera import picture
from .furniture import link_index
from .layout import BLOCKS
from .scene import Scene
from .story import Story

_LINKS = 64
"""Ids are body + 1 + 64 (link + 1) of a piece of furniture, body + 1 of everything else; 0: nothing."""
_PARTS = ("drawer", "slider", "button")
_STILL = 0.02
"""Radians that the arm's joints may differ by in a clip in which it does not move."""


def show_ids(scene: Scene, T_world_camera: NDArray, K: NDArray, size: tuple[int, int]) -> NDArray[np.int32]:
    """[H, W] ids of what each pixel shows."""
    flags = scene.client.ER_SEGMENTATION_MASK_OBJECT_AND_LINKINDEX
    mask = picture(scene.client, T_world_camera, K, size, scene.light, flags)[4]
    values = np.asarray(mask, np.int64).reshape(size)
    body, link = values & 0xFFFFFF, values >> 24  # link + 1, in the upper byte
    ids = np.where(body == scene.table, body + 1 + _LINKS * link, body + 1)
    return np.where(values < 0, 0, ids).astype(np.int32)


def things_of(scene: Scene, story: Story) -> tuple[Thing, ...]:
    """Blocks, further things, the furniture's parts and the arm. Room and table are none."""
    moves = story.joints is not None and bool(np.ptp(story.joints, axis=0).max() > _STILL)
    found = [Thing(scene.blocks[name] + 1, f"{name} block", name, moves and name == story.carried) for name in BLOCKS]
    found += [Thing(body + 1, "thing", None, False) for body in scene.extras]
    found += [Thing(scene.table + 1 + _LINKS * (link_index(part) + 1), part, None, False) for part in _PARTS]
    if scene.arm is not None:
        found.append(Thing(scene.arm + 1, "Panda", None, moves))
    return tuple(found)
