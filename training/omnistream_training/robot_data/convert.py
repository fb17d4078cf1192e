# SPDX-License-Identifier: Apache-2.0
"""A data set of any format into LeRobot v3 or RLDS. Plans (plans.parquet) go along between LeRobot sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from omnistream.cli.progress import Progress
from omnistream.episodes import Episode, EpisodeDataset, EpisodeInfo, EpisodeWriter, write_episode
from omnistream.episodes.lerobot_writer import Storage
from omnistream.episodes.plans import PLANS_FILE, read_plans
from omnistream.errors import InputError
from omnistream_training.robot_data.rlds_writer import write_rlds


def convert_dataset(
    dataset: EpisodeDataset, out: Path, *, to: Literal["lerobot", "rlds"] = "lerobot", storage: Storage = "image"
) -> list[str]:
    """Write all episodes that can be read; returns what is left out, one sentence each. InputError if none can be."""
    if to == "rlds":
        sound = _Sound(dataset)
        write_rlds(out, sound)
        there = (Path(dataset.path) / PLANS_FILE).exists()
        return [*sound.unreadable, *([f"{PLANS_FILE} is left out: RLDS has no place for plans"] if there else [])]
    lost: list[str] = []
    written: dict[int, int] = {}
    with (
        EpisodeWriter(out, dataset.contract, storage=storage) as writer,
        Progress(len(dataset), "episodes") as progress,
    ):
        for info in dataset.infos:
            try:
                written[info.index] = write_episode(writer, dataset.read_episode(info)).index
            except InputError as error:
                lost.append(f"episode {info.index}: {error}")
            progress.step()
        if writer.episodes == 0:
            raise InputError(f"{dataset.path}: no episode can be read; {lost[0] if lost else 'it has none'}")
        lost += _copy_plans(dataset, writer, written)
    return lost


def _copy_plans(dataset: EpisodeDataset, writer: EpisodeWriter, written: dict[int, int]) -> list[str]:
    """Those of the episodes that were written, under their new numbers. Why they are left out, if they are."""
    try:
        plans = read_plans(Path(dataset.path), dataset.contract)
    except InputError as error:
        return [f"{PLANS_FILE} is left out: {error}"]
    if plans is None:
        return []
    numbers = {info.index: info.index if info.number is None else info.number for info in dataset.infos}
    if len(set(numbers.values())) < len(numbers):
        return [f"{PLANS_FILE} is left out: episodes of several instructions were split"]
    renamed = {numbers[index]: new for index, new in written.items()}
    kept = plans.rows(np.flatnonzero(np.isin(plans.episode, list(renamed))))
    if len(kept):
        writer.add_plans(replace(kept, episode=np.array([renamed[int(number)] for number in kept.episode])))
    return []


class _Sound(EpisodeDataset):
    """The episodes of a data set that can be read to the last picture: one that cannot has no half record."""

    def __init__(self, dataset: EpisodeDataset) -> None:
        self._dataset = dataset
        self.path, self.contract, self.description = dataset.path, dataset.contract, dataset.description
        self.unreadable: list[str] = []
        self.infos = [info for info in dataset.infos if self._reads(info)]
        if not self.infos:
            raise InputError(f"{dataset.path}: no episode can be read; {self.unreadable[0]}")

    def _reads(self, info: EpisodeInfo) -> bool:
        try:
            episode = self._dataset.read_episode(info)
            for camera in episode.cameras:
                for _ in episode.frames(camera):
                    pass
        except InputError as error:
            self.unreadable.append(f"episode {info.index}: {error}")
            return False
        return True

    def read_episode(self, info: EpisodeInfo) -> Episode:
        return self._dataset.read_episode(info)

    def __iter__(self) -> Iterator[Episode]:
        return (self.read_episode(info) for info in self.infos)
