# SPDX-License-Identifier: Apache-2.0
"""CALVIN (mees/calvin): one .npz per control period, and windows of them that are described in words.

    task_X/training/episode_0000000.npz ...                rgb_static, rgb_gripper, robot_obs, rel_actions, ...
    task_X/training/ep_start_end_ids.npy                   (first, last) of each recording; numbers go on over the gaps
    task_X/training/lang_annotations/auto_lang_ann.npy     pickled: instructions, tasks, (first, last) of each window

Each described window is an episode, those that overlap too. Actions become SI: the set stores them divided by 0.02 m
and 0.05 rad.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper
from omnistream.episodes.dataset import Episode, EpisodeDataset, EpisodeInfo
from omnistream.episodes.pictures import check_picture
from omnistream.errors import InputError
from omnistream_training.robot_data.safe_numpy import read_npy, read_npz, read_pickled_npy

ANNOTATIONS = "lang_annotations/auto_lang_ann.npy"
RECORDINGS = "ep_start_end_ids.npy"
RATE = 30.0
POSITION_SCALE, ANGLE_SCALE = 0.02, 0.05
"""m and rad per unit of rel_actions (calvin_env, conf/robot/panda*.yaml: max_rel_pos, max_rel_orn)."""

CAMERAS = {"static": "rgb_static", "gripper": "rgb_gripper"}
STATE = (
    *(Dimension(f"tcp_{name}", "m") for name in "xyz"),
    *(Dimension(f"tcp_{name}", "rad") for name in ("roll", "pitch", "yaw")),
    Dimension("gripper_width", "m"),
    *(Dimension(f"joint_{i}", "rad") for i in range(1, 8)),
    Dimension("gripper_action", "1"),
)
ACTION = Action(
    (
        *(Dimension(f"d{name}", "m") for name in "xyz"),
        *(Dimension(f"d{name}", "rad") for name in ("roll", "pitch", "yaw")),
        Dimension("gripper", "1"),
    ),
    "delta",
    "world",
    (Gripper(6, 1.0, -1.0),),
)
_NUMBER = re.compile(r"(\D*)(\d+)\.npz")


class CalvinDataset(EpisodeDataset):
    """One split (`task_X/training` or `task_X/validation`); opened by `open_calvin`."""

    def __init__(self, path: Path, cameras: tuple[str, ...] | None) -> None:
        self.path, self._folder = str(path), path
        self._digits, self._prefix = _naming(path)
        windows = _windows(path / ANNOTATIONS)
        infos: list[EpisodeInfo] = []
        lost: list[str] = []
        self._firsts: list[int] = []
        recordings = _recordings(path / RECORDINGS)
        for first, last, text, task in windows:
            over = [(a, b) for a, b in recordings if first < a <= last or first <= b < last]
            if over:
                a, b = over[0]
                lost.append(f"window {first} to {last} ({text}): goes beyond the recording {a} to {b} of {RECORDINGS}")
                continue
            missing = next((t for t in range(first, last + 1) if not self._file(t).is_file()), None)
            if missing is not None:
                lost.append(f"window {first} to {last} ({text}): {self._file(missing).name} is missing")
                continue
            infos.append(EpisodeInfo(len(infos), last - first + 1, text, True, f"{task}, frames {first} to {last}"))
            self._firsts.append(first)
        if not infos:
            raise InputError(f"{path}: no window can be read; {lost[0] if lost else 'none is described'}")
        self.infos, self.lost = infos, tuple(lost)
        chosen = cameras or tuple(CAMERAS)
        unknown = [name for name in chosen if name not in CAMERAS]
        if unknown:
            raise InputError(f"CALVIN has no camera {unknown[0]!r}; there are {', '.join(CAMERAS)}")
        frame = read_npz(self._file(self._firsts[0]), tuple(CAMERAS[name] for name in chosen))
        specs = tuple(Camera(name, *_size(frame[CAMERAS[name]], name)) for name in chosen)
        self.contract = Contract(rate=RATE, cameras=specs, state=STATE, action=ACTION)
        self.description = f"CALVIN: {len(infos)} described windows, {self.frames} frames at {RATE:g} Hz"

    def read_episode(self, info: EpisodeInfo) -> Episode:
        """See `EpisodeDataset`. Every picture costs opening its file again: convert what is read often."""
        first = self._firsts[info.index]
        states, actions = [], []
        for t in range(first, first + info.length):
            arrays = read_npz(self._file(t), ("robot_obs", "rel_actions"))
            for name, size in (("robot_obs", len(STATE)), ("rel_actions", len(ACTION.dimensions))):
                values = arrays[name]
                if values.shape != (size,) or values.dtype.kind != "f" or not np.isfinite(values).all():
                    raise InputError(
                        f"{self._file(t)}: {name} is {values.dtype} {list(values.shape)}; expected [{size}]"
                    )
            states.append(arrays["robot_obs"].astype(np.float32))
            actions.append(arrays["rel_actions"].astype(np.float32))
        action = np.stack(actions)
        action[:, :3] *= POSITION_SCALE
        action[:, 3:6] *= ANGLE_SCALE

        def read(camera: str, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
            spec, key = self.contract.camera(camera), CAMERAS[camera]
            for t in range(first + start, first + stop):
                yield check_picture(
                    read_npz(self._file(t), (key,))[key], spec.height, spec.width, f"{self._file(t)}: {key}"
                )

        stamps = np.arange(info.length) / RATE
        return Episode(info, np.stack(states), action, stamps, tuple(c.name for c in self.contract.cameras), read)

    def _file(self, number: int) -> Path:
        return self._folder / f"{self._prefix}{number:0{self._digits}d}.npz"


def is_calvin(path: Path) -> bool:
    """Whether `path` is a split of CALVIN."""
    return path.is_dir() and (path / ANNOTATIONS).is_file()


def open_calvin(path: Path, *, cameras: tuple[str, ...] | None = None) -> CalvinDataset:
    """Open a split. Windows with missing files, or over the end of a recording, are left out and named in `lost`.

    InputError if none is left.
    """
    return CalvinDataset(path, cameras)


def _naming(path: Path) -> tuple[int, str]:
    for file in path.glob("*.npz"):
        if match := _NUMBER.fullmatch(file.name):
            return len(match[2]), match[1]
    raise InputError(f"{path}: no episode_*.npz")


def _recordings(path: Path) -> list[tuple[int, int]]:
    """(first, last) of each; nothing where the file is missing, as in parts of the set."""
    if not path.is_file():
        return []
    found = read_npy(path)
    if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iu":
        raise InputError(f"{path}: {found.dtype} {list(found.shape)}; expected integers, a first and a last to a row")
    return [(int(first), int(last)) for first, last in found]


def _windows(path: Path) -> Iterator[tuple[int, int, str, str]]:
    """(first, last, instruction, task) of each described window."""
    found = read_pickled_npy(path)
    try:
        texts, tasks = list(found["language"]["ann"]), list(found["language"]["task"])
        spans = [(int(first), int(last)) for first, last in found["info"]["indx"]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: no language/ann, language/task and info/indx in it: {error!r}") from error
    if not len(texts) == len(tasks) == len(spans):
        raise InputError(
            f"{path}: {len(texts)} instructions, {len(tasks)} tasks, {len(spans)} windows; expected as many"
        )
    for (first, last), text, task in zip(spans, texts, tasks, strict=True):
        if not 0 <= first <= last < first + 100_000:
            raise InputError(f"{path}: a window goes from {first} to {last}")
        yield first, last, str(text), str(task)


def _size(image: NDArray[Any], name: str) -> tuple[int, int]:
    if image.ndim != 3:
        raise InputError(f"picture of {name!r} has shape {list(image.shape)}; expected height, width and 3")
    return int(image.shape[0]), int(image.shape[1])
