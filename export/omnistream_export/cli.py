# SPDX-License-Identifier: Apache-2.0
"""`omnistream-export`: graphs of a checkpoint, for ONNX Runtime and TensorRT.

Exit status: 0 done; 1 refused, or a comparison failed (the reason is on stderr); 2 wrong usage.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from omnistream.errors import ConfigError, EngineError, OmniStreamError

from .tensorrt_command import tensorrt

INSTALL = "pip install 'omnistream[export]'"


def onnx(
    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[OUT]")] = "",
    /,
    *,
    weights: str,
    size: str,
    policy: str = "sink_window:1,15",
    dtype: Literal["fp32", "fp16", "int8"] = "fp32",
    batch: int = 1,
    verify: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the ONNX graphs of a checkpoint and check them: backbone, heads, and a sidecar that says what they are.

    Args:
        out: The directory to write. Default: graphs/<size>-<dtype> beside the checkpoint, where engines look for it.
        weights: The checkpoint.
        size: Height x width in pixels at which the network runs, such as 192x256 (`omnistream-stream` prints it).
        policy: Frames in memory. Fixes the graph for TensorRT; the one for ONNX Runtime takes any.
        dtype: fp32 for CPUs, fp16 for GPUs; int8, of the linear layers, for CPUs without bfloat16 units. It is written
            only if it comes close to fp32 on the shipped recording. The heads are fp32 in any case.
        batch: Cameras in one step.
        verify: Run the graphs against PyTorch until every slot has been overwritten, and print the errors.
        overwrite: Replace an earlier export.
    """
    try:
        from omnistream_export.onnx_graphs import export_graphs
        from omnistream_export.verify import verify as verify_graphs
    except ImportError as error:
        raise EngineError(f"exporting needs the package {error.name}: {INSTALL}") from error
    from omnistream.stream.policy import parse_policy
    from omnistream.weights import load_model
    from omnistream.weights.files import home_expanded

    height, width = _size(size)
    directory = home_expanded(out) if out else _beside(home_expanded(weights), size, dtype)
    model = load_model(weights)
    graphs = export_graphs(
        model,
        directory,
        height=height,
        width=width,
        policy=parse_policy(policy),
        dtype=dtype,
        batch=batch,
        made_by=shlex.join(["omnistream-export", *sys.argv[1:]]),
        overwrite=overwrite,
    )
    checked = "onnx full check, strict shape inference, " + (
        "pictures against float32" if dtype == "int8" else "TensorRT lint"
    )
    print(f"{graphs}\n  model {graphs.model_hash}; checked: {checked}")
    for role, graph in graphs.graphs.items():
        size_mb = (directory / graph.weights).stat().st_size / 1e6
        print(f"  {role:<10} {graph.file:<24} weights {graph.weights} ({size_mb:.1f} MB)")
    if verify:
        comparisons = verify_graphs(model, graphs)
        print(*comparisons, sep="\n")
        if not all(comparison.passed for comparison in comparisons):
            raise EngineError(f"{directory} does not compute what the checkpoint does")


def main(args: list[str] | None = None) -> int:
    """Entry point; returns the exit status, and raises SystemExit(2) for wrong usage."""
    commands: dict[str, Any] = {"onnx": onnx, "tensorrt": tensorrt}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="omnistream-export", description=__doc__, args=args)
    except (OmniStreamError, OSError) as error:
        print(f"omnistream-export: {error}", file=sys.stderr)
        return 1
    return 0


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise ConfigError(f"size is {text!r}; expected HEIGHTxWIDTH in pixels, such as 192x256")
    return int(match[1]), int(match[2])


def _beside(weights: Path, size: str, dtype: str) -> Path:
    from omnistream.engines.graphs import FOLDER

    return (weights if weights.is_dir() else weights.parent) / FOLDER / f"{size}-{dtype}"


if __name__ == "__main__":
    sys.exit(main())
