# SPDX-License-Identifier: Apache-2.0
"""Which patches the student does not see, and how the backbone is kept from seeing them.

A mask is [h, w] bool, True where hidden. All draws are made on the host from the generator that is passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from omnistream.errors import ConfigError
from omnistream.model.backbone import Backbone
from omnistream_training.ssl.config import GLOBALS, SslConfig

IMAGE_ASPECT = (0.3, 1 / 0.3)
"""Of a block in a single picture (DINOv2)."""
TUBE_ASPECT = (0.75, 1.5)
"""Of a tube (V-JEPA 2)."""
SMALLEST = 4
"""Patches of a block in a single picture; where so few are left to mask, they are drawn one by one."""


def image_mask(grid: tuple[int, int], count: int, draw: torch.Generator) -> Tensor:
    """Exactly `count` masked patches, in blocks as far as they fit, the rest strewn."""
    h, w = grid
    if not 0 <= count < h * w:
        raise ConfigError(f"{count} of {h * w} patches are to be masked; expected 0 or more, and fewer than there are")
    mask = torch.zeros(h, w, dtype=torch.bool)
    for _ in range(10):
        left = count - int(mask.sum())
        if left <= SMALLEST:
            break
        area = SMALLEST + (left - SMALLEST) * float(torch.rand(1, generator=draw))
        rows, columns = _block(grid, area, IMAGE_ASPECT, draw)
        before = mask.clone()
        mask[rows, columns] = True
        if int(mask.sum()) > count:
            mask = before
    left = count - int(mask.sum())
    free = (~mask).flatten().nonzero()[:, 0]
    mask.view(-1)[free[torch.randperm(len(free), generator=draw)[:left]]] = True
    return mask


def tube_mask(grid: tuple[int, int], blocks: int, area: float, draw: torch.Generator) -> Tensor:
    """Union of `blocks` blocks of that share of the picture, the same in every frame of a clip; one patch stays."""
    mask = torch.zeros(grid, dtype=torch.bool)
    for _ in range(blocks):
        rows, columns = _block(grid, area * mask.numel(), TUBE_ASPECT, draw)
        mask[rows, columns] = True
    if mask.all():
        mask.view(-1)[int(torch.randint(mask.numel(), (1,), generator=draw))] = False
    return mask


def draw_masks(config: SslConfig, clips: int, video: bool, grid: tuple[int, int], draw: torch.Generator) -> Tensor:
    """[2, B, h, w] for the large crops of `clips` clips or, unless `video`, single pictures.

    Of pictures a share of `mask_probability` is masked, with ratios spread evenly over `mask_ratio` (DINOv3).
    """
    if video:
        return torch.stack(
            [torch.stack([tube_mask(grid, count, area, draw) for _ in range(clips)]) for count, area in config.tubes]
        )
    total = GLOBALS * clips
    masked = round(total * config.mask_probability)
    low, high = config.mask_ratio
    patches = grid[0] * grid[1]
    counts = [0] * (total - masked)
    for i in range(masked):
        ratio = low + (high - low) * (i + float(torch.rand(1, generator=draw))) / masked
        counts.append(min(max(1, round(ratio * patches)), patches - 1))
    order = torch.randperm(total, generator=draw).tolist()
    return torch.stack([image_mask(grid, counts[i], draw) for i in order]).unflatten(0, (GLOBALS, clips))


@contextmanager
def hidden_patches(backbone: Backbone, mask: Tensor, frames: int) -> Iterator[None]:
    """Within, `backbone(clip)` sees its mask token in place of the embedding of every masked patch.

    mask: [B, h, w] or [B, h*w] bool, for clips of `frames` frames. The backbone needs no argument for it: masking is
    training's business, and what streams never pays for it.
    """
    flat = mask.flatten(1).repeat_interleave(frames, 0)  # [B*T, h*w], as the backbone folds frames

    def replace(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
        if embedded.shape[:2] != flat.shape:
            raise ConfigError(f"mask is for {tuple(flat.shape)} frames and patches; the backbone embedded "
                              f"{tuple(embedded.shape[:2])}")  # fmt: skip
        return torch.where(flat[..., None], backbone.mask_token.to(embedded.dtype), embedded)

    handle = backbone.patch_embed.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _block(
    grid: tuple[int, int], area: float, aspect: tuple[float, float], draw: torch.Generator
) -> tuple[slice, slice]:
    """A random block of about `area` patches, height over width log-uniform in `aspect`, inside the grid."""
    low, high = math.log(aspect[0]), math.log(aspect[1])
    ratio = math.exp(low + (high - low) * float(torch.rand(1, generator=draw)))
    h = min(max(1, round(math.sqrt(area * ratio))), grid[0])
    w = min(max(1, round(math.sqrt(area / ratio))), grid[1])
    top = int(torch.randint(grid[0] - h + 1, (1,), generator=draw))
    left = int(torch.randint(grid[1] - w + 1, (1,), generator=draw))
    return slice(top, top + h), slice(left, left + w)
