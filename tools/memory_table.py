#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the memory table of README.md, from the function that allocates the cache.

    .venv/bin/python tools/memory_table.py [--check]

With --check nothing is written and the exit code is 1 when the table differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from omnistream.model.config import PRESETS, ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import parse_policy
from omnistream.stream.state import StateSpec

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN = "<!-- memory table: written by `make docs` -->"
END = "<!-- end of memory table -->"

SIZES = (224, 512)
POLICIES = ("window:16", "full:64")
"""sink_window:1,15 takes what window:16 takes."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the memory table of README.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when the table is out of date")
    check = parser.parse_args().check
    text = README.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    new = f"{before}{BEGIN}\n\n{table()}\n{END}{after}"
    if new == text:
        print("the memory table of README.md is up to date")
        return 0
    if check:
        print("error: the memory table of README.md is out of date; run make docs", file=sys.stderr)
        return 1
    README.write_text(new)
    print("wrote the memory table of README.md")
    return 0


def table() -> str:
    head = ["model", "parameters", "weights"]
    head += [f"{size}x{size}, {policy}" for size in SIZES for policy in ("a frame", *POLICIES)]
    rows = [row(name, config) for name, config in PRESETS.items()]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def row(name: str, config: ModelConfig) -> list[str]:
    with torch.device("meta"):
        model = OmniStream(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    backbone = config.backbone
    cells = [f"{name}, {backbone.dim}x{backbone.depth}x{backbone.heads}", f"{count / 1e6:.1f} M", size(2 * count)]
    for side in SIZES:
        for policy in ("window:1", *POLICIES):
            spec = StateSpec(
                policy=parse_policy(policy),
                batch=1,
                height=side,
                width=side,
                camera_token=config.camera_token,
                dtype=torch.bfloat16,
            )
            cells.append(size(spec.nbytes(backbone)))
    return cells


def size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


if __name__ == "__main__":
    sys.exit(main())
