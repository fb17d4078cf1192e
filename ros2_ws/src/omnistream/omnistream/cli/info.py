# SPDX-License-Identifier: Apache-2.0
"""`omnistream-info`: what this machine and environment are, for bug reports and for a look before the first run.

Sections of other packages come by the entry point group `omnistream.info`: a function without arguments that returns a
`Section`. So this package needs no ROS, and the ROS section is there wherever `omnistream_ros` is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path

GROUP = "omnistream.info"
EXIT_CODES = "exit codes: 0 printed; 1 printed and --check found a problem; 2 wrong usage"

# Flags that decide how fast a network runs, as Linux names them.
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "asimd", "bf16", "sve")
PACKAGES = ("numpy", "pillow", "safetensors", "av", "rosbags", "rerun-sdk", "onnxruntime", "tensorrt", "transformers")


@dataclass
class Section:
    """One part of the report.

    Attributes:
        values: name to text, number, list or None, in the order to print.
        problems: whole sentences on what will not work well here, each with its remedy.
    """

    values: dict[str, object]
    problems: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="omnistream-info",
        description="Print versions, processor, memory, engines and ROS 2 of this environment, for a bug report.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--check", action="store_true", help="exit with 1 when there is a problem")
    options = parser.parse_args(argv)

    report = collect()
    print(json.dumps({name: asdict(part) for name, part in report.items()}, indent=2) if options.json else text(report))
    return 1 if options.check and any(section.problems for section in report.values()) else 0


def collect() -> dict[str, Section]:
    """All sections by name. One that fails is reported in its own place: this command has to work where little does."""
    makers: dict[str, Callable[[], Section]] = {
        "software": software,
        "machine": machine,
        "torch": torch_section,
        "engines": engines,
    }
    makers |= {point.name: partial(_from_entry_point, point) for point in entry_points(group=GROUP)}
    report = {}
    for name, make in makers.items():
        try:
            report[name] = make()
        except Exception as error:  # whatever a broken installation throws
            report[name] = Section({}, [f"{name} could not be examined: {type(error).__name__}: {error}"])
    return report


def text(report: dict[str, Section]) -> str:
    """The report for a person: aligned names, problems at the end."""
    lines = []
    for name, section in report.items():
        lines.append(name)
        width = max((len(key) for key in section.values), default=0)
        lines += [f"  {key:<{width}}  {_plain(value)}" for key, value in section.values.items()]
    problems = [problem for section in report.values() for problem in section.problems]
    lines += ["", *(f"problem: {problem}" for problem in problems)] if problems else ["", "no problems found"]
    return "\n".join(lines)


def software() -> Section:
    """Versions of Python, of this package and of the packages whose version matters."""
    values: dict[str, object] = {
        "omnistream": _version("omnistream"),
        "installed at": str(Path(__file__).resolve().parent.parent),
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{_distribution()}, {platform.system()} {platform.release()}, {platform.machine()}",
    }
    values |= {name: _version(name) for name in PACKAGES}
    return Section(values)


def machine() -> Section:
    """Processor, the cores this process may use, and memory in GB (10^9 bytes)."""
    flags = _cpu_info("flags") or _cpu_info("Features")
    memory = {name: int(size.split()[0]) * 1024 / 1e9 for name, size in _colon_file("/proc/meminfo").items()}
    cores = len(os.sched_getaffinity(0))
    section = Section(
        {
            "processor": _cpu_info("model name") or platform.processor() or None,
            "cores usable": cores,
            "cores in all": os.cpu_count(),
            "flags": [flag for flag in CPU_FLAGS if flag in flags.split()],
            "memory GB": round(memory.get("MemTotal", 0.0), 1),
            "memory available GB": round(memory.get("MemAvailable", 0.0), 1),
        }
    )
    limit = os.environ.get("OMP_NUM_THREADS")
    if limit and limit.isdigit() and int(limit) < cores:
        section.problems.append(f"OMP_NUM_THREADS={limit} keeps the network from using {cores} cores; unset it")
    return section


def torch_section() -> Section:
    """PyTorch: build, threads, and the GPUs it sees."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    section = Section(
        {
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "cuda build": torch.version.cuda,
            "gpus": gpus,
        }
    )
    if gpus and not torch.cuda.is_available():
        section.problems.append("torch sees a GPU but cannot use it: driver and CUDA build do not fit")
    if torch.version.cuda is None and Path("/proc/driver/nvidia/version").exists():
        section.problems.append(
            "this machine has an NVIDIA driver, but torch is a build without CUDA; "
            "reinstall it with: make clean-all && make setup TORCH_INDEX_URL=default"
        )
    return section


def engines() -> Section:
    """Which engines run here, why the others do not, and what `engine:=auto` takes."""
    from omnistream.engines.select import engine_report

    return Section({status.name: str(status) for status in engine_report()})


def _from_entry_point(point: EntryPoint) -> Section:
    section: Section = point.load()()
    return section


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "-" if value is None else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _colon_file(path: str) -> dict[str, str]:
    """First value of each key of a file of "key : value" lines; empty where the file does not exist."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in reversed(list(pairs)) if value.strip()}


def _cpu_info(key: str) -> str:
    return _colon_file("/proc/cpuinfo").get(key, "")


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "unknown distribution"


if __name__ == "__main__":
    sys.exit(main())
