# SPDX-License-Identifier: Apache-2.0
"""What a step of pre-training costs here: `python -m omnistream_training.pretrain.bench [PRESET] [--out FILE]`.

All tasks, really done, from random weights and on rendered data: seconds and pictures per second, the share of time
without data, counted arithmetic against the best matrix product of this machine, and the most memory that was held.

    python -m omnistream_training.pretrain.bench paper_vitl_stage1 --steps 20                            # one GPU
    python -m omnistream_training.pretrain.bench paper_vitl_stage1 --steps 2 --frames 4 --pictures 2 --clips 1 \\
        --small-decoder --threads 2                                                                      # a CPU

The decoder is random, of about the size of Qwen3-0.6B for a preset that asks for one, with a vocabulary of bytes; or
small, which saves 6 GB. On a CPU time is processor time per thread, as in `omnistream_training.bench`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from omnistream_training.bench import PRECISIONS, clock, gemm_peak, processor
from omnistream_training.budget import synchronise
from omnistream_training.caption.config import DecoderConfig
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.feed import PretrainFeed
from omnistream_training.pretrain.learner import PretrainLearner
from omnistream_training.pretrain.presets import preset
from omnistream_training.running import resolve_device

LIKE_QWEN3 = DecoderConfig(dim=1024, depth=28, heads=8, key_heads=8, mlp=3072)
WARM_STEPS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns 0, or 1 where a loss was not finite."""
    options = _options(argv)
    device = resolve_device("auto")
    if device == "cpu":
        torch.set_num_threads(options.threads)
    config = reduced(
        preset(options.preset),
        frames=options.frames,
        pictures=options.pictures,
        clips=options.clips,
        small_decoder=options.small_decoder,
    )
    report = bench_pretraining(config, device, options.steps)
    from omnistream.cli.report import environment, write_report

    chosen = {name: str(value) for name, value in vars(options).items() if value is not None}
    about = {"made_by": "omnistream_training.pretrain.bench", "environment": environment(), "options": chosen}
    write_report(options.out, report | about)
    print("\n".join(bench_text(report)))
    print(f"wrote {options.out}")
    return 0 if math.isfinite(report["loss"]) else 1


def reduced(
    config: PretrainConfig,
    *,
    frames: int | None = None,
    pictures: int | None = None,
    clips: int | None = None,
    small_decoder: bool = False,
) -> PretrainConfig:
    """A run of one micro-batch a step that needs nothing from outside: random weights, rendered data, fewer of each."""
    stage, ssl, caption = config.stages[-1], config.ssl, config.caption
    decoder = caption.decoder if small_decoder or caption.language_model is None else LIKE_QWEN3
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, start=None),
        stages=(dataclasses.replace(stage, frames=frames or stage.frames, clips=clips or stage.clips),),
        ssl=dataclasses.replace(
            ssl, frames=frames or ssl.frames, images=pictures or ssl.images, clips=clips or ssl.clips
        ),
        caption=dataclasses.replace(
            caption, language_model=None, decoder=decoder, pictures=pictures or caption.pictures
        ),
        micro_batches=1,
    )


def bench_pretraining(config: PretrainConfig, device: str, steps: int) -> dict[str, Any]:
    """`steps` steps after a few to warm up."""
    peaks = {name: gemm_peak(device, dtype) for name, dtype in PRECISIONS.items()}
    learner = PretrainLearner(config, device)
    feed = PretrainFeed(config, device, learner.model.config.backbone.patch_size)
    with FlopCounterMode(display=False) as counter:
        learner.gradient(feed.batch(0))
    learner.update()
    for step in range(1, WARM_STEPS):
        learner.gradient(feed.batch(step))
        learner.update()
    synchronise(device)
    now, waited, frames = clock(device), 0.0, 0
    loss = torch.zeros((), device=device)
    start, wall = now(), time.perf_counter()
    for step in range(WARM_STEPS, WARM_STEPS + steps):
        asked = now()
        batch = feed.batch(step)
        synchronise(device)
        waited += now() - asked
        loss = learner.gradient(batch)["loss"]
        learner.update()
        frames += batch.frames
    synchronise(device)
    seconds, wall_seconds = (now() - start) / steps, (time.perf_counter() - wall) / steps
    flop = counter.get_total_flops()
    stage = config.stages[-1]
    return {
        "machine": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": config.precision,
        "size": list(stage.size),
        "frames_per_step": {"geometry": stage.clips * stage.frames, "all": frames // steps},
        "steps": steps,
        "seconds_per_step": round(seconds, 4),
        "seconds_per_step_wall": round(wall_seconds, 4),
        "frames_per_s": round(frames / steps / seconds, 2),
        "waiting": round(waited / steps / seconds, 4),
        "tflop_per_step": round(flop / 1e12, 4),
        "gemm_peak_gflops": {name: round(peak / 1e9, 1) for name, peak in peaks.items()},
        "of_gemm_peak": {name: round(flop / seconds / peak, 4) for name, peak in peaks.items()},
        "memory_gib": round(_memory(device) / 2**30, 2),
        "parameters_m": round(sum(p.numel() for p in learner.parts.parameters()) / 1e6, 1),
        "loss": float(loss),
    }


def bench_text(report: dict[str, Any]) -> list[str]:
    """For people."""
    of_peak = ", ".join(f"{share:.0%} of the {name} peak" for name, share in report["of_gemm_peak"].items())
    return [
        f"{report['machine']}, {report['threads']} thread(s), torch {report['torch']}, {report['precision']}",
        f"{report['parameters_m']:,.0f} M parameters; {report['frames_per_step']['all']} pictures a step",
        f"{report['seconds_per_step']:.2f} s a step ({report['seconds_per_step_wall']:.2f} by the wall), "
        f"{report['frames_per_s']:.1f} pictures/s, waiting {report['waiting']:.1%}",
        f"{report['tflop_per_step']:.2f} TFLOP a step: {of_peak}; {report['memory_gib']:.1f} GiB at most",
    ]


def _memory(device: str) -> int:
    """Bytes: of the GPU, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "omnistream_training.pretrain.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", nargs="?", default="paper_vitl_stage1", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="measured steps; default %(default)s")
    parser.add_argument("--frames", type=int, help="of clips, for geometry and video; default: the preset's")
    parser.add_argument("--pictures", type=int, help="for picture SSL, and for captions; default: the preset's")
    parser.add_argument("--clips", type=int, help="for geometry, and for video; default: the preset's")
    parser.add_argument("--small-decoder", action="store_true", help="the random decoder of small presets")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    parser.add_argument("--out", type=Path, default=Path("build/bench_pretrain.json"), help="default: %(default)s")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
