# SPDX-License-Identifier: Apache-2.0
"""What a probe may look at: features of a network, or pixels. Patch questions get the patch's place in the picture too.

Every input answers `picture()` [S, d] and `patches(scene, patch)` [N, d].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from omnistream.model.omnistream import OmniStream
from omnistream.weights.default import random_model
from omnistream_training.building import initialise
from omnistream_training.evaluation.probe.scenes import ProbeScenes, as_input

Matrix = NDArray[np.float32]
Numbers = NDArray[np.int64]
BATCH = 8


class ProbeInput(Protocol):
    """One kind of input."""

    name: str

    def picture(self) -> Matrix: ...

    def patches(self, scene: Numbers, patch: Numbers) -> Matrix: ...


class PlaceOnly:
    """Nothing but where the patch is: what the answers alone are worth."""

    def __init__(self, scenes: int, grid: tuple[int, int]) -> None:
        self.name, self._scenes, self._grid = "no picture", scenes, grid

    def picture(self) -> Matrix:
        return np.zeros((self._scenes, 1), np.float32)  # a regression on nothing answers with the mean

    def patches(self, scene: Numbers, patch: Numbers) -> Matrix:
        return place_of(patch, self._grid)


class Features:
    """Final patch features of the last picture, after a stream over the earlier ones."""

    def __init__(self, name: str, values: Matrix, grid: tuple[int, int]) -> None:
        """values [S, h*w, D]"""
        self.name, self._values, self._grid = name, values, grid

    def picture(self) -> Matrix:
        return self._values.reshape(len(self._values), -1)

    def patches(self, scene: Numbers, patch: Numbers) -> Matrix:
        return np.concatenate([self._values[scene, patch], place_of(patch, self._grid)], 1)


class Pixels:
    """The last picture, whole (`coarse` None) or at `coarse` x `coarse`; patches with their pixels in earlier ones.

    Coarse patches are three patches wide, at a quarter of the resolution: less detail, more surroundings.
    """

    def __init__(self, scenes: ProbeScenes, patch_size: int, coarse: int | None) -> None:
        self.name = "pixels" if coarse is None else "pixels, coarse"
        self._scenes, self._size, self._coarse = scenes, patch_size, coarse
        height, width = scenes.ids.shape[1:]
        self._grid = (height // patch_size, width // patch_size)

    def picture(self) -> Matrix:
        last = as_input(self._scenes.images[:, -1])
        if self._coarse is not None:
            last = F.interpolate(last, size=(self._coarse, self._coarse), mode="area")
        return last.flatten(1).numpy()

    def patches(self, scene: Numbers, patch: Numbers) -> Matrix:
        margin, factor = (0, 1) if self._coarse is None else (self._size, 4)
        rows = [self._cut(int(s), int(p), margin, factor) for s, p in zip(scene, patch, strict=True)]
        return np.concatenate([np.stack(rows), place_of(patch, self._grid)], 1)

    def _cut(self, scene: int, patch: int, margin: int, factor: int) -> Matrix:
        """The patch in every picture: the last at full resolution, earlier ones at half of it."""
        top, left = (n * self._size - margin for n in divmod(patch, self._grid[1]))
        side = self._size + 2 * margin
        clip = as_input(self._scenes.images[scene])
        clip = F.pad(clip, (margin,) * 4, mode="replicate") if margin else clip
        window = clip[..., top + margin : top + margin + side, left + margin : left + margin + side]
        last = F.avg_pool2d(window[-1:], factor).flatten()
        earlier = F.avg_pool2d(window[:-1], 2 * factor).flatten()
        return torch.cat([last, earlier]).numpy()


def network_features(
    name: str, model: OmniStream, scenes: ProbeScenes, policy: str, tick: Callable[[], None] = lambda: None
) -> Features:
    """Features of a model in eval mode, float32; by the invariant those of a stream under `policy`."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.config.mean, model.config.std))
    found = []
    with torch.inference_mode():
        for first in range(0, len(scenes.images), BATCH):
            clip = (as_input(scenes.images[first : first + BATCH]) - mean) / std
            out = model.backbone(clip, policy, scenes.times, model.config.camera_token, keep_hidden=())
            found.append(out.patches[:, -1].float().numpy())
            for _ in range(len(clip)):
                tick()
    return Features(name, np.concatenate(found), out.grid)


def untrained(model: OmniStream, seed: int) -> OmniStream:
    """The same network as training from nothing would begin with it."""
    fresh = random_model(model.config, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialise(fresh.backbone, None)
    return fresh


def place_of(patch: Numbers, grid: tuple[int, int]) -> Matrix:
    """[N, 5]: x, y, x^2, xy, y^2 of the patch, -1 to 1."""
    y = 2 * (patch // grid[1] + 0.5) / grid[0] - 1
    x = 2 * (patch % grid[1] + 0.5) / grid[1] - 1
    return np.stack([x, y, x * x, x * y, y * y], 1).astype(np.float32)
