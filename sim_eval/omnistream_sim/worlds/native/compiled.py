# SPDX-License-Identifier: Apache-2.0
"""The native renderer's library: generated, compiled once with the machine's C++ compiler, kept in a cache folder.

`CXX` names the compiler (default g++), `OMNISTREAM_CACHE` the folder (default ~/.cache/omnistream). Compiling takes
some ten seconds; the name of the library carries a hash of text, compiler and processor, so a change of any of them
compiles anew.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from ..shading import AMBIENT_REACH
from ..tables import FRAME_AT, FRAME_COLUMNS, RECORD_AT, RECORD_COLUMNS
from ..terrain import REFINE, STEPS

SIDE = 16
"""Tiles are SIDE x SIDE pixels: small enough for short object lists and for the first-level cache."""

_FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-fwrapv", "-fno-math-errno", "-fno-trapping-math",
    "-ffp-contract=fast", "-w",
)  # fmt: skip

_PRELUDE = """
#ifdef __CUDACC__
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#define DEVICE __device__ __forceinline__
#define STAGE static __device__ __forceinline__
#else
#include <cmath>
#define DEVICE inline
#define STAGE static
#endif
"""
_MATHS = """
STAGE float fast_sin(float a) {  // |error| < 2e-6 for the arguments of textures and terrain
    const float k = floorf(a * 0.31830988618f + 0.5f);
    const float x = (a - k * 3.140625f) - k * 9.6765358979e-4f;
    const float s = x * x;
    const float p = x + x * s * (-1.6666654611e-1f + s * (8.3321608736e-3f - s * 1.9515295891e-4f));
    return ((int)k & 1) ? -p : p;
}
STAGE float fast_cos(float a) { return fast_sin(a + 1.57079632679f); }
STAGE float fast_exp(float a) {
    const float x = (a < -80.f ? -80.f : (a > 80.f ? 80.f : a)) * 1.44269504089f;
    const float k = floorf(x + 0.5f);
    const float f = x - k;
    const float p = 1.f + f * (0.693147180f + f * (0.240226507f + f * (0.0555041087f + f * (0.00961812911f
        + f * 0.00133335581f))));
    union { int i; float f; } power = {((int)k + 127) << 23};
    return p * power.f;
}
STAGE float fast_atan2(float y, float x) {
    const float ax = fabsf(x), ay = fabsf(y); const float big = ax > ay ? ax : ay, small = ax > ay ? ay : ax; const
    float a = small / (big > 1e-30f ? big : 1e-30f), s = a * a; float r = a * (0.99997726f + s * (-0.33262347f + s *
    (0.19354346f + s * (-0.11643287f + s * (0.05265332f - s * 0.01172120f))))); r = ay > ax ? 1.57079637f - r : r; r =
    x < 0 ? 3.14159274f - r : r; return y < 0 ? -r : r;
}
"""


class NativeUnavailable(RuntimeError):
    """No C++ compiler, or it failed; the torch renderer does the same work, more slowly."""


def source(octaves: int, side: int = SIDE) -> str:
    """The whole text, C++ and CUDA alike. side: of a tile in pixels; 1 for a thread per pixel."""
    from .emit import INTEGER, emit  # torch's tracer is slow to import
    from .stages import stages

    emitted = [emit(stage, RECORD_AT, FRAME_AT) for stage in stages(octaves)]
    buffers = {name for stage in stages(octaves) for name in stage.rays} | {
        n for _, outputs in emitted for n in outputs
    }
    align = "alignas(64) " if side > 1 else ""
    fields = "\n".join(
        f"    {align}{'int' if n in INTEGER else 'float'} {n}[RAYS];" for n in sorted(buffers | {"surface"})
    )
    constants = {
        "SIDE": side,
        "RAYS": side * side,
        "RECORD": len(RECORD_COLUMNS),
        "FRAME": len(FRAME_COLUMNS),
        "H0": RECORD_AT["h0"],
        "LIGHT0": FRAME_AT["light00"],
        "RADIUS0": FRAME_AT["radius0"],
        "STEPS": STEPS,
        "REFINE": REFINE,
    }
    return "\n".join(
        [
            _PRELUDE,
            *(f"constexpr int {name} = {value};" for name, value in constants.items()),
            f"constexpr float REACH = {AMBIENT_REACH}f;",
            "struct Tile {\n" + fields + "\n};",
            _MATHS,
            *(text for text, _ in emitted),
            (Path(__file__).parent / "driver.cpp").read_text(),
        ]
    )


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    lines = {line.split(":")[0].strip(): line for line in info.splitlines() if ":" in line}
    return lines.get("model name", "") + lines.get("flags", "")


def _package_text() -> str:
    """Everything that the generated text depends on: the sources of the package (tracing them takes seconds)."""
    files = [*sorted(Path(__file__).parent.parent.rglob("*.py")), Path(__file__).parent / "driver.cpp"]
    return "\n".join(f.read_text() for f in files)


def cache_folder() -> Path:
    """Where compiled libraries are kept."""
    return Path(os.environ.get("OMNISTREAM_CACHE", Path.home() / ".cache" / "omnistream")) / "worlds"


@cache
def load(octaves: int, side: int = SIDE) -> ctypes.CDLL:
    """The library for the CPU, compiled if needed.

    Raises:
        NativeUnavailable: no compiler, or the compiler failed (its message is included).
    """
    name = os.environ.get("CXX", "g++")
    compiler = shutil.which(name)
    if compiler is None:
        raise NativeUnavailable(f"no C++ compiler {name!r} on PATH")

    def build(made: Path) -> None:
        text = made.with_name("rays.cpp")
        text.write_text(source(octaves, side))
        done = subprocess.run([compiler, *_FLAGS, text, "-o", made], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NativeUnavailable(f"{compiler} failed on the ray caster:\n{done.stderr[-2000:]}")

    library = ctypes.CDLL(str(cached("so", build, str(octaves), str(side), compiler, *_FLAGS, _processor())))
    library.render_frames.argtypes = [ctypes.c_void_p]
    library.render_frames.restype = None
    return library


def cached(suffix: str, build: Callable[[Path], object], *key: str) -> Path:
    """The file that `build` makes, made once for these sources, this torch and this key.

    Raises:
        NativeUnavailable: the cache folder cannot be written.
    """
    parts = "\n".join([_package_text(), torch.__version__, *key])
    path = cache_folder() / f"rays-{hashlib.sha256(parts.encode()).hexdigest()[:16]}.{suffix}"
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            build(made)
            made.replace(path)
    except OSError as error:
        raise NativeUnavailable(f"{path}: {error}; OMNISTREAM_CACHE names another folder") from error
    return path
