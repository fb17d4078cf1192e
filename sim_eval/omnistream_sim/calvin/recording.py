# SPDX-License-Identifier: Apache-2.0
"""Writes a split of a data set in CALVIN's own file format, as calvin_env's datarenderer and the language annotator do.

    OUT/training/episode_0000000.npz ...            one control period each: actions, rel_actions, robot_obs, scene_obs,
                                                    rgb_static, rgb_gripper, depth_static, depth_gripper
    OUT/training/ep_start_end_ids.npy, ep_lens.npy  first and last frame of every recording, and how long it is
    OUT/training/scene_info.npy                     {scene: [first, last]}
    OUT/training/lang_annotations/auto_lang_ann.npy sentences, tasks, (first, last) of what they describe
    OUT/training/.hydra/merged_config.yaml          the simulator's configuration, which `--dataset OUT` evaluates in

Frame t holds what is seen and what is done about it: rel_actions is sent, and actions is the pose it aims at. (In the
original both are what came of it; here the arm may have been disturbed.) There are no tactile pictures, and the
sentences' MiniLM embeddings are zeros: no language model is asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scripted import UNITS

EMBEDDING = 384
"""Channels of the originals' sentence embeddings (MiniLM)."""
CAMERAS = ("static", "gripper")


@dataclass(frozen=True, eq=False)
class Demo:
    """One described recording."""

    task: str
    sentence: str
    arrays: dict[str, NDArray[Any]]
    """By key of the format, each [T, ...]."""

    def __len__(self) -> int:
        return len(self.arrays["rel_actions"])


def frame(raw: dict[str, Any], action: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """The arrays of one control period.

    raw: calvin_env's observation. action: [7] that was decided on seeing it, as rel_actions.
    """
    robot = np.array(raw["robot_obs"], np.float64)
    aim = np.concatenate([robot[:6] + UNITS * action[:6], action[6:]])
    aim[3:6] = (aim[3:6] + math.pi) % (2 * math.pi) - math.pi
    pictures = {f"rgb_{name}": np.asarray(raw["rgb_obs"][f"rgb_{name}"], np.uint8) for name in CAMERAS}
    depths = {f"depth_{name}": np.asarray(raw["depth_obs"][f"depth_{name}"], np.float32) for name in CAMERAS}
    numbers = {"actions": aim, "rel_actions": np.array(action, np.float64), "robot_obs": robot,
               "scene_obs": np.array(raw["scene_obs"], np.float64)}  # fmt: skip
    return numbers | pictures | depths


class SplitWriter:
    """A folder such as OUT/training. Each recording is described as a whole."""

    def __init__(self, folder: Path, scene: str) -> None:
        """scene: its name in scene_info.npy."""
        self.folder, self._scene = folder, scene
        self.frames = 0
        self._spans: list[tuple[int, int]] = []
        self._told: list[tuple[str, str]] = []
        folder.mkdir(parents=True)

    def add(self, demo: Demo) -> None:
        """Write its frames."""
        first = self.frames
        for t in range(len(demo)):
            row = {name: array[t] for name, array in demo.arrays.items()}
            np.savez_compressed(self.folder / f"episode_{first + t:07d}.npz", **row)
        self.frames += len(demo)
        self._spans.append((first, self.frames - 1))
        self._told.append((demo.task, demo.sentence))

    def close(self) -> None:
        """Write what describes the frames; without it they are no data set."""
        spans = np.array(self._spans, np.int64).reshape(-1, 2)
        np.save(self.folder / "ep_start_end_ids.npy", spans)
        np.save(self.folder / "ep_lens.npy", spans[:, 1] - spans[:, 0] + 1)
        _save_objects(self.folder / "scene_info.npy", {self._scene: [0, self.frames - 1]})
        _save_objects(
            self.folder / "lang_annotations" / "auto_lang_ann.npy",
            {
                "language": {
                    "ann": [sentence for _, sentence in self._told],
                    "task": [task for task, _ in self._told],
                    "emb": np.zeros((len(self._told), 1, EMBEDDING), np.float32),
                },
                "info": {"episodes": [], "indx": list(self._spans)},
            },
        )


def _save_objects(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    array = np.empty((), object)
    array[()] = value
    np.save(path, array, allow_pickle=True)
