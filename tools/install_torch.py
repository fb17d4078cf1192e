#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Installs the pinned PyTorch into this interpreter's environment, and sees to it that it is a build without CUDA.

    .venv/bin/python tools/install_torch.py constraints.txt

On Linux the default package index serves a build with several gigabytes of CUDA libraries, of no use on a machine
without an NVIDIA GPU. So this asks pip first what it would install:

- no CUDA package among it (another index is configured, or the platform has CPU builds only): pip installs just that;
- otherwise the build from the index in TORCH_INDEX_URL (default: PyTorch's public index of CPU builds).

When that index cannot be reached nothing is installed and both ways out are printed. TORCH_INDEX_URL=default takes what
pip finds, CUDA included: the one for a machine with an NVIDIA GPU. Exit codes: 0 installed or already there, 1 failed.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TAKE_ANYTHING = "default"


class Failed(RuntimeError):
    """Nothing was installed; the message says why and what to do."""


def pinned(constraints: Path, package: str = "torch") -> str:
    """Returns the requirement `torch==X` of a constraints file; raises Failed where there is none."""
    for line in constraints.read_text().splitlines():
        if re.fullmatch(rf"{package}==\S+", line.strip()):
            return line.strip()
    raise Failed(f"{constraints} has no line '{package}==VERSION'")


def is_cuda(name: str) -> bool:
    """Whether a distribution belongs to the CUDA build of PyTorch."""
    return name.lower().startswith(("nvidia-", "nvidia_", "cuda-", "cuda_")) or name.lower() == "triton"


def pip(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, text=True, capture_output=capture)


def would_install(requirement: str) -> list[str]:
    """Names of what pip would install for `requirement` from its configured indexes; raises Failed if it finds none."""
    result = pip("install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", requirement, capture=True)
    if result.returncode != 0:
        raise Failed(f"pip cannot resolve {requirement}:\n{result.stderr.strip()}")
    return [item["metadata"]["name"] for item in json.loads(result.stdout)["install"]]


def installed(requirement: str) -> bool:
    """Whether the pinned version is here already; a local part such as `+cpu` does not count."""
    try:
        return version("torch").split("+")[0] == requirement.partition("==")[2].split("+")[0]
    except PackageNotFoundError:
        return False


def cuda_requirements() -> list[str]:
    """CUDA packages that the installed torch requires."""
    importlib.invalidate_caches()
    mandatory = [line for line in requires("torch") or [] if "extra ==" not in line]
    return [name for name in (re.split(r"[\[<>=;~! ]", line)[0] for line in mandatory) if is_cuda(name)]


def install(constraints: Path) -> None:
    requirement = pinned(constraints)
    index = os.environ.get("TORCH_INDEX_URL") or CPU_INDEX
    if installed(requirement):
        print(f"torch {version('torch')} is installed")
        return

    if index != TAKE_ANYTHING and (cuda := [name for name in would_install(requirement) if is_cuda(name)]):
        print(f"pip would bring {len(cuda)} CUDA packages with {requirement}; taking the CPU build from {index}")
        # Without its dependencies: they come with the other packages, in pinned versions from the usual index.
        source = ["--no-deps", "--index-url", index]
    else:
        source = ["--constraint", str(constraints)]
    if pip("install", "-qq", *source, requirement).returncode != 0:
        raise Failed(
            f"{requirement} could not be installed from {index}. Either\n"
            "  make setup TORCH_INDEX_URL=URL       with an index of CPU builds that this machine can reach, or\n"
            f"  make setup TORCH_INDEX_URL={TAKE_ANYTHING}   to take what pip finds, CUDA included (about 3 GB)."
        )
    if index != TAKE_ANYTHING and (found := cuda_requirements()):
        # Another configured index had a build of the same version; the next `pip install` would complete it.
        pip("uninstall", "-qq", "--yes", "torch")
        raise Failed(f"{index} gave a build that needs {', '.join(found)}; removed it again")


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 1
    try:
        install(Path(sys.argv[1]))
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
