# SPDX-License-Identifier: Apache-2.0
"""How fast worlds are rendered here, per tier, by processor time of one thread (the machine may be shared)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from .clips import clip_seed
from .config import WorldConfig
from .quality import QUALITIES
from .rendering import render
from .sample import sample_scenes


def bench(
    *, size: int = 128, frames: int = 8, clips: int = 32, repeats: int = 3, device: str = "cpu", backend: str = "auto"
) -> dict[str, Any]:
    """Frames per second of sampling, of depth alone and of pictures with depth in every tier.

    `frames_per_s` counts processor time on a CPU and elapsed time on a GPU; scene sampling is part of it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(size, frames, clips, repeats, device, backend)
    finally:
        torch.set_num_threads(threads)


def _measure(size: int, frames: int, clips: int, repeats: int, device: str, backend: str) -> dict[str, Any]:
    config = WorldConfig()
    total = clips * frames

    def sample(round_: int) -> Any:
        seeds = [clip_seed(1, round_ * clips + i) for i in range(clips)]
        return sample_scenes(config, seeds, frames=frames, rate=10.0, device=device)

    def draw(want: tuple[str, ...], quality: str) -> Callable[[int], object]:
        return lambda round_: render(sample(round_), (size, size), want=want, quality=quality, backend=backend)

    rows = {"scenes only": sample, "depth": draw(("depth",), "flat")}
    rows |= {f"rgb and depth, {tier}": draw(("rgb", "depth"), tier) for tier in QUALITIES}
    rows["everything, fast"] = draw(("rgb", "depth", "normals", "ids", "scene_flow", "flow"), "fast")
    result: dict[str, Any] = {}
    for name, work in rows.items():
        work(0)  # compiles, fills caches
        cpu, wall = _time(work, repeats, device)
        spent = wall if device != "cpu" else cpu
        result[name] = {
            "frames_per_s": round(total * repeats / spent, 1),
            "ms_per_frame": round(1e3 * spent / (total * repeats), 4),
        }
    return {
        "size": size,
        "frames_per_clip": frames,
        "clips_per_batch": clips,
        "device": device,
        "backend": backend,
        "clock": "processor time, one thread" if device == "cpu" else "elapsed time",
        "rows": result,
    }


def _time(work: Callable[[int], object], repeats: int, device: str) -> tuple[float, float]:
    """Processor and elapsed seconds of the repetitions."""
    if device != "cpu":
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    for i in range(repeats):
        work(i + 1)
    if device != "cpu":
        torch.cuda.synchronize()
    return time.process_time() - cpu, time.perf_counter() - wall
