# SPDX-License-Identifier: Apache-2.0
"""Worlds: a batched analytic ray caster. Random scenes in, pictures and exact geometry out; torch and nothing else.

    from omnistream_sim.worlds import WorldConfig, WorldStream

    for clip in WorldStream(WorldConfig(), seed=7, batch=16, frames=8, size=(128, 128)):
        clip.rgb, clip.depth, clip.T_world_camera, clip.K       # [B, T, ...], never seen before

`sample_scenes` and `render` are the two halves; `SceneBuilder` puts a scene together by hand.
"""

from .builder import SceneBuilder, look_at
from .clips import Worlds, WorldStream, clip_seed
from .config import WorldConfig
from .materials import Material
from .quality import QUALITIES, Quality
from .rendering import OUTPUTS, Clip, render
from .sample import sample_scenes
from .scene import Motion, Scenes

__all__ = [
    "OUTPUTS",
    "QUALITIES",
    "Clip",
    "Material",
    "Motion",
    "Quality",
    "SceneBuilder",
    "Scenes",
    "WorldConfig",
    "WorldStream",
    "Worlds",
    "clip_seed",
    "look_at",
    "render",
    "sample_scenes",
]
