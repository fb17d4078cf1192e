# SPDX-License-Identifier: Apache-2.0
"""`omnistream-bench`: what a stream costs on this machine, and what it would cost otherwise.

exit codes: 0 measured; 1 it cannot run here, or a variant computes something else; 2 wrong usage
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from omnistream.errors import ConfigError, EngineError, OmniStreamError

if TYPE_CHECKING:
    from omnistream.cli.bench_stream import Cost
    from omnistream.engines.base import Engine
    from omnistream.model.omnistream import OmniStream

LARGEST_ERROR = 2e-2
"""Relative L2 of the patches: the invariant's bound for bfloat16 and float16."""


def stream(
    *,
    weights: str | None = None,
    preset: Literal["nano", "tiny", "small", "base", "large"] = "small",
    size: str = "224x224",
    cached: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N [N ...]")] = (1, 4, 16, 64),
    engines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ENGINE[/DTYPE] ...")] = ("auto",),
    device: str = "auto",
    threads: int = 1,
    batch: int = 1,
    repeats: int = 10,
    recompute_up_to: int = 4,
    out: str = "build/bench_stream",
) -> None:
    """Cost per frame, memory and fraction of the GEMM peak, against growing concatenation and full recompute.

    Backbone only. Writes OUT.json and OUT.svg.

    Args:
        weights: A checkpoint. Default: random weights of --preset; they cost the same.
        preset: Model size, without --weights.
        size: Height x width in pixels at which the network runs.
        cached: Earlier frames in the cache.
        engines: Such as auto, torch/float32, onnxruntime:DIR, onnxruntime/int8; and torch-graph/float16: torch's
            steps as one CUDA graph.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
        batch: Cameras in one step; times are per camera. (Graphs are exported for one number of cameras.)
        repeats: Frames of each variant, in turns.
        recompute_up_to: Cached frames beyond which full recompute is left out (it grows with the square).
        out: Report files, without suffix.
    """
    if not cached or min(cached) < 1:
        raise ConfigError(f"cached is {cached}; expected numbers of frames, at least 1")
    if min(repeats, threads, batch) < 1:
        raise ConfigError(f"repeats is {repeats}, threads is {threads}, batch is {batch}; expected at least 1")
    import torch

    from omnistream.cli.bench_plot import line_chart
    from omnistream.cli.bench_stream import StreamBench, as_dict, split, step_gflop
    from omnistream.cli.report import environment, write_report
    from omnistream.io.files import write_bytes

    torch.set_num_threads(threads)
    model = _model(weights, preset)
    height, width = _size(size)
    made = [_engine(model, text, device, (batch, height, width)) for text in engines]
    bench = StreamBench(model, made, (height, width), repeats, recompute_up_to, batch)
    peak = bench.peak()
    costs: list[Cost] = []
    print(_heading(peak), flush=True)
    for count in sorted(set(cached)):
        costs += bench.run(count)
        print(_rows(costs, count, peak), flush=True)

    config = model.config.backbone
    tokens = config.tokens_per_frame(height, width, model.config.camera_token)
    per_frame = step_gflop(config, tokens, 2) - step_gflop(config, tokens, 1)
    by_variant = {name: [cost for cost in costs if cost.variant == name] for name in _variants(costs)}
    splits = {name: split(rows, per_frame) for name, rows in by_variant.items() if name != "recompute"}
    print(_split_rows(splits))
    cameras = f", {batch} cameras in a step" if batch > 1 else ""
    what = f"{weights or preset}, {height}x{width}, {tokens} tokens{cameras}"
    where = environment()
    unit = "ms of process CPU time per frame" if made[0].spec.device == "cpu" else "ms per frame"
    report = {
        "made_by": "omnistream-bench stream",
        "what": what,
        "unit": unit,
        "threads": threads,
        "batch": batch,
        "gemm_peak_gflop_per_s": peak,
        "costs": [as_dict(cost, peak) for cost in costs],
        "split": splits,
        "environment": where,
    }
    chart = line_chart(
        {name: [(cost.cached, cost.median) for cost in rows] for name, rows in by_variant.items()},
        title=f"Cost of one frame: {what}",
        subtitle=f"{where['machine']['processor']}, {threads} thread(s)",
        x_label="earlier frames in the cache",
        y_label=unit,
    )
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_report(path.with_suffix(".json"), report)
    write_bytes(path.with_suffix(".svg"), chart.encode())
    print(f"\n{path.with_suffix('.json')}  {path.with_suffix('.svg')}")
    wrong = [cost for cost in costs if cost.error is not None and cost.error > LARGEST_ERROR]
    if wrong:
        raise EngineError(f"{wrong[0].variant} is off by {wrong[0].error:.1e} at {wrong[0].cached} cached frames")


def main(args: list[str] | None = None) -> int:
    """Entry point; returns the exit code, and raises SystemExit(2) for wrong usage."""
    commands: dict[str, Any] = {"stream": stream}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="omnistream-bench", description=__doc__, args=args)
    except ConfigError as error:
        print(f"omnistream-bench: {error}", file=sys.stderr)
        return 2
    except (OmniStreamError, OSError) as error:
        print(f"omnistream-bench: {error}", file=sys.stderr)
        return 1
    return 0


def _model(weights: str | None, preset: str) -> OmniStream:
    from omnistream.model import config
    from omnistream.weights import load_model, random_model

    return load_model(weights) if weights else random_model(config.preset(preset), 0)


def _engine(model: OmniStream, text: str, device: str, size: tuple[int, int, int]) -> Engine:
    from omnistream.engines.select import NUMBER_FORMATS, choose_device, choose_dtype, make_engine
    from omnistream.engines.torch_engine import TorchEngine

    name, _, last = text.rpartition("/")
    if "torch-graph" in (name, text):  # measured here before anything chooses it
        where = choose_device(device)
        return TorchEngine(model, where, choose_dtype(last if name else "auto", where), cuda_graph=True)
    if name and last in NUMBER_FORMATS:
        return make_engine(model, name, device, last, size)
    return make_engine(model, text, device, "auto", size)


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise ConfigError(f"size is {text!r}; expected HEIGHTxWIDTH in pixels, such as 224x224")
    return int(height), int(width)


def _variants(costs: list[Cost]) -> list[str]:
    return list(dict.fromkeys(cost.variant for cost in costs))


def _heading(peak: dict[str, float]) -> str:
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in peak.items())
    columns = (
        f"{'cached':>6}  {'variant':<28}{'median ms':>10}{'least':>9}{'of concat.':>11}{'GFLOP/s':>9}{'of peak':>9}"
    )
    return f"GEMM peak, GFLOP/s: {rates}\n\n{columns}{'cache MB':>10}{'error':>9}"


def _rows(costs: list[Cost], cached: int, peak: dict[str, float]) -> str:
    rows = [cost for cost in costs if cost.cached == cached]
    reference = next(cost.median for cost in rows if cost.variant == "concatenation")
    lines = []
    for cost in rows:
        error = "" if cost.error is None else f"{cost.error:.0e}"
        share = cost.gflop_per_s / peak[cost.dtype]
        lines.append(
            f"{cached:>6}  {cost.variant:<28}{cost.median:>10.1f}{cost.least:>9.1f}{cost.median / reference:>10.2f}x"
            f"{cost.gflop_per_s:>9.0f}{share:>9.0%}{cost.cache_bytes / 1e6:>10.1f}{error:>9}"
        )
    return "\n".join(lines)


def _split_rows(splits: dict[str, dict[str, float] | None]) -> str:
    lines = [""]
    for name, parts in splits.items():
        if parts is not None:
            lines.append(
                f"{name}: {parts['fixed_ms']:.1f} ms without a past ({parts['fixed_gflop_per_s']:.0f} GFLOP/s), "
                f"{parts['per_cached_frame_ms']:.2f} ms per cached frame (attention at "
                f"{parts['attention_gflop_per_s']:.0f} GFLOP/s)"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
