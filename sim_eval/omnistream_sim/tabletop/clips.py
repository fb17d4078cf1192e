# SPDX-License-Identifier: Apache-2.0
"""The tabletop as an endless source of clips, under the name `tabletop` for any program that looks up the entry points
of the group `omnistream.clips`; see `omnistream_sim.worlds.clips`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from omnistream_sim.worlds.rendering import Clip
from omnistream_sim.worlds.things import Thing

from .config import TabletopConfig
from .physics import Client
from .stage import draw_stage
from .things import show_ids, things_of

RGBD = ("rgb", "depth")


class Tabletop:
    """Renders the clip of any seed, in a physics client of its own."""

    def __init__(self, config: TabletopConfig | None = None) -> None:
        """Raises PhysicsMissing where PyBullet is not installed."""
        self.config = config or TabletopConfig()
        self._client = Client()

    def clips(
        self,
        seeds: Sequence[int],
        *,
        frames: int,
        size: tuple[int, int],
        rate: float,
        device: str = "cpu",
        want: Iterable[str] = RGBD,
    ) -> Clip:
        """A clip of `frames` pictures of `size` (height, width), taken at `rate` Hz, for every seed (0 .. 2^63 - 1).

        The same arguments give the same clips, whatever else was rendered before. `want` may hold rgb, depth and text,
        and ids and things, which cost a second rendering.

        Raises:
            ValueError: an argument out of its range.
        """
        wanted = frozenset(want)
        unknown = sorted(wanted - {"rgb", "depth", "text", "ids", "things"})
        if unknown:
            raise ValueError(f"want has {unknown}; expected some of rgb, depth, text, ids, things")
        if not seeds or frames < 1 or not rate > 0 or min(seeds) < 0:
            raise ValueError(f"{len(seeds)} seeds, {frames} frames, rate {rate}; expected some >= 0, >= 1, above 0")
        shape = (len(seeds), frames, *size)
        rgb, depth = np.empty((*shape, 3), np.uint8), np.empty(shape, np.float32)
        poses, K = np.empty((*shape[:2], 4, 4)), np.empty((len(seeds), 3, 3))
        ids = np.empty(shape, np.int32) if "ids" in wanted else None
        texts, things = [], []
        for i, seed in enumerate(seeds):
            poses[i], K[i], text, shown = self._clip(int(seed), rate, rgb[i], depth[i], None if ids is None else ids[i])
            texts.append(text)
            things.append(shown)
        return Clip(
            T_world_camera=torch.from_numpy(poses).float().to(device),
            K=torch.from_numpy(K).float().to(device),
            stamps=torch.arange(frames, dtype=torch.float64) / rate,
            rgb=torch.from_numpy(rgb).to(device),
            depth=torch.from_numpy(depth).to(device),
            text=tuple(texts),
            ids=None if ids is None else torch.from_numpy(ids).to(device),
            things=tuple(things) if "things" in wanted else (),
            seeds=tuple(int(seed) for seed in seeds),
        )

    def _clip(
        self, seed: int, rate: float, rgb: np.ndarray, depth: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, str, tuple[Thing, ...]]:
        """Fill rgb [T, H, W, 3], depth and, if given, ids [T, H, W]; poses [T, 4, 4], K [3, 3], text and things."""
        frames, height, width = depth.shape
        stage = draw_stage(self._client, self.config, seed, frames=frames, size=(height, width), rate=rate)
        poses = stage.story.T_world_camera
        for t in range(frames):
            rgb[t], depth[t] = stage.render(t)
            if ids is not None:
                ids[t] = show_ids(stage.scene, poses[t], stage.K, stage.size)
        return poses, stage.K, stage.story.text, things_of(stage.scene, stage.story)

    def close(self) -> None:
        """Free the physics client."""
        self._client.close()


def open_clips(**options: object) -> Tabletop:
    """What the entry point `tabletop` names. options: fields of `TabletopConfig`, as values or as text.

    Raises:
        ValueError: an unknown field or a bad value.
        PhysicsMissing: PyBullet is not installed.
    """
    return Tabletop(TabletopConfig.from_options(options))
