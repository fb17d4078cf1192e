# SPDX-License-Identifier: Apache-2.0
"""Scenes in, clips out: pictures and exact geometry, only what was asked for.

Work is cut into chunks of whole clips so that memory stays bounded. The native renderer is used where it can be
compiled, everywhere else the torch renderer; both do the same arithmetic.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .describe import describe, object_names
from .native import CudaRenderer, NativeRenderer, NativeUnavailable
from .quality import Job, Pictures, Quality, quality_of
from .scene import N_EXTRA, Scenes, intrinsics, matmul, object_poses
from .tables import FrameTables, affine, frame_tables, times_vector
from .things import Thing, things_of
from .torch_renderer import TorchRenderer

OUTPUTS = ("rgb", "depth", "normals", "scene_flow", "flow", "ids", "text", "things")
"""What can be asked for; poses, intrinsics and stamps always come along."""
BACKENDS = ("auto", "native", "torch")
Renderer = Callable[[FrameTables, Job], Pictures]


@dataclass(frozen=True)
class Clip:
    """B clips of T frames; None where not asked for."""

    T_world_camera: Tensor  # [B, T, 4, 4] world z up
    K: Tensor  # [B, 3, 3]
    stamps: Tensor  # [T] seconds
    rgb: Tensor | None = None  # [B, T, H, W, 3] uint8
    depth: Tensor | None = None  # [B, T, H, W] metres along z; NaN: nothing there
    normals: Tensor | None = None  # [B, T, H, W, 3] unit, camera frame, facing the camera; 0: nothing there
    scene_flow: Tensor | None = (
        None  # [B, T, H, W, 3] metres, world: where the seen point is one frame later, minus now
    )
    flow: Tensor | None = (
        None  # [B, T, H, W, 2] pixels: where it appears in the next frame, minus the pixel; NaN: nowhere
    )
    ids: Tensor | None = None  # [B, T, H, W] int32 object ids; 0: nothing there
    names: tuple[dict[int, str], ...] = ()  # per clip: object id -> words
    text: tuple[str, ...] = ()  # per clip: a description of what is seen
    things: tuple[tuple[Thing, ...], ...] = ()  # per clip: the objects, seen or not
    seeds: tuple[int, ...] = ()  # per clip: the index that reproduces it


@functools.cache
def _compiled(octaves: int, device: str) -> Renderer:
    if device.startswith("cuda"):
        return CudaRenderer(octaves, torch.device(device))
    return NativeRenderer(octaves)


@functools.cache
def _best(octaves: int, device: str) -> Renderer:
    """The compiled renderer if there can be one, else torch; says once why not."""
    if not device.startswith(("cpu", "cuda")):
        return TorchRenderer()
    try:
        return _compiled(octaves, device)
    except NativeUnavailable as error:
        warnings.warn(f"rendering with torch, which is many times slower: {error}", stacklevel=2)
        return TorchRenderer()


def renderer_for(device: torch.device, octaves: int, backend: str = "auto") -> Renderer:
    """The renderer for tables on that device.

    Raises:
        ValueError: an unknown backend.
        NativeUnavailable: the native one was asked for and cannot be made.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}")
    if backend == "torch":
        return TorchRenderer()
    return (_compiled if backend == "native" else _best)(octaves, str(device))


def render(
    scenes: Scenes,
    size: tuple[int, int],
    *,
    frames: int | None = None,
    want: Iterable[str] = ("rgb", "depth"),
    quality: Quality | str = "fast",
    backend: str = "auto",
    clips_per_chunk: int | None = None,
) -> Clip:
    """Render the scenes.

    Args:
        scenes: B scenes on any device; the result is on the same device.
        size: (height, width) in pixels.
        frames: how many frames from the start (default: all the scenes have).
        want: any of `OUTPUTS`.
        quality: a tier of `quality.QUALITIES` or your own.
        backend: auto, native (compiled loops) or torch.
        clips_per_chunk: bounds memory; default: what suits the device.

    Raises:
        ValueError: an unknown output, tier or backend, or more frames than the scenes have.
    """
    wanted = frozenset(want)
    if wanted - set(OUTPUTS):
        raise ValueError(f"want has {sorted(wanted - set(OUTPUTS))}; expected some of {', '.join(OUTPUTS)}")
    quality = quality_of(quality)
    count = scenes.frames if frames is None else frames
    if not 1 <= count <= scenes.frames:
        raise ValueError(f"frames is {count}; the scenes have {scenes.frames}")
    if "text" in wanted:
        wanted |= {"ids"}
    renderer = renderer_for(scenes.device, quality.octaves, backend)
    groups = _groups(scenes, clips_per_chunk or _clips_per_chunk(scenes, count, size))
    parts = [_chunk(scenes.take(rows), renderer, count, size, wanted, quality) for rows in groups]
    order = [row for rows in groups for row in rows]
    back = torch.tensor([order.index(i) for i in range(scenes.batch)], device=scenes.device)
    out = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if len(groups) > 1 and order != sorted(order):
        out = {name: value.index_select(0, back) for name, value in out.items()}
    texts = describe(scenes, out["ids"].cpu()) if "text" in wanted else ()
    return Clip(
        T_world_camera=scenes.T_world_camera[:, :count],
        K=intrinsics(scenes, *size),
        stamps=scenes.stamps[:count],
        names=object_names(scenes) if "text" in wanted else (),
        text=texts,
        things=things_of(scenes, count) if "things" in wanted else (),
        seeds=scenes.seeds,
        **out,  # type: ignore[arg-type]
    )


def _clips_per_chunk(scenes: Scenes, frames: int, size: tuple[int, int]) -> int:
    """On a CPU what stays in its caches, on a GPU what keeps it busy within a few GiB."""
    pixels = frames * size[0] * size[1]
    return max(1, (1 << 20 if scenes.device.type == "cpu" else 1 << 26) // pixels)


def _groups(scenes: Scenes, limit: int) -> list[list[int]]:
    """Batch rows in chunks of at most `limit`, those with terrain apart: the others need not pay for it."""
    groups = []
    for flag in (False, True):
        rows = [i for i in range(scenes.batch) if scenes.has_terrain[i] == flag]
        groups += [rows[i : i + limit] for i in range(0, len(rows), limit)]
    return groups


def _chunk(
    scenes: Scenes, renderer: Renderer, count: int, size: tuple[int, int], want: frozenset[str], quality: Quality
) -> dict[str, Tensor]:
    """The wanted outputs of some clips, [B, T, H, W, ...]."""
    height, width = size
    k = intrinsics(scenes, height, width)
    lens = torch.stack([k[:, 0, 0], k[:, 0, 2], k[:, 1, 2]], 1).repeat_interleave(count, 0)
    motion = bool(want & {"flow", "scene_flow"})
    job = Job(
        height=height,
        width=width,
        lens=lens,
        number=(torch.arange(count, device=k.device, dtype=torch.int32) + scenes.first_frame).repeat(scenes.batch),
        quality=quality,
        depth="depth" in want or motion,
        surface="ids" in want or motion,
        normals="normals" in want,
        rgb="rgb" in want,
    )
    pictures = renderer(frame_tables(scenes, 0, count, 1 / k[:, 0, 0]), job)
    made = {f.name: getattr(pictures, f.name) for f in fields(pictures)}
    out = {name: value.unflatten(0, (scenes.batch, count)) for name, value in made.items() if value is not None}
    if "ids" in want:
        nothing = torch.zeros_like(scenes.object_id[:, :1])
        ids = torch.cat([scenes.object_id, nothing], 1)[:, None].expand(-1, count, -1)
        out["ids"] = torch.gather(ids, 2, out["surface"].flatten(2).long()).view(out["surface"].shape)
    if motion:
        out |= _motion(scenes, k, out["depth"], out["surface"])
    return {name: value for name, value in out.items() if name in want}


def _motion(scenes: Scenes, k: Tensor, depth: Tensor, surface: Tensor) -> dict[str, Tensor]:
    """Scene flow (world, metres) and optical flow (pixels) from each frame to the next."""
    b, count, height, width = depth.shape
    r, c = object_poses(scenes, scenes.stamps[: count + 1])
    pose = scenes.T_world_camera[:, : count + 1]
    r0, r1, c0, c1 = r[:, :-1], r[:, 1:], c[:, :-1], c[:, 1:]
    r_wc, t_wc = pose[:, :-1, None, :3, :3], pose[:, :-1, None, :3, 3]
    # where a point of an object is one frame later: R1 R0^T (world - c0) + c1, as a map from the camera frame
    turn = matmul(r1, r0.transpose(-1, -2))
    later = affine(matmul(turn, r_wc), times_vector(turn, t_wc - c0) + c1)
    later = torch.cat([later, affine(r_wc, t_wc).expand(-1, -1, N_EXTRA + 1, -1, -1)], 2).flatten(3)
    m = torch.gather(later, 2, surface.flatten(2).long()[..., None].expand(-1, -1, -1, 12)).unflatten(-1, (3, 4))
    focal = k[:, 0, 0, None, None]
    x = (torch.arange(width, device=k.device) - k[:, 0, 2, None, None]) / focal  # [B, 1, W]
    y = (torch.arange(height, device=k.device)[:, None] - k[:, 1, 2, None, None]) / focal  # [B, H, 1]
    z = depth.flatten(2)
    ray = torch.stack([x.expand(b, height, width), y.expand(b, height, width)], -1).flatten(1, 2)[:, None]
    point = torch.cat([ray * z[..., None], z[..., None]], -1)
    moved = times_vector(m[..., :3], point) + m[..., 3]
    now = times_vector(pose[:, :-1, None, :3, :3], point) + pose[:, :-1, None, :3, 3]
    seen = times_vector(pose[:, 1:, None, :3, :3].transpose(-1, -2), moved - pose[:, 1:, None, :3, 3])
    ahead = torch.where(seen[..., 2:] > 1e-6, seen[..., 2:], torch.nan)
    flow = (seen[..., :2] / ahead - ray) * focal[..., None]
    shape = (b, count, height, width)
    return {"scene_flow": (moved - now).reshape(*shape, 3), "flow": flow.reshape(*shape, 2)}
