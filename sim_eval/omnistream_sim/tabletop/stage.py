# SPDX-License-Identifier: Apache-2.0
"""The scene of a seed's clip, to be rendered frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .camera import intrinsics
from .config import TabletopConfig
from .layout import Layout, random_layout
from .physics import Client
from .scene import Scene
from .story import Story, draw_story

SHIPPED_FOV = 60.0
"""Degrees, horizontal; the focal length varies by +-10 %."""
RANDOM_FOV = (45.0, 85.0)


@dataclass(frozen=True)
class Stage:
    """A scene, and what happens in it. The next scene in the same client tears it down."""

    scene: Scene
    story: Story
    K: NDArray[np.float64]
    """[3, 3]."""
    size: tuple[int, int]
    """(height, width)."""

    def render(self, frame: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """RGB [H, W, 3] and depth [H, W] of a frame of the story, as `Scene.render`."""
        self.story.show(self.scene, frame)
        return self.scene.render(self.story.T_world_camera[frame], self.K, self.size)


def draw_stage(
    client: Client, config: TabletopConfig, seed: int, *, frames: int, size: tuple[int, int], rate: float
) -> Stage:
    """Draw `frames` pictures' worth of a seed's clip, at `rate` Hz. The same arguments give the same clip."""
    looks, events = (np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(2))
    random = config.scene == "random"
    layout = random_layout(looks) if random else Layout()
    K = intrinsics(size, looks.uniform(*RANDOM_FOV) if random else SHIPPED_FOV)
    if not random:
        K[[0, 1], [0, 1]] *= looks.uniform(0.9, 1.1)
    scene = Scene(client, layout, arm=bool(looks.random() < config.arm))
    if looks.random() < config.shadow:
        scene.light = replace(layout.light, shadow=True)
    return Stage(scene, draw_story(config, scene, events, frames, rate), K, size)
