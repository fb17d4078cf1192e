# SPDX-License-Identifier: Apache-2.0
"""Rendered scenes with answers, from any live source that knows what it shows (`omnistream_training.data.live`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnistream.errors import ConfigError
from omnistream_training.data.live import open_renderer, seed_of
from omnistream_training.data.source import HELD_OUT

FIRST_NUMBER = HELD_OUT + (1 << 40)
"""Clip number of the first scene: beyond those of training and of its held-out clips."""
WANT = ("rgb", "depth", "ids", "things")
BATCH = 16
MIN_PIXELS = 0.002
"""Share of the picture that a thing must cover to be asked about."""


@dataclass(frozen=True)
class Seen:
    """A thing in the last picture of a scene."""

    id: int
    centre: tuple[float, float]
    """(x, y) of its visible pixels' mean, in picture widths and heights: 0 to 1."""
    place: tuple[float, float, float]
    """Mean of its visible surface in the camera's frame, m: x right, y down, z away."""
    share: float
    """Of the picture that it covers."""
    colour: str | None
    moves: bool


@dataclass(frozen=True)
class ProbeScenes:
    """S scenes of T pictures; the questions are about the last one."""

    images: NDArray[np.uint8]
    """[S, T, H, W, 3]"""
    ids: NDArray[np.int32]
    """[S, H, W] of the last picture."""
    seen: tuple[tuple[Seen, ...], ...]
    """Per scene, the largest first."""
    times: NDArray[np.float64]
    """[T] in frames at the nominal rate."""
    description: str


def render_scenes(
    live: str,
    options: Mapping[str, Any],
    *,
    scenes: int,
    frames: int,
    size: tuple[int, int],
    rate: float,
    nominal_rate: float = 30.0,
    tick: Callable[[], None] = lambda: None,
) -> ProbeScenes:
    """Clips that no training run and no evaluation while training has seen; `tick` is called after each.

    Raises ConfigError for an unknown source, or one that does not say what it shows.
    """
    renderer = open_renderer(live, options)
    images, ids, seen = [], [], []
    for first in range(0, scenes, BATCH):
        numbers = range(first, min(first + BATCH, scenes))
        try:
            clips = renderer.clips(
                [seed_of(FIRST_NUMBER + n) for n in numbers],
                frames=frames,
                size=size,
                rate=rate,
                device="cpu",
                want=WANT,  # type: ignore[call-arg]  # beyond what training needs of a renderer
            )
            things, last = clips.things, clips.ids[:, -1]
        except (TypeError, AttributeError) as error:
            raise ConfigError(
                f"live source {live!r} does not say what it shows ({error}); a probe asks it for {', '.join(WANT)}"
            ) from error
        images.append(clips.rgb.cpu().numpy())
        ids.append(last.cpu().numpy().astype(np.int32))
        for i in range(len(numbers)):
            seen.append(_seen(ids[-1][i], clips.depth[i, -1].cpu(), clips.K[i].cpu(), things[i]))
            tick()
    return ProbeScenes(
        images=np.concatenate(images),
        ids=np.concatenate(ids),
        seen=tuple(seen),
        times=np.arange(frames, dtype=np.float64) * (nominal_rate / rate),
        description=f"live {live} {dict(options) or ''}".rstrip() + f", {scenes} scenes of {frames} pictures",
    )


def _seen(ids: NDArray[np.int32], depth: Tensor, K: Tensor, things: Sequence[Any]) -> tuple[Seen, ...]:
    height, width = ids.shape
    v, u = np.mgrid[:height, :width]
    z = depth.double().numpy()
    rays = np.stack([(u - float(K[0, 2])) / float(K[0, 0]), (v - float(K[1, 2])) / float(K[1, 1]), np.ones_like(z)], -1)
    found = []
    for thing in things:
        mask = (ids == thing.id) & np.isfinite(z)
        share = float(mask.mean())
        if share < MIN_PIXELS:
            continue
        place = (rays[mask] * z[mask][:, None]).mean(0)
        centre = ((float(u[mask].mean()) + 0.5) / width, (float(v[mask].mean()) + 0.5) / height)
        found.append(Seen(int(thing.id), centre, tuple(place.tolist()), share, thing.colour, bool(thing.moves)))
    return tuple(sorted(found, key=lambda one: -one.share))


def as_input(images: NDArray[np.uint8]) -> Tensor:
    """[..., H, W, 3] uint8 -> [..., 3, H, W] float32 in 0 .. 1."""
    return torch.from_numpy(images).movedim(-1, -3).float() / 255
