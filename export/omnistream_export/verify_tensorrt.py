# SPDX-License-Identifier: Apache-2.0
"""`make verify-tensorrt`: export, build, compare with torch, measure; on a machine that has TensorRT and a GPU.

Float32 shows that the plan computes the model (every output within 2e-5, after every slot was overwritten); float16 is
what robots run. Random weights with strong blocks stand in where no checkpoint is given: with fresh ones every frame
looks alike. Exit status: 0 passed; 1 a comparison failed; 2 nothing could be run (the reason is on stderr).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from omnistream.cli.report import Latencies, environment, write_report
from omnistream.engines.base import Engine
from omnistream.engines.cuda_device import CudaDevice, Device
from omnistream.engines.graphs import GraphSet
from omnistream.engines.plans import PlanSet
from omnistream.engines.tensorrt_api import TensorRT, load_tensorrt
from omnistream.engines.tensorrt_engine import TensorRTEngine
from omnistream.engines.torch_engine import TorchEngine
from omnistream.errors import OmniStreamError
from omnistream.heads.heads import HEADS
from omnistream.model.config import preset
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import parse_policy
from omnistream.weights import load_model, random_model

from .onnx_graphs import export_graphs
from .tensorrt_build import build_plans
from .verify import Comparison, compare

WARM_FRAMES = 10
MEASURED_FRAMES = 100


def verify_plans(
    model: OmniStream, plans: PlanSet, *, trt: TensorRT | None = None, device: Device | None = None
) -> tuple[Comparison, dict[str, Any]]:
    """Plans against torch in float32 on the CPU, and milliseconds per frame with all slots full.

    trt, device: for tests.
    """
    engine = TensorRTEngine(model.config, [plans], trt=trt, device=device)
    comparison = compare(engine, model, plans.graphs)
    plain = TensorRTEngine(model.config, [plans], cuda_graph=False, trt=trt, device=device)
    engines: dict[str, Engine] = {"tensorrt": engine, "tensorrt, no CUDA graph": plain}
    where = torch.device(engine.spec.device)
    if where.type == "cuda" or engine.spec.dtype is torch.float32:  # torch has no fast float16 on CPUs
        name = f"torch, {str(engine.spec.dtype).removeprefix('torch.')}"
        engines[name] = TorchEngine(model, where, engine.spec.dtype)
    return comparison, {name: latency(each, plans.graphs, model) for name, each in engines.items()}


def latency(engine: Engine, graphs: GraphSet, model: OmniStream) -> dict[str, Any]:
    """Stages in ms, as the engine reports them; its clock stops when the GPU has finished."""
    state = engine.new_state(graphs.policy, *graphs.size)
    frame = torch.randn(graphs.batch, 3, graphs.height, graphs.width, generator=torch.Generator().manual_seed(0))
    measured = Latencies()
    for i in range(graphs.policy.slots + WARM_FRAMES + MEASURED_FRAMES):
        if not graphs.policy.evicts and state.frames_seen == graphs.policy.slots:
            state.reset()
        out = engine.step(state, frame, None, HEADS if model.heads is not None else ())
        if i >= graphs.policy.slots + WARM_FRAMES:
            measured.add({"backbone": out.backbone_ms, "heads": out.heads_ms})
    return {"cache_mib": state.nbytes / 2**20, "ms": measured.summary()}


def table(latencies: dict[str, Any]) -> str:
    """Latencies as text."""
    lines = [f"  {'':<26}{'backbone p50':>14}{'p99':>9}{'heads p50':>12}{'p99':>9}   ms"]
    for name, entry in latencies.items():
        backbone, heads = entry["ms"]["backbone"], entry["ms"]["heads"]
        numbers = f"{backbone['p50']:>14.2f}{backbone['p99']:>9.2f}{heads['p50']:>12.2f}{heads['p99']:>9.2f}"
        lines.append(f"  {name:<26}{numbers}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Export, build, compare and measure on a machine with TensorRT.")
    parser.add_argument("--weights", help="checkpoint (default: random weights of --preset)")
    parser.add_argument("--preset", default="small", help="tiny, small, base or large")
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--policy", default="sink_window:1,15")
    parser.add_argument("--dtype", nargs="+", choices=("fp32", "fp16"), default=("fp32", "fp16"))
    parser.add_argument(
        "--out", type=Path, default=Path("build/verify_tensorrt"), help="for graphs, plans, report.json"
    )
    options = parser.parse_args()
    try:
        load_tensorrt()
        CudaDevice()
    except OmniStreamError as error:
        print(f"not verified: {error}", file=sys.stderr)
        return 2
    model = load_model(options.weights) if options.weights else _random(options.preset)
    height, width = options.size
    runs, passed = [], True
    for dtype in options.dtype:
        graphs = export_graphs(
            model,
            options.out / f"{height}x{width}-{dtype}",
            height=height,
            width=width,
            policy=parse_policy(options.policy),
            dtype=dtype,
            overwrite=True,
        )
        plans = build_plans(graphs)
        comparison, latencies = verify_plans(model, plans)
        print(f"{plans.gpu}, TensorRT {plans.tensorrt}, {graphs}\n{comparison}\n{table(latencies)}")
        passed &= comparison.passed
        runs.append(dataclasses.asdict(comparison) | {"passed": comparison.passed, "latency": latencies})
    details = {"weights": options.weights or f"random {options.preset}", "size": options.size, "policy": options.policy}
    found = {"gpu": plans.gpu, "tensorrt": plans.tensorrt, "runs": runs, "passed": passed}
    write_report(options.out / "report.json", details | found | {"environment": environment()})
    print(f"wrote {options.out / 'report.json'}")
    return 0 if passed else 1


def _random(name: str) -> OmniStream:
    config = preset(name)
    strong = dataclasses.replace(config.backbone, layer_scale_init=0.5)
    return random_model(dataclasses.replace(config, backbone=strong), seed=0)


if __name__ == "__main__":
    sys.exit(main())
