# SPDX-License-Identifier: Apache-2.0
"""Data sets of any format that is read here, told apart by what lies in their folder."""

from __future__ import annotations

from pathlib import Path

from omnistream.contract import Contract
from omnistream.episodes import EpisodeDataset, open_dataset
from omnistream.episodes.lerobot_layout import INFO
from omnistream.errors import InputError
from omnistream.io.bag_reader import is_bag
from omnistream_training.robot_data.calvin_reader import ANNOTATIONS, is_calvin, open_calvin
from omnistream_training.robot_data.rlds_reader import is_rlds, open_rlds


def open_any(
    path: Path,
    *,
    contract: Contract | None = None,
    split: str = "train",
    protocol: str = "auto",
    rate: float | None = None,
    cameras: tuple[str, ...] | None = None,
) -> EpisodeDataset:
    """Open a data set: LeRobot v3 and v2.1, RLDS, CALVIN (a split, or the set's folder for its training split).

    contract: what the numbers mean, where the format cannot say. split, protocol, rate: of RLDS (`open_rlds`).
    cameras: those to take, of RLDS and CALVIN. InputError names the path and what was expected there.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if (path / INFO).is_file() or (path / "meta").is_dir():
        return open_dataset(path, contract)
    for folder in (path, path / "training"):
        if is_calvin(folder):
            return open_calvin(folder, cameras=cameras)
    if is_rlds(path):
        return open_rlds(path, split=split, protocol=protocol, rate=rate, contract=contract, cameras=cameras)
    if is_bag(path):
        raise InputError(f"{path} is a bag; `omnistream-data import` makes a data set of it, with a mapping")
    raise InputError(f"{path}: no data set; expected {INFO} (LeRobot), *.tfrecord* (RLDS) or {ANNOTATIONS} (CALVIN)")
