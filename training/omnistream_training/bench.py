# SPDX-License-Identifier: Apache-2.0
"""What training costs here: `python -m omnistream_training.bench [PRESET] [LIVE]` (`make bench-train`).

Per stage of the preset: frames per second, the share of time without data to work on, and the arithmetic done per
second against the best matrix product of this machine in the same precision. One JSON object on stdout.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from omnistream_training.budget import synchronise
from omnistream_training.config import Stage, TrainConfig
from omnistream_training.data.feed import Feed
from omnistream_training.learner import Learner
from omnistream_training.presets import preset
from omnistream_training.running import resolve_device

WARM_STEPS, TIMED_STEPS = 2, 6


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    device = resolve_device("auto")
    config = preset(arguments[0] if arguments else f"default-{'gpu' if device == 'cuda' else 'cpu'}")
    if len(arguments) > 1:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, live=arguments[1]))
    if device == "cpu":
        torch.set_num_threads(1)
    print(json.dumps(bench(config, device), indent=1))
    return 0


def bench(config: TrainConfig, device: str) -> dict[str, Any]:
    """All stages of `config`, and what they were measured on."""
    peak = gemm_peak(device, torch.bfloat16 if config.precision == "bfloat16" else torch.float32)
    return {
        "machine": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": config.precision,
        "gemm_peak_gflops": round(peak / 1e9, 1),
        "stages": [bench_stage(config, stage, device, peak) for stage in config.stages],
    }


def bench_stage(config: TrainConfig, stage: Stage, device: str, peak: float) -> dict[str, Any]:
    """One stage. Counted are products of matrices and convolutions of forward and backward pass, as torch counts."""
    one = dataclasses.replace(config, stages=(dataclasses.replace(stage, steps=WARM_STEPS + TIMED_STEPS),))
    feed, learner = Feed(one, device), Learner(one, device)
    batch = feed.batch(0)
    with FlopCounterMode(display=False) as counter:
        learner.gradient(batch)
    learner.update()
    waited = 0.0
    start = time.perf_counter()
    for step in range(1, WARM_STEPS + TIMED_STEPS):
        if step == WARM_STEPS:
            synchronise(device)
            start, waited = time.perf_counter(), 0.0
        asked = time.perf_counter()
        batch = feed.batch(step)
        synchronise(device)  # alone, rendering is waited for: what it costs, not how well it hides
        waited += time.perf_counter() - asked
        learner.gradient(batch)
        learner.update()
    synchronise(device)
    seconds = (time.perf_counter() - start) / TIMED_STEPS
    flops = counter.get_total_flops()
    return {
        "clips": stage.clips,
        "frames": stage.frames,
        "size": list(stage.size),
        "frames_per_s": round(batch.frames / seconds, 1),
        "waiting": round(waited / TIMED_STEPS / seconds, 3),
        "gflop_per_frame": round(flops / batch.frames / 1e9, 2),
        "of_gemm_peak": round(flops / seconds / peak, 3),
    }


def gemm_peak(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of the best of a few square matrix products on random data."""
    best = 0.0
    for n in (1024, 2048) if device == "cpu" else (4096, 8192):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        a @ b
        for _ in range(3):
            synchronise(device)
            start = time.perf_counter()
            a @ b
            synchronise(device)
            best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    sys.exit(main())
