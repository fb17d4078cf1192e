# SPDX-License-Identifier: Apache-2.0
"""The compiled renderer on a CUDA device: the same text, compiled by NVRTC (it comes with torch), one thread per pixel.

Nothing waits for the device: a call queues one kernel on torch's current stream.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from ..quality import Job, Pictures
from ..tables import FrameTables
from .compiled import NativeUnavailable, cached, source
from .job import call

THREADS = 256
"""Per block; driver.cpp makes them a square of 16 x 16 pixels."""


class CudaRenderer:
    """Same call as `TorchRenderer`, for tables on one CUDA device."""

    def __init__(self, octaves: int, device: torch.device) -> None:
        """NativeUnavailable when NVRTC is not found, or refuses the text, or the driver refuses the result."""
        torch.zeros(1, device=device)  # torch makes the context that the driver loads the kernel into
        major, minor = torch.cuda.get_device_capability(device)
        name = f"sm_{major}{minor}"
        path = cached(
            "cubin", lambda made: made.write_bytes(compile_cubin(source(octaves, 1), name)), str(octaves), name
        )
        self._driver = ctypes.CDLL("libcuda.so.1")
        module, self._kernel = ctypes.c_void_p(), ctypes.c_void_p()
        with torch.cuda.device(device):
            _check(self._driver.cuModuleLoadData(ctypes.byref(module), path.read_bytes()), "cuModuleLoadData")
            found = self._driver.cuModuleGetFunction(ctypes.byref(self._kernel), module, b"render_frames")
            _check(found, "cuModuleGetFunction")

    def __call__(self, tables: FrameTables, job: Job) -> Pictures:
        """Pictures of all frames of the tables."""
        made = call(tables, job)
        blocks = tables.frames * -(-job.height // 16) * -(-job.width // 16)
        arguments = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(made.struct), ctypes.c_void_p))
        with torch.cuda.device(tables.records.device):
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            status = self._driver.cuLaunchKernel(self._kernel, blocks, 1, 1, THREADS, 1, 1, 0, stream, arguments, None)
        _check(status, "cuLaunchKernel")
        return made.pictures()  # freed inputs are reused in the order of the stream, so after the kernel


def compile_cubin(text: str, architecture: str) -> bytes:
    """Machine code for an architecture such as sm_90. NativeUnavailable with the compiler's message if it fails."""
    nvrtc = load_nvrtc()
    program = ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"rays.cu", 0, None, None), "NVRTC")
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17", b"--disable-warnings"]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if status:
        raise NativeUnavailable(f"NVRTC failed on the ray caster for {architecture}:\n{_log(nvrtc, program)[-2000:]}")
    size = ctypes.c_size_t()
    _check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)), "nvrtcGetCUBINSize")
    code = ctypes.create_string_buffer(size.value)
    _check(nvrtc.nvrtcGetCUBIN(program, code), "nvrtcGetCUBIN")
    return code.raw


def load_nvrtc() -> ctypes.CDLL:
    """NVRTC of torch's CUDA build. NativeUnavailable if there is none."""
    major = (torch.version.cuda or "12").split(".")[0]
    name = f"libnvrtc.so.{major}"
    beside = sorted((Path(torch.__file__).parents[1] / "nvidia").glob(f"**/{name}"))
    for candidate in (name, *map(str, beside)):
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    raise NativeUnavailable(f"{name} is not found; it comes with torch's CUDA packages")


def _log(nvrtc: ctypes.CDLL, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, text)
    return text.value.decode(errors="replace")


def _check(status: int, what: str) -> None:
    if status:
        raise NativeUnavailable(f"{what} failed with status {status}")
