# SPDX-License-Identifier: Apache-2.0
"""What training costs here: `python -m omnistream_training.bench [PRESET] [LIVE] [--out FILE]` (`make bench-train`).

Per stage of the preset: frames per second, the share of time without data to work on, and the arithmetic done per
second against the best matrix product of this machine, in the precision of the run and in float32.

On a CPU all of it is measured in processor time (per thread), so that other work on the machine does not distort it;
frames per second by the clock on the wall stand beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from omnistream_training.budget import synchronise
from omnistream_training.config import Stage, TrainConfig
from omnistream_training.data.feed import Feed
from omnistream_training.journal import processor
from omnistream_training.learner import Learner
from omnistream_training.presets import preset
from omnistream_training.running import resolve_device

WARM_STEPS, TIMED_STEPS = 2, 6
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
WAITING = 0.10
"""Share of the time; more of it, and rendering or reading is what training waits for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns 0, or 1 where a stage waits for data for more than a tenth of its time."""
    parser = argparse.ArgumentParser(
        "omnistream_training.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", nargs="?", help="default: the recipe of the default weights for this device")
    parser.add_argument("live", nargs="?", help="renderer; default: the preset's")
    parser.add_argument("--out", type=Path, default=Path("build/bench_train.json"), help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    options = parser.parse_args(argv)
    device = resolve_device("auto")
    config = preset(options.preset or f"default-{'gpu' if device == 'cuda' else 'cpu'}")
    if options.live is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, live=options.live))
    if device == "cpu":
        torch.set_num_threads(options.threads)
    report = bench(config, device)
    _write(options.out, report)
    print("\n".join(bench_text(report)))
    print(f"wrote {options.out}")
    return 0 if all(stage["waiting"] < WAITING for stage in report["stages"]) else 1


def bench(config: TrainConfig, device: str) -> dict[str, Any]:
    """All stages of `config`, and what they were measured on."""
    peaks = {name: gemm_peak(device, dtype) for name, dtype in PRECISIONS.items()}
    return {
        "machine": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": config.precision,
        "gemm_peak_gflops": {name: round(peak / 1e9, 1) for name, peak in peaks.items()},
        "stages": [bench_stage(config, stage, device, peaks) for stage in config.stages],
    }


def bench_text(report: dict[str, Any]) -> list[str]:
    """For people, one line per stage."""
    peaks = report["gemm_peak_gflops"]
    lines = [
        f"{report['machine']}, {report['threads']} thread(s), torch {report['torch']}; matrix products: "
        + ", ".join(f"{value:,.0f} GFLOP/s in {name}" for name, value in peaks.items())
    ]
    for stage in report["stages"]:
        of_peak = ", ".join(f"{share:.0%} of the {name} peak" for name, share in stage["of_gemm_peak"].items())
        lines.append(
            f"{stage['clips']} clips x {stage['frames']} frames x {stage['size'][0]} x {stage['size'][1]}: "
            f"{stage['frames_per_s']:,.0f} frames/s ({stage['frames_per_s_wall']:,.0f} by the wall), "
            f"waiting {stage['waiting']:.1%}, {stage['gflop_per_frame']:.2f} GFLOP a frame: {of_peak}"
        )
    return lines


def bench_stage(config: TrainConfig, stage: Stage, device: str, peaks: dict[str, float]) -> dict[str, Any]:
    """One stage. Counted are products of matrices and convolutions of forward and backward pass, as torch counts them;
    the optimiser's own are timed and stand apart (`optimiser_gflop`)."""
    one = dataclasses.replace(config, stages=(dataclasses.replace(stage, steps=WARM_STEPS + TIMED_STEPS),))
    feed, learner = Feed(one, device), Learner(one, device)
    batch = feed.batch(0)
    with FlopCounterMode(display=False) as counter:
        learner.gradient(batch)
    with FlopCounterMode(display=False) as optimiser:
        learner.update()
    now = clock(device)
    waited, start, wall = 0.0, now(), time.perf_counter()
    for step in range(1, WARM_STEPS + TIMED_STEPS):
        if step == WARM_STEPS:
            synchronise(device)
            waited, start, wall = 0.0, now(), time.perf_counter()
        asked = now()
        batch = feed.batch(step)
        synchronise(device)  # alone, rendering is waited for: what it costs, not how well it hides
        waited += now() - asked
        learner.gradient(batch)
        learner.update()
    synchronise(device)
    seconds = (now() - start) / TIMED_STEPS
    wall_seconds = (time.perf_counter() - wall) / TIMED_STEPS
    flops = counter.get_total_flops()
    return {
        "clips": stage.clips,
        "frames": stage.frames,
        "size": list(stage.size),
        "frames_per_s": round(batch.frames / seconds, 1),
        "frames_per_s_wall": round(batch.frames / wall_seconds, 1),
        "waiting": round(waited / TIMED_STEPS / seconds, 3),
        "gflop_per_frame": round(flops / batch.frames / 1e9, 2),
        "optimiser_gflop": round(optimiser.get_total_flops() / 1e9, 2),
        "of_gemm_peak": {name: round(flops / seconds / peak, 3) for name, peak in peaks.items()},
    }


def gemm_peak(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of the best of a few square matrix products on random data."""
    now, best = clock(device), 0.0
    for n in (1024, 2048) if device == "cpu" else (4096, 8192):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        a @ b
        for _ in range(3):
            synchronise(device)
            start = now()
            a @ b
            synchronise(device)
            best = max(best, 2 * n**3 / (now() - start))
    return best


def clock(device: str) -> Callable[[], float]:
    """Seconds: of the wall beside a GPU, of the processor per thread on a CPU."""
    if device != "cpu":
        return time.perf_counter
    return lambda: time.process_time() / torch.get_num_threads()


def _write(path: Path, report: dict[str, Any]) -> None:
    from omnistream.cli.report import environment, write_report

    write_report(path, report | {"made_by": "make bench-train", "environment": environment()})


if __name__ == "__main__":
    sys.exit(main())
