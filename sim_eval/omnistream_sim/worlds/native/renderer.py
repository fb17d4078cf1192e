# SPDX-License-Identifier: Apache-2.0
"""The native renderer: hands the tables of a batch of frames to the compiled library and takes the pictures back.

The library runs on the calling thread and without Python's lock, so a second thread can train meanwhile.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from ..quality import Job, Pictures
from ..tables import FrameTables
from .library import load

_INTS = (
    "frames", "height", "width", "n_box", "n_revolution", "n_capsule", "n_light", "has_terrain",
    "shadow_rays", "ambient_rays", "samples",
)  # fmt: skip
_INPUTS = ("records", "frame", "solid", "screen", "bound", "lens", "offsets", "number")
_OUTPUTS = ("depth", "surface", "normals", "rgb")


class _Job(ctypes.Structure):
    """The struct of the same name in driver.cpp, field by field."""

    _fields_ = (
        [(name, ctypes.c_int) for name in _INTS]
        + [(name, ctypes.c_void_p) for name in _INPUTS]
        + [(name, ctypes.c_void_p) for name in _OUTPUTS]
    )


class NativeRenderer:
    """Same call as `TorchRenderer`, for tables on the CPU.

    Raises:
        NativeUnavailable: at construction, when there is no C++ compiler.
    """

    def __init__(self, octaves: int) -> None:
        self._library = load(octaves)
        if self._library.job_bytes() != ctypes.sizeof(_Job):
            raise RuntimeError("the layout of Job in driver.cpp and in renderer.py differs")

    def __call__(self, tables: FrameTables, job: Job) -> Pictures:
        """Pictures of all frames of the tables."""
        f, h, w = tables.frames, job.height, job.width
        offsets = torch.tensor(job.quality.offsets(), dtype=torch.float32)
        inputs = {
            "records": tables.records,
            "frame": tables.frame,
            "solid": tables.solid,
            "screen": screen_bounds(tables),
            "bound": tables.bound,
            "lens": job.lens,
            "offsets": offsets,
            "number": job.number,
        }
        inputs = {name: x.contiguous() for name, x in inputs.items()}
        outputs: dict[str, Tensor | None] = {
            "depth": torch.empty(f, h, w) if job.depth else None,
            "surface": torch.empty(f, h, w, dtype=torch.int32) if job.surface else None,
            "normals": torch.empty(f, h, w, 3) if job.normals else None,
            "rgb": torch.empty(f, h, w, 3, dtype=torch.uint8) if job.rgb else None,
        }
        numbers = {
            "frames": f,
            "height": h,
            "width": w,
            "n_box": tables.n_box,
            "n_revolution": tables.n_revolution,
            "n_capsule": tables.n_capsule,
            "n_light": tables.n_light,
            "has_terrain": int(tables.has_terrain),
            "shadow_rays": job.quality.shadow_rays,
            "ambient_rays": job.quality.ambient_rays,
            "samples": job.quality.samples,
        }
        pointers = {name: x.data_ptr() for name, x in (inputs | outputs).items() if x is not None}
        self._library.render_frames(ctypes.byref(_Job(**numbers, **pointers)))
        return Pictures(**outputs)


def screen_bounds(tables: FrameTables) -> Tensor:
    """[F, N, 4] least and largest x, then y, of every object on the plane z = 1; empty where inactive or behind.

    The corners of the bounding box contain the object, so their projections contain its image; an object that reaches
    behind the camera is given the whole plane.
    """
    signs = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    corners = tables.bound[:, :, None] * signs  # [F, N, 8, 3]
    seen = (tables.to_camera[:, :, None, :, :3] * corners[..., None, :]).sum(-1) + tables.to_camera[:, :, None, :, 3]
    z = seen[..., 2]
    in_front, behind = (z > 1e-3).any(-1) & tables.active, (z < 1e-3).any(-1)
    plane = seen[..., :2] / z.clamp_min(1e-3)[..., None]
    slack = 1e-4
    low, high = plane.amin(2) - slack, plane.amax(2) + slack
    low = torch.where(behind[..., None], -torch.inf, low)
    high = torch.where(behind[..., None], torch.inf, high)
    low = torch.where(in_front[..., None], low, torch.inf)
    high = torch.where(in_front[..., None], high, -torch.inf)
    return torch.stack([low[..., 0], high[..., 0], low[..., 1], high[..., 1]], -1)
