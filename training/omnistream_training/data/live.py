# SPDX-License-Identifier: Apache-2.0
"""A renderer as a source. Training does not import a simulator; the renderer announces itself.

A distribution that renders clips declares, in its pyproject.toml:

    [project.entry-points."omnistream.clips"]
    worlds = "package.module:function"

`function(**options)` returns an object with one method,

    clips(seeds: Sequence[int], *, frames: int, size: tuple[int, int], rate: float, device: str) -> clips

that gives, for every seed (0 .. 2^63 - 1), a clip of `frames` pictures of `size` (height, width) taken at `rate` Hz, as
an object with

    rgb [B, T, H, W, 3] uint8      depth [B, T, H, W] metres along the optical axis, NaN where there is nothing
    T_world_camera [B, T, 4, 4]    K [B, 3, 3] pixels; integer coordinates are pixel centres

on `device`, the same for the same arguments. "package.module:function" works as a name too, installed or not.

A renderer that knows what it shows lets `omnistream-eval probe` ask about it: `clips` then also takes
`want=("rgb", "depth", "ids", "things")`, and what it returns has besides

    ids [B, T, H, W] integers      which thing a pixel shows
    things                         per clip a sequence of things: walls, floor, table top and sky may be left out of it

    text                           per clip a description of its first picture, if asked for by "text" (captioning)

where a thing has `id` (as in ids), `words` ("red ball"), `colour` ("red", or None where there is not one colour) and
`moves` (whether it moves by itself during the clip).
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

from omnistream.errors import ConfigError
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.source import ClipRequest, ClipSource, frame_times

GROUP = "omnistream.clips"


class Renderer(Protocol):
    """What an entry point's function returns; see the module docstring."""

    def clips(self, seeds: Sequence[int], *, frames: int, size: tuple[int, int], rate: float, device: str) -> Any: ...


class LiveSource:
    """Clips from a renderer; every clip number has a seed of its own, so nothing is ever seen twice."""

    def __init__(self, renderer: Renderer, description: str, nominal_rate: float) -> None:
        self.description = description
        self._renderer = renderer
        self._rate = nominal_rate
        self._one_at_a_time = threading.Lock()  # a physics client is not for two threads

    def read(self, request: ClipRequest) -> ClipBatch:
        with self._one_at_a_time:
            clips = self._renderer.clips(
                [seed_of(number) for number in request.numbers],
                frames=request.frames,
                size=request.size,
                rate=self._rate / request.stride,
                device=request.device,
            )
        return ClipBatch(
            images=clips.rgb.movedim(-1, 2).float().div_(255),
            depth=clips.depth.float(),
            T_world_camera=clips.T_world_camera.float(),
            K=clips.K.float(),
            times=frame_times(len(request.numbers), request.frames, request.stride),
        )


def seed_of(number: int) -> int:
    """The seed of a clip number: splitmix64's finaliser (Steele et al. 2014), a bijection, without the sign bit.

    Consecutive numbers, and numbers 2^48 apart as training and held-out ones are, must not look alike to a generator
    that uses 32 bits of its seed, as torch's does.
    """
    mask = (1 << 64) - 1
    z = (number + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1


def open_live(name: str, options: Mapping[str, Any], nominal_rate: float) -> ClipSource:
    """The renderer of that name as a source, see `open_renderer`."""
    return LiveSource(open_renderer(name, options), f"live {name} {dict(options) or ''}".rstrip(), nominal_rate)


def open_renderer(name: str, options: Mapping[str, Any]) -> Renderer:
    """The renderer of that name. ConfigError lists what is installed, or says what the renderer objected to."""
    function = _from_path(name) if ":" in name else _from_entry_point(name)
    try:
        renderer: Renderer = function(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"live source {name!r} refused the options {dict(options)}: {error}") from error
    return renderer


def _from_entry_point(name: str) -> Any:
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"live source {name!r} is not installed; installed in {GROUP!r}: {known}")
    return found[name].load()


def _from_path(path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"live source {path!r} cannot be imported: {error}") from error
