# SPDX-License-Identifier: Apache-2.0
"""What a demonstrator would do from a frame of an episode, told a sentence: plans.parquet, next to the episodes.

Told the episode's own sentence, the keyframes say where this is going. Told another one, the actions are what the
robot has to do instead: counterfactual labels (Glossop et al. 2025, arXiv 2508.13446), from which a policy learns that
words matter. No picture is needed for them.

    plans.parquet   one row per plan: episode, frame, instruction, keyframes [K * G], actions [H * A], steps
                    schema metadata "omnistream": {"goal": names of G state dimensions, "keyframes": K, "horizon": H}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Contract
from omnistream.episodes.parquet import FrameTable, read_columns
from omnistream.errors import InputError
from omnistream.io.extras import need
from omnistream.io.files import replacing

PLANS_FILE = "plans.parquet"
_ARRAYS = ("episode", "frame", "keyframes", "actions", "steps")


@dataclass(frozen=True, eq=False)
class Plans:
    """N plans; a row each."""

    goal: tuple[str, ...]
    """Names of the state dimensions that a keyframe is told in."""
    episode: NDArray[np.int64]
    """[N] numbers in the files of the data set (`EpisodeInfo.number`)."""
    frame: NDArray[np.int64]
    """[N] frames of these, from which they begin."""
    instruction: list[str]
    """N sentences."""
    keyframes: NDArray[np.float32]
    """[N, K, G] the state at the next K moments at which the gripper switches; after the last of them, at the end."""
    actions: NDArray[np.float32]
    """[N, H, A] from this frame on, in the contract's units; 0 beyond `steps`."""
    steps: NDArray[np.int64]
    """[N] how many of the H are known; 0 where the recorded actions are the plan."""

    def __post_init__(self) -> None:
        n = len(self.instruction)
        shapes = {
            "episode": self.episode.shape == (n,),
            "frame": self.frame.shape == (n,),
            "steps": self.steps.shape == (n,),
            "keyframes": self.keyframes.ndim == 3 and self.keyframes.shape[::2] == (n, len(self.goal)),
            "actions": self.actions.ndim == 3 and len(self.actions) == n,
        }
        for name, good in shapes.items():
            if not good:
                raise InputError(f"plans: {name} is {list(getattr(self, name).shape)} for {n} sentences")
        if n and (self.steps.min() < 0 or self.steps.max() > self.actions.shape[1]):
            raise InputError(f"plans: steps are not within 0 to {self.actions.shape[1]}")

    def __len__(self) -> int:
        return len(self.instruction)

    def rows(self, numbers: NDArray[np.integer]) -> Plans:
        """Some of them."""
        columns = {name: getattr(self, name)[numbers] for name in _ARRAYS}
        return Plans(goal=self.goal, instruction=[self.instruction[i] for i in numbers], **columns)


def joined(parts: Sequence[Plans]) -> Plans:
    """All in one, of the same goal and horizon; at least one part."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    return Plans(goal=parts[0].goal, instruction=[text for part in parts for text in part.instruction], **columns)


def write_plans(folder: Path, plans: Plans) -> None:
    """Beside the episodes of a data set, whole or not at all."""
    arrow: Any = need("pyarrow", "io", "writing parquet")
    parquet: Any = need("pyarrow.parquet", "io", "writing parquet")
    about = {"goal": plans.goal, "keyframes": plans.keyframes.shape[1], "horizon": plans.actions.shape[1]}
    table = arrow.table(
        {
            "episode": arrow.array(plans.episode, arrow.int32()),
            "frame": arrow.array(plans.frame, arrow.int32()),
            "instruction": arrow.array(plans.instruction, arrow.string()),
            "keyframes": _lists(arrow, plans.keyframes),
            "actions": _lists(arrow, plans.actions),
            "steps": arrow.array(plans.steps, arrow.int32()),
        }
    ).replace_schema_metadata({"omnistream": json.dumps(about)})
    with replacing(folder / PLANS_FILE) as temporary:
        parquet.write_table(table, str(temporary), compression="zstd")


def read_plans(folder: Path, contract: Contract) -> Plans | None:
    """Those of a data set with this contract; None where it has none. InputError if they are damaged or of another."""
    path = folder / PLANS_FILE
    if not path.exists():
        return None
    table = FrameTable(path)
    told = _about(table, contract)
    count, goal, width = table.rows, tuple(told["goal"]), len(contract.action.dimensions)
    keyframes = table.vectors("keyframes", 0, count, told["keyframes"] * len(goal))
    actions = table.vectors("actions", 0, count, told["horizon"] * width)
    found: list[Any] = read_columns(path, ["instruction"]).get("instruction", [])
    if len(found) != count or not all(isinstance(text, str) for text in found):
        raise InputError(f"{path}: column 'instruction' does not hold {count} sentences")
    try:
        return Plans(
            goal=goal,
            episode=table.numbers("episode", 0, count).astype(np.int64),
            frame=table.numbers("frame", 0, count).astype(np.int64),
            instruction=found,
            keyframes=keyframes.reshape(count, told["keyframes"], len(goal)),
            actions=actions.reshape(count, told["horizon"], width),
            steps=table.numbers("steps", 0, count).astype(np.int64),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _about(table: FrameTable, contract: Contract) -> dict[str, Any]:
    try:
        told = json.loads(table.metadata["omnistream"])
        goal, counts = told["goal"], (told["keyframes"], told["horizon"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{table.path}: its schema does not say what its plans are of: {error!r}") from error
    if not isinstance(goal, list) or not goal or not all(type(n) is int and 1 <= n <= 1000 for n in counts):
        raise InputError(f"{table.path}: goal {goal!r}, keyframes and horizon {counts}; expected names, and 1 to 1000")
    missing = [name for name in goal if name not in contract.state_names]
    if missing:
        raise InputError(f"{table.path}: keyframes in {missing[0]!r}; the contract's state has no such dimension")
    return dict(told)


def _lists(arrow: Any, values: NDArray[np.float32]) -> Any:
    """[N, ...] as N lists of one length."""
    flat = values.reshape(len(values), values.shape[1] * values.shape[2])
    return arrow.FixedSizeListArray.from_arrays(arrow.array(np.ascontiguousarray(flat).ravel()), flat.shape[1])
