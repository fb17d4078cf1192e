# SPDX-License-Identifier: Apache-2.0
"""Bags into a data set, by a mapping; what was kept, cut and lost is the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.episodes import EpisodeWriter
from omnistream.episodes.lerobot_writer import Storage
from omnistream.errors import InputError
from omnistream.io.bag_reader import STORAGE_SUFFIXES, is_bag
from omnistream.sync import Begin, End, Mapping
from omnistream_training.robot_data.bag_steps import BagStep, BagSteps


@dataclass
class BagReport:
    """What became of one bag."""

    bag: str
    episodes: int = 0
    steps: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    """Why episodes ended."""
    discarded: int = 0
    too_short: int = 0
    ticks: int = 0
    gaps: dict[str, int] = field(default_factory=dict)
    """Ticks without a step, by reason."""
    ages: dict[str, dict[str, float]] = field(default_factory=dict)
    """Mean and greatest age of each stream's value at ticks, s."""
    topics: dict[str, dict[str, Any]] = field(default_factory=dict)
    pictures_lost: int = 0
    lost: list[str] = field(default_factory=list)
    seconds: float = 0.0
    encoding_seconds: float = 0.0
    megabytes: float = 0.0


class BagImporter:
    """Adds bags to a data set. The writer is made when the first picture has shown its size."""

    def __init__(self, out: Path, mapping: Mapping, *, storage: Storage = "image", robot: str = "unknown") -> None:
        self._out, self._mapping, self._storage, self._robot = out, mapping, storage, robot
        self.writer: EpisodeWriter | None = None
        self.reports: list[BagReport] = []

    def add(self, path: Path) -> BagReport:
        """Import one bag. InputError if it cannot be read at all or does not fit the mapping."""
        report = BagReport(bag=path.name)
        steps = BagSteps(path, self._mapping)
        begun = time.perf_counter()
        try:
            self._write(steps, report)
        except BaseException:
            if self.writer is not None and self.writer.is_open:
                self.writer.discard()
            raise
        report.seconds = time.perf_counter() - begun
        report.ticks = steps.ticks
        report.lost += steps.lost
        report.gaps = dict(steps.gaps.most_common())
        report.ages = {
            name: {"mean": round(total / n, 5), "max": round(most, 5)} for name, (total, most, n) in steps.ages.items()
        }
        report.topics = {name: meter.report() for name, meter in sorted(steps.topics.items())}
        report.megabytes = sum(meter.bytes for meter in steps.topics.values()) / 1e6
        self.reports.append(report)
        return report

    def _write(self, steps: BagSteps, report: BagReport) -> None:
        begin: Begin | None = None
        written, first, last = 0, 0.0, 0.0
        for item in steps:
            if isinstance(item, Begin):
                begin, written = item, 0
            elif isinstance(item, BagStep):
                try:
                    images = {camera.name: item.picture(camera) for camera in self._mapping.cameras}
                except InputError as error:
                    report.pictures_lost += 1
                    report.lost.append(f"picture at {item.stamp:.3f} s: {error}")
                    if written:  # an episode goes on only where nothing is missing
                        self._finish(End("a picture that cannot be decoded", None), first, last, report)
                    written = 0
                    continue
                start = time.perf_counter()
                writer = self._need_writer(images)
                if not written:
                    assert begin is not None
                    first = item.stamp
                    writer.begin(begin.instruction, source=f"{report.bag} at {item.stamp:.3f} s")
                writer.add(item.state, item.action, images, stamp=item.stamp)
                report.encoding_seconds += time.perf_counter() - start
                written, last = written + 1, item.stamp
            elif written:
                start = time.perf_counter()
                self._finish(item, first, last, report)
                report.encoding_seconds += time.perf_counter() - start
                written = 0

    def _finish(self, end: End, first: float, last: float, report: BagReport) -> None:
        writer = self.writer
        assert writer is not None
        if end.discard:
            report.discarded += 1
            writer.discard()
        elif last - first < self._mapping.episodes.shortest:
            report.too_short += 1
            writer.discard()
        else:
            report.steps += writer.end(success=end.success).length
            report.episodes += 1
            report.ends["a time without a tick" if "without a tick" in end.reason else end.reason] += 1

    def _need_writer(self, images: dict[str, NDArray[np.uint8]]) -> EpisodeWriter:
        if self.writer is None:
            sizes = {name: (image.shape[0], image.shape[1]) for name, image in images.items()}
            contract = self._mapping.contract(sizes)
            self.writer = EpisodeWriter(self._out, contract, storage=self._storage, robot=self._robot)
        return self.writer

    def close(self) -> None:
        """Finish the data set; InputError if no episode was found."""
        if self.writer is None or self.writer.episodes == 0:
            self.abort()
            raise InputError(f"no episode in {len(self.reports)} bag(s); the report says why")
        self.writer.close()

    def abort(self) -> None:
        """Remove what was written."""
        if self.writer is not None:
            self.writer.abort()


def find_bags(paths: Sequence[Path]) -> list[Path]:
    """Bags among the paths and one level below; InputError if there are none."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist")
        below = sorted(path.iterdir()) if path.is_dir() else []
        if is_bag(path) and ((path / "metadata.yaml").is_file() or not path.is_dir()):
            found.append(path)
        elif path.is_dir() and any(is_bag(folder) for folder in below if folder.is_dir()):
            found += [folder for folder in below if folder.is_dir() and is_bag(folder)]
        elif is_bag(path):
            found.append(path)
        else:
            raise InputError(f"{path}: no bag here; expected a folder with metadata.yaml or {sorted(STORAGE_SUFFIXES)}")
    return found
