# SPDX-License-Identifier: Apache-2.0
"""Do frozen features know where the named block is? A policy that has to take it can only be as exact.

Pictures of random starts; the policy's own pooling, told a colour, learns where on the table that block lies. The same
head and steps for every kind of token: trained features, those of the same network with random weights, bare pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from omnistream.errors import ConfigError
from omnistream.model.omnistream import OmniStream
from omnistream.policy.config import PoolingConfig
from omnistream.policy.pooling import ConditionedPooling
from omnistream.policy.vision import pixel_tokens
from omnistream.stream.preprocess import network_size, preprocess
from omnistream.weights import load_model, random_model

from .layout import BLOCKS
from .starts import draw_start
from .task_env import TaskWorld, View

NEAR = 0.015
"""Metres: open fingers still take a block if they come down so far beside it."""
_POOLING = PoolingConfig(heads=8, width=96)
_CONDITION, _HIDDEN = 64, 128
_RATE, _DECAY = 2e-3, 1e-2
_BETA = 0.01
"""Metres: smaller errors count by their square."""
_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class LocateOptions:
    """How it is asked."""

    pictures: int = 1000
    """A fifth of them tests."""
    steps: int = 2500
    batch: int = 64
    static: int = 224
    """Pixels per side of the pictures."""
    image_size: int = 128
    """To which they are resized."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pictures < 10 or min(self.steps, self.batch) < 1 or min(self.static, self.image_size) < 16:
            raise ConfigError(
                f"pictures {self.pictures}, steps {self.steps}, batch {self.batch}, static {self.static}, image_size "
                f"{self.image_size}; expected at least 10, 1, 1, 16 and 16"
            )


def locate(
    weights: str | None, options: LocateOptions, *, say: Callable[[str], object] = lambda text: None
) -> dict[str, Any]:
    """Rows of errors by kind of token: the weights and their network with random ones (not without weights), pixels.

    Each row: median_cm, mean_cm, p90_cm, within (share closer than `NEAR`) and its 95 % bootstrap over pictures.
    """
    images, places = _pictures(options)
    say(f"{len(images)} pictures")
    kinds: dict[str, OmniStream | None] = {}
    if weights is not None:
        model = load_model(weights)
        kinds = {"weights": model.eval(), "random weights": random_model(model.config, options.seed).eval()}
    kinds["pixels"] = None
    rows = {}
    for name, one in kinds.items():
        begin = time.process_time()
        tokens = _tokens(images, one, options.image_size)
        spent = 1e3 * (time.process_time() - begin) / len(images)
        rows[name] = _row(_errors(tokens, places, options)) | {"cpu_ms_per_picture": round(spent, 2)}
        say(f"{name}: median {rows[name]['median_cm']:.2f} cm")
    return {"near_cm": 100 * NEAR, "test_pictures": len(images) - _split(len(images)), "rows": rows}


def table(report: dict[str, Any]) -> str:
    """As text."""
    lines = [f"{'tokens':<18}{'median':>9}{'mean':>9}{'90 %':>9}   closer than {report['near_cm']:g} cm"]
    for name, row in report["rows"].items():
        low, high = row["within95"]
        lines.append(
            f"{name:<18}{row['median_cm']:>6.2f} cm{row['mean_cm']:>6.2f} cm{row['p90_cm']:>6.2f} cm   "
            f"{100 * row['within']:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"
        )
    return "\n".join(lines)


def _pictures(options: LocateOptions) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[N, H, W, 3] and the blocks' places [N, 4, 2], metres."""
    world = TaskWorld(View(static=options.static, gripper=0))
    images, places = [], []
    for number in range(options.pictures):
        start = draw_start(np.random.default_rng([options.seed, number]))
        world.reset(start.plain(), number)
        images.append(world.look()["rgb_static"])
        blocks = world.env.state().blocks
        places.append([blocks[name].position[:2] for name in BLOCKS])
    world.env.close()
    return np.array(images), np.array(places, np.float32)


@torch.inference_mode()
def _tokens(images: NDArray[np.uint8], model: OmniStream | None, side: int) -> Tensor:
    """[N, patches, D] float16; None: pixels. Every picture is the first of a stream."""
    if model is None:
        return torch.from_numpy(np.stack([pixel_tokens(image, side)[1:] for image in images]))
    size = network_size(images.shape[1], images.shape[2], side, model.config.backbone.patch_size)
    found = []
    for first in range(0, len(images), _AT_ONCE):
        clip = torch.cat([preprocess(image, size, model.config) for image in images[first : first + _AT_ONCE]])
        out = model.backbone(clip[:, None], policy="full", camera_token=model.config.camera_token)
        found.append(out.patches[:, 0].half())
    return torch.cat(found).clone()


class _Finder(nn.Module):
    """Tokens [B, N, D] and colours [B] to places [B, 2]."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.colour = nn.Embedding(len(BLOCKS), _CONDITION)
        self.pool = ConditionedPooling(dim, _CONDITION, (side, side), _POOLING)
        places = _POOLING.heads * (_POOLING.values + 2)
        self.head = nn.Sequential(nn.Linear(places, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 2))

    def forward(self, tokens: Tensor, colours: Tensor) -> Tensor:
        found: Tensor = self.head(self.pool(tokens, self.colour(colours)[:, None])[:, 0])
        return found


def _errors(tokens: Tensor, places: NDArray[np.float32], options: LocateOptions) -> NDArray[np.float64]:
    """[test pictures, 4] metres."""
    count, targets = _split(len(tokens)), torch.from_numpy(places)
    mean, std = tokens[:count].float().mean((0, 1)), tokens[:count].float().std((0, 1)).clamp(min=1e-3)
    middle = targets[:count].mean((0, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        finder = _Finder(tokens.shape[2], round(tokens.shape[1] ** 0.5))
        optimizer = torch.optim.AdamW(finder.parameters(), _RATE, weight_decay=_DECAY)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, max(2, options.steps))
        for _ in range(options.steps):
            rows, colours = torch.randint(count, (options.batch,)), torch.randint(len(BLOCKS), (options.batch,))
            found = finder((tokens[rows].float() - mean) / std, colours) / 10 + middle
            loss = F.smooth_l1_loss(found, targets[rows, colours], beta=_BETA)
            optimizer.zero_grad()
            (10 * loss).backward()
            optimizer.step()
            rate.step()
    with torch.inference_mode():
        test = (tokens[count:].float() - mean) / std
        apart = [
            (finder(test, torch.full((len(test),), colour)) / 10 + middle - targets[count:, colour]).norm(dim=-1)
            for colour in range(len(BLOCKS))
        ]
    return torch.stack(apart, 1).double().numpy()


def _split(count: int) -> int:
    return int(0.8 * count)


def _row(errors: NDArray[np.float64]) -> dict[str, Any]:
    near = (errors < NEAR).mean(1)
    rng = np.random.default_rng(0)
    means = [float(near[rng.integers(0, len(near), len(near))].mean()) for _ in range(2000)]
    return {
        "median_cm": round(100 * float(np.median(errors)), 3),
        "mean_cm": round(100 * float(errors.mean()), 3),
        "p90_cm": round(100 * float(np.quantile(errors, 0.9)), 3),
        "within": round(float(near.mean()), 4),
        "within95": [round(float(value), 4) for value in np.percentile(means, (2.5, 97.5))],
    }
