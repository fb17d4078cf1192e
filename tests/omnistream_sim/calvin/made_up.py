# SPDX-License-Identifier: Apache-2.0
"""Recordings that look like CALVIN's, without the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np

from omnistream_sim.calvin.recording import Demo, frame
from omnistream_sim.calvin.starts import ROBOT

ACTION = (1, -0.5, 0, 0, 0, 0.25, -1.0)


def seen(number: int) -> dict[str, Any]:
    """As calvin_env's observation."""
    rng = np.random.default_rng(number)
    return {
        "rgb_obs": {
            "rgb_static": rng.integers(0, 256, (200, 200, 3), np.uint8),
            "rgb_gripper": rng.integers(0, 256, (84, 84, 3), np.uint8),
        },
        "depth_obs": {"depth_static": np.ones((200, 200), np.float32), "depth_gripper": np.ones((84, 84), np.float32)},
        "robot_obs": np.array(ROBOT) + 0.001 * number,
        "scene_obs": np.zeros(24),
    }


def recorded(task: str, sentence: str, numbers: range, action: tuple[float, ...] = ACTION) -> Demo:
    """As many frames as numbers, with one action."""
    frames = [frame(seen(number), np.array(action)) for number in numbers]
    return Demo(task, sentence, {name: np.stack([one[name] for one in frames]) for name in frames[0]})
