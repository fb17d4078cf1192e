# SPDX-License-Identifier: Apache-2.0
"""A store of rendered clips on disk, for a renderer that is slower than training is: every clip is rendered once and
drawn from many times, another part and another stride of it each time.

    ~/.cache/omnistream/pools/NAME-KEY/00000012/{rgb,depth,poses,K}.npy      a block of clips

Blocks appear whole or not at all, so an interrupted rendering goes on where it stopped, and a larger pool only adds to
a smaller one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from omnistream.errors import ConfigError
from omnistream_training.data.appearing import appearing
from omnistream_training.data.batch import ClipBatch, resize
from omnistream_training.data.live import Renderer, open_renderer, seed_of
from omnistream_training.data.source import HELD_OUT, ClipRequest

BLOCK = 32
"""Clips that are rendered, and appear on disk, at once."""
HELD_OUT_BLOCKS = 2
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Which clips are kept."""

    live: str = "tabletop"
    """The renderer, as in `data.live`."""
    options: dict[str, str] = field(default_factory=dict)
    """Keyword arguments for it."""
    clips: int = 4000
    """How many, rounded up to whole blocks. A frame of 128 x 128 pixels takes 80 kB."""
    frames: int = 16
    """Their length; no stage may ask for longer clips."""
    rate: float = 7.5
    """Hz, of a clip; strides of a stage are rounded to multiples of its period."""
    size: tuple[int, int] = (128, 128)
    """Height and width, of which a stage's size is the same or a smaller copy."""
    place: bool = False
    """Whether all clips show one place, in whose frame the renderer gives their poses."""
    weight: float = 1.0
    """Share of steps drawn from here, against `data.live_weight` and the other pools' weights."""

    def __post_init__(self) -> None:
        if self.clips < 1 or self.frames < 1 or not self.rate > 0 or self.weight < 0:
            raise ConfigError(
                f"pool clips {self.clips}, frames {self.frames}, rate {self.rate}, weight {self.weight}: expected "
                "1 or more, 1 or more, above 0, 0 or more"
            )

    def folder(self, cache: Path) -> Path:
        """Where the blocks lie: another place for everything that changes a clip."""
        what = {"version": VERSION, "live": self.live, "options": self.options, "frames": self.frames}
        what |= {"rate": self.rate, "size": self.size, "block": BLOCK}
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
        return cache / "pools" / f"{self.live.replace(':', '.')}-{digest}"


class PoolSource:
    """Clips from a pool, which is rendered first where it is not there yet."""

    def __init__(self, config: PoolConfig, nominal_rate: float, workers: int, cache: Path | None = None) -> None:
        self.config = config
        self._rate = nominal_rate
        root = cache or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "omnistream"
        self._folder = config.folder(root)
        self._training = range(-(-config.clips // BLOCK))
        self._held_out = range(HELD_OUT // BLOCK, HELD_OUT // BLOCK + HELD_OUT_BLOCKS)
        render_blocks(config, self._folder, [*self._held_out, *self._training], workers)
        self._open: dict[int, dict[str, NDArray]] = {}
        self.description = (
            f"pool of {len(self._training) * BLOCK} clips of {config.live} {config.options or ''}".rstrip()
        )

    def read(self, request: ClipRequest) -> ClipBatch:
        """Parts of clips, chosen by number; see `ClipSource`. ConfigError for a request longer than the clips."""
        if request.frames > self.config.frames:
            raise ConfigError(f"clips of {request.frames} frames were asked for; the pool's have {self.config.frames}")
        step = max(1, round(request.stride * self.config.rate / self._rate))
        if request.frames > 1:
            step = min(step, (self.config.frames - 1) // (request.frames - 1))
        span = (request.frames - 1) * step
        parts = []
        for number in request.numbers:
            draw = random.Random(number)
            blocks = self._held_out if number >= HELD_OUT else self._training
            block, clip = draw.choice(blocks), draw.randrange(BLOCK)
            first = draw.randrange(self.config.frames - span)
            parts.append(self._part(block, clip, slice(first, first + span + 1, step)))
        images, depth, poses = (torch.from_numpy(np.stack([part[i] for part in parts])) for i in range(3))
        times = torch.arange(request.frames, dtype=torch.float64) * (step * self._rate / self.config.rate)
        batch = ClipBatch(
            images=images.movedim(-1, 2).float().div_(255),
            depth=depth.float(),
            T_world_camera=poses,
            K=torch.from_numpy(np.stack([part[3] for part in parts])),
            times=times.expand(len(parts), -1).clone(),
            place=torch.full((len(parts),), self.config.place),
        )
        batch = resize(batch, request.size)
        return batch if request.device == "cpu" else batch.to(request.device)

    def _part(self, block: int, clip: int, rows: slice) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        if block not in self._open:
            place = self._folder / f"{block:08d}"
            self._open[block] = {n: np.load(place / f"{n}.npy", mmap_mode="r") for n in ("rgb", "depth", "poses", "K")}
        arrays = self._open[block]
        return arrays["rgb"][clip, rows], arrays["depth"][clip, rows], arrays["poses"][clip, rows], arrays["K"][clip]


def render_blocks(config: PoolConfig, folder: Path, blocks: Sequence[int], workers: int) -> None:
    """Render what is missing, in `workers` processes, or in this one for fewer than two; progress goes to stderr."""
    missing = [block for block in blocks if not (folder / f"{block:08d}").exists()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    start = said = time.monotonic()
    print(f"pool: rendering {len(missing) * BLOCK} clips of {config.live} into {folder}", file=sys.stderr)
    for done, _ in enumerate(_rendered(config, folder, missing, workers), 1):
        now = time.monotonic()
        if now - said > 10 or done == len(missing):
            said, left = now, (now - start) / done * (len(missing) - done)
            speed = done * BLOCK * config.frames / (now - start)
            print(f"pool: {done * BLOCK} clips, {speed:.0f} frames/s, {left / 60:.1f} min left", file=sys.stderr)


def _rendered(config: PoolConfig, folder: Path, blocks: Sequence[int], workers: int) -> Iterator[int]:
    if workers < 2:
        for block in blocks:
            yield render_block(config, folder, block)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads half alive
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_one_thread) as pool:
        for future in as_completed([pool.submit(render_block, config, folder, block) for block in blocks]):
            yield future.result()


def _one_thread() -> None:
    torch.set_num_threads(1)


@functools.cache
def _renderer(live: str, options: str) -> Renderer:
    """One per process: opening one can take seconds."""
    return open_renderer(live, json.loads(options))


def render_block(config: PoolConfig, folder: Path, block: int) -> int:
    """Render block number `block` of the pool; returns it."""
    renderer = _renderer(config.live, json.dumps(config.options, sort_keys=True))
    seeds = [seed_of(number) for number in range(block * BLOCK, (block + 1) * BLOCK)]
    clips = renderer.clips(seeds, frames=config.frames, size=config.size, rate=config.rate, device="cpu")
    arrays = {
        "rgb": clips.rgb.numpy(),
        "depth": clips.depth.numpy().astype(np.float16),  # 0.05 %: ten times finer than the error of the best network
        "poses": clips.T_world_camera.numpy().astype(np.float32),
        "K": clips.K.numpy().astype(np.float32),
    }
    with appearing(folder / f"{block:08d}") as partial:
        for name, values in arrays.items():
            np.save(partial / f"{name}.npy", values)
    return block
