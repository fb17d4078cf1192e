# SPDX-License-Identifier: Apache-2.0
"""How fast the tabletop is here, by processor time of one core (the machine may be shared)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .clips import Tabletop
from .config import TabletopConfig
from .env import TabletopEnv

STEPS = 40
"""Of the environment, per row."""


def bench(*, size: int = 128, frames: int = 64, clips: int = 4) -> dict[str, Any]:
    """Frames per second of the free camera, building the scenes included, and control periods of the environment."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = {
            "free camera, shipped": _free(size, frames, clips, shadow=0.0),
            "free camera, shipped, shadows": _free(size, frames, clips, shadow=1.0),
            "free camera, random": _free(size, frames, clips, scene="random", shadow=0.0),
            "free camera, random, 16 frames": _free(size, 16, 2 * clips, scene="random", shadow=0.0),
            "environment, no pictures": _steps(size, pictures=False),
            "environment, two cameras": _steps(size, pictures=True),
        }
    finally:
        torch.set_num_threads(threads)
    return {"size": size, "frames_per_clip": frames, "clock": "processor time, one core", "rows": rows}


def _free(size: int, frames: int, clips: int, **options: Any) -> dict[str, float]:
    renderer = Tabletop(TabletopConfig(**options))
    renderer.clips([0], frames=1, size=(size, size), rate=30.0)  # loads the meshes
    row = _time(
        lambda: renderer.clips(range(1, clips + 1), frames=frames, size=(size, size), rate=30.0), clips * frames
    )
    renderer.close()
    return row


def _steps(size: int, pictures: bool) -> dict[str, float]:
    env = TabletopEnv(static_size=(size, size), gripper_size=(size, size), pictures=pictures)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, 7))

    def work() -> None:
        for action in actions:
            env.step(action)

    row = _time(work, STEPS)
    env.close()
    return row


def _time(work: Callable[[], object], count: int) -> dict[str, float]:
    start = time.process_time()
    work()
    spent = time.process_time() - start
    return {"frames_per_s": round(count / spent, 1), "ms_per_frame": round(1e3 * spent / count, 3)}
