# SPDX-License-Identifier: Apache-2.0
"""What the compiled renderers are called with: the struct `Job` of driver.cpp, filled from tables of frames."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from ..quality import Job, Pictures
from ..tables import FrameTables

_INTS = (
    "frames", "height", "width", "n_box", "n_revolution", "n_capsule", "n_light", "has_terrain",
    "shadow_rays", "ambient_rays", "samples",
)  # fmt: skip
_INPUTS = ("records", "frame", "solid", "screen", "bound", "lens", "offsets", "number")
_OUTPUTS = ("depth", "surface", "normals", "rgb")


class JobStruct(ctypes.Structure):
    """The struct of the same name in driver.cpp, field by field."""

    _fields_ = (
        [(name, ctypes.c_int) for name in _INTS]
        + [(name, ctypes.c_void_p) for name in _INPUTS]
        + [(name, ctypes.c_void_p) for name in _OUTPUTS]
    )


@dataclass(frozen=True)
class Call:
    """A filled struct, and the tensors that its pointers point into."""

    struct: JobStruct
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor | None]

    def pictures(self) -> Pictures:
        """What the renderer has written."""
        return Pictures(**self.outputs)


def call(tables: FrameTables, job: Job) -> Call:
    """The struct for all frames of the tables, with memory for the results on their device."""
    f, h, w, device = tables.frames, job.height, job.width, tables.records.device
    inputs = {
        "records": tables.records,
        "frame": tables.frame,
        "solid": tables.solid,
        "screen": screen_bounds(tables),
        "bound": tables.bound,
        "lens": job.lens,
        "offsets": torch.tensor(job.quality.offsets(), dtype=torch.float32, device=device),
        "number": job.number,
    }
    inputs = {name: x.contiguous() for name, x in inputs.items()}

    def empty(wanted: bool, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor | None:
        return torch.empty(f, h, w, *shape, dtype=dtype, device=device) if wanted else None

    outputs = {
        "depth": empty(job.depth),
        "surface": empty(job.surface, dtype=torch.int32),
        "normals": empty(job.normals, 3),
        "rgb": empty(job.rgb, 3, dtype=torch.uint8),
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
    return Call(JobStruct(**numbers, **pointers), inputs, outputs)


def screen_bounds(tables: FrameTables) -> Tensor:
    """[F, N, 4] least and largest x, then y, of every object on the plane z = 1; empty where inactive or behind.

    The corners of the bounding box contain the object, so their projections contain its image; an object that reaches
    behind the camera is given the whole plane.
    """
    signs = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    signs = signs.to(tables.bound.device)
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
