# SPDX-License-Identifier: Apache-2.0
"""`omnistream-export tensorrt`: plans of exported graphs, built on the robot that will run them."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import tyro

from omnistream.errors import EngineError


def tensorrt(
    graphs: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GRAPHS")],
    /,
    *,
    weights: str = "",
    build_only: bool = False,
    workspace_gib: float = 4.0,
    tf32: bool = False,
    timing_cache: str = "",
    device: str = "cuda:0",
) -> None:
    """Build TensorRT plans of exported graphs into GRAPHS/tensorrt; run this on the robot. Takes minutes.

    Args:
        graphs: A directory that `omnistream-export onnx` wrote (--dtype fp16 for a robot).
        weights: The checkpoint of the graphs, to compare the plans with. Default: the one they lie beside.
        build_only: Do not compare the plans with PyTorch afterwards, and do not measure them.
        workspace_gib: Scratch memory a kernel may ask for.
        tf32: Let float32 products (the heads) round to 10 bits: faster, depth differs in the third digit.
        timing_cache: Where kernel timings are kept. Default: beside GRAPHS; the next build takes a fraction.
        device: The GPU.
    """
    from omnistream.engines.cuda_device import CudaDevice
    from omnistream.engines.graphs import read_graphs
    from omnistream.engines.tensorrt_api import load_tensorrt
    from omnistream.weights import load_model
    from omnistream.weights.files import home_expanded
    from omnistream.weights.identity import model_hash
    from omnistream_export.tensorrt_build import build_plans
    from omnistream_export.verify_tensorrt import table, verify_plans

    exported = read_graphs(home_expanded(graphs))
    trt, gpu = load_tensorrt(), CudaDevice(device)
    model = None
    if not build_only:  # before the minutes, not after them
        model = load_model(weights or str(exported.directory.parent.parent))
        exported.check_model(model_hash(model))
    plans = build_plans(
        exported,
        workspace=int(workspace_gib * 2**30),
        tf32=tf32,
        timing_cache=home_expanded(timing_cache) if timing_cache else None,
        made_by=shlex.join(["omnistream-export", *sys.argv[1:]]),
        trt=trt,
        device=gpu,
    )
    print(f"{plans.directory}: {', '.join(plans.plans)}\n  TensorRT {plans.tensorrt}, {plans.gpu}")
    if model is None:
        return
    comparison, latencies = verify_plans(model, plans, trt=trt, device=gpu)
    print(comparison, table(latencies), sep="\n")
    if not comparison.passed:
        raise EngineError(f"{plans.directory} does not compute what the checkpoint does")
