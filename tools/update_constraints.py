#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rewrites constraints.txt: the newest versions that pip finds for all that demo, tests and development install.

    .venv/bin/python tools/update_constraints.py [torch==2.13.0]

Runs no package and installs nothing. PyTorch stays at its present pin unless another is given.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from install_torch import is_cuda, pinned

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "ros,io,viz,sim,test,dev"
HEADER = f"""\
# Exact versions of everything that `make setup`, `make test` and `make lint types` install, for Python 3.11 and 3.12.
# Written by tools/update_constraints.py from the extras {EXTRAS}.
"""


def main() -> None:
    constraints = ROOT / "constraints.txt"
    torch = sys.argv[1] if len(sys.argv) > 1 else pinned(constraints)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    report = subprocess.run([*command, torch, f"{ROOT}[{EXTRAS}]"], check=True, capture_output=True, text=True).stdout
    versions = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in json.loads(report)["install"]}
    del versions["omnistream"]
    lines = [
        f"{name}=={number.split('+')[0]}"  # +cpu would bind users to one index
        for name, number in sorted(versions.items())
        if not is_cuda(name)
    ]
    constraints.write_text(HEADER + "\n".join(lines) + "\n")
    print(f"{constraints.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
