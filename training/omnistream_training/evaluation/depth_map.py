# SPDX-License-Identifier: Apache-2.0
"""The mean depth map as a predictor: it knows the place in the picture and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.files import replacing
from omnistream.io.frames import Frame
from omnistream_training.evaluation.baselines import DepthMap
from omnistream_training.evaluation.predict import FramePrediction
from omnistream_training.evaluation.survey import Survey

FORMAT = "omnistream-depth-map"


class MapPredictor:
    """One map per sequence, for every frame the same."""

    def __init__(self, name: str, maps: Mapping[str, NDArray[np.float32]]) -> None:
        """maps: by name of the sequence."""
        self.name, self._maps = name, maps
        self.digest = hashlib.sha256(b"".join(maps[sequence].tobytes() for sequence in sorted(maps))).hexdigest()[:16]
        self._depth: NDArray[np.float32] | None = None

    def start(self, sequence: str, frames: int) -> None:
        self._depth = self._maps[sequence]

    def step(self, frame: Frame) -> FramePrediction:
        return FramePrediction(self._depth)


def training_map(surveys: Sequence[Survey], depth: NDArray[np.float32]) -> MapPredictor:
    """The map of a training set (`load_map`), for all sequences the same."""
    return MapPredictor("mean depth map (training set)", {found.name: depth for found in surveys})


def other_sequences_map(surveys: Sequence[Survey]) -> MapPredictor:
    """For every sequence the mean of all the others: where no training set is at hand. Needs two sequences."""
    total = total_map(surveys)
    return MapPredictor(
        "mean depth map (other sequences)", {found.name: total.minus(found.map).mean() for found in surveys}
    )


def total_map(surveys: Sequence[Survey]) -> DepthMap:
    """Over all sequences, every pixel the same weight."""
    total = DepthMap()
    for found in surveys:
        total.sums = total.sums + found.map.sums
        total.counts = total.counts + found.map.counts
    return total


def save_map(path: Path, depth: DepthMap, source: str) -> None:
    """As .npz: format, mean [24, 32] m, counts [24, 32] pixels, source."""
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary, format=np.array(FORMAT), mean=depth.mean(), counts=depth.counts, source=np.array(source)
        )


def load_map(path: Path) -> NDArray[np.float32]:
    """The mean of such a file, [24, 32] m. InputError if it is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            depth = np.asarray(file["mean"], np.float32)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: not a depth map of `omnistream-eval depth-map`: {error}") from error
    if depth.ndim != 2 or not (np.isfinite(depth).all() and (depth > 0).all()):
        raise InputError(f"{path}: mean has shape {depth.shape}; expected two dimensions of finite metres above 0")
    return depth
