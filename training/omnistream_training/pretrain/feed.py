# SPDX-License-Identifier: Apache-2.0
"""Batches of all tasks, as a pure function of (run seed, step, part), like those of a geometry run.

The loader's state is therefore the step, and what the sources hold: their digests are in the checkpoint beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch

from omnistream.errors import ConfigError
from omnistream_training.caption.source import AskedPictures, CaptionSource
from omnistream_training.corpus.pictures import PictureSource, unlabelled
from omnistream_training.corpus.texts import TextSource
from omnistream_training.corpus.videos import VideoClipSource
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.feed import CLIPS_PER_STEP, STEPS_PER_RUN, Feed, draw_stride
from omnistream_training.data.folder import FolderSource
from omnistream_training.data.source import HELD_OUT, ClipRequest, ClipSource
from omnistream_training.distributed import Processes
from omnistream_training.pretrain.batch import PretrainBatch
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.ssl.views import Views, make_views

T = TypeVar("T")
QUARTER = CLIPS_PER_STEP // 4
"""A step's clip numbers are shared out: geometry, single pictures, clips, captions. No task sees another's clip."""


class QuestionSource(Protocol):
    """A renderer, or files."""

    description: str

    def read(self, numbers: Sequence[int], seed: int, device: str) -> AskedPictures: ...


class PretrainFeed(Feed):
    """See the module docstring; `held_out` gives geometry clips, `held_out_asked` pictures with questions."""

    def __init__(self, config: PretrainConfig, device: str, patch: int, processes: Processes | None = None) -> None:
        """patch: side of the model's patches, for the masks. processes: who share a step's micro-batches out.

        Raises ConfigError where that does not come out even, or a step has more clips than numbers, InputError for a
        source that cannot be read.
        """
        super().__init__(config, device)
        self._patch = patch
        self.pretrain = config
        self.parts = _parts(config, processes or Processes())
        self._files: dict[str, PictureSource | VideoClipSource | TextSource] = {}
        own = [source for source in self.sources if isinstance(source, FolderSource)]
        self._recorded = {f"data.folders {' '.join(config.data.folders)}": source for source in own}
        for path, weight in config.recordings.items() if config.draws_clips else ():
            self._recorded[f"recordings {path}"] = recordings = self._recordings([path])
            self._add(recordings, weight)
        errors = config.data.on_error
        self._pictures: list[tuple[ClipSource, float]] = []
        for path, weight in config.ssl.pictures.items():
            pictures = self._files[f"ssl.pictures {path}"] = PictureSource(path, errors)
            self._pictures.append((pictures, weight))
        self._videos: list[tuple[ClipSource, float]] = []
        for path, weight in config.ssl.videos.items():
            videos = self._files[f"ssl.videos {path}"] = VideoClipSource(path, config.data.nominal_rate, errors)
            self._videos.append((videos, weight))
        self.questions: list[tuple[QuestionSource, float]] = []
        if config.weights.caption:
            if config.caption.live is not None:
                self.questions.append((CaptionSource(config.caption), config.caption.live_weight))
            for path, weight in config.caption.data.items():
                texts = self._files[f"caption.data {path}"] = TextSource(path, config.caption, errors)
                self.questions.append((texts, weight))
        if self._files or config.recordings:
            self._ahead = config.data.workers

    @property
    def description(self) -> str:
        more = [source.description for source in self._files.values() if not isinstance(source, TextSource)]
        return "; ".join([super().description, *more, *(source.description for source, _ in self.questions)])

    def digests(self) -> dict[str, str]:
        """Of the names that each source of files has, for the checkpoint: another set of files means other batches."""
        recorded = {option: source.digest() for option, source in self._recorded.items()}
        return recorded | {option: source.store.digest() for option, source in self._files.items()}

    def damaged(self) -> int:
        """Samples that could not be read so far, by this process; stderr has their names."""
        return sum(len(source.sampler.damaged) for source in self._files.values())

    def batch(self, step: int, part: int = 0) -> PretrainBatch:
        """Micro-batch number `part` of `step`, on the device."""
        geometry = bool(self.pretrain.weights.geometry)
        clips = super().batch(step, part) if geometry else _stand_in()
        views: list[Views] = []
        ssl = self.pretrain.ssl
        if self.pretrain.weights.ssl:
            views += [
                self._views(step, part, quarter, count, frames)
                for quarter, count, frames in ((1, ssl.images, 1), (2, ssl.clips, ssl.frames))
                if count
            ]
        fields = {name: getattr(clips, name) for name in ClipBatch.__dataclass_fields__}
        return PretrainBatch(**fields, geometry=geometry, views=tuple(views), asked=self._asked(step, part))

    def held_out_asked(self, first: int, count: int, turn: int = 0) -> AskedPictures:
        """Pictures and questions that no run trains on, the same for every run of any seed.

        first: those from it on, all of one source. turn: counts them; sources take turns by weight, none is drawn.
        """
        numbers = range(HELD_OUT + first, HELD_OUT + first + count)
        return self._in_turn(turn).read(numbers, HELD_OUT + first, self.device)

    def _in_turn(self, turn: int) -> QuestionSource:
        """The source of a turn: the one that is furthest behind its share (the largest first)."""
        total = sum(weight for _, weight in self.questions)
        taken = [0] * len(self.questions)
        for now in range(turn + 1):
            behind = [weight / total * (now + 1) - n for (_, weight), n in zip(self.questions, taken, strict=True)]
            chosen = behind.index(max(behind))
            taken[chosen] += 1
        return self.questions[chosen][0]

    def _asked(self, step: int, part: int) -> AskedPictures | None:
        if not self.questions:
            return None
        numbers = self._numbers(step, part, 3, self.pretrain.caption.pictures)
        draw = torch.Generator().manual_seed(self._seed("question source", step, part))
        return _choose(self.questions, draw).read(numbers, self._seed("questions", step, part), self.device)

    def _views(self, step: int, part: int, quarter: int, count: int, frames: int) -> Views:
        draw = torch.Generator().manual_seed(self._seed(f"views {quarter}", step, part))
        files, ssl = (self._pictures if frames == 1 else self._videos), self.pretrain.ssl
        own = list(zip(self.sources, self.weights, strict=True))
        if files:
            shares = [(own, ssl.data_weight), (files, sum(weight for _, weight in files))]
            own = _choose(shares, draw)
        source: ClipSource = _choose(own, draw)
        request = ClipRequest(
            numbers=self._numbers(step, part, quarter, count),
            frames=frames,
            size=ssl.source_size,
            stride=draw_stride(self.config.stage_at(step)[1].stride, draw),
            device=self.device,
        )
        batch = source.read(request).to(self.device)
        return make_views(batch.images, batch.times, ssl, self._patch, draw)

    def _numbers(self, step: int, part: int, quarter: int, count: int) -> range:
        first = (self.config.seed * STEPS_PER_RUN + step) * CLIPS_PER_STEP + quarter * QUARTER + part * count
        return range(first, first + count)


def _parts(config: PretrainConfig, processes: Processes) -> range:
    """Numbers of the micro-batches that fall to this process."""
    if config.micro_batches % processes.world:
        raise ConfigError(
            f"micro_batches is {config.micro_batches} and there are {processes.world} processes; expected a "
            f"multiple, such as --micro-batches {-(-config.micro_batches // processes.world) * processes.world}"
        )
    most = max(*(stage.clips for stage in config.stages), config.ssl.images, config.ssl.clips, config.caption.pictures)
    if most * config.micro_batches > QUARTER:
        raise ConfigError(
            f"{config.micro_batches} micro-batches of up to {most} clips; expected {QUARTER} clips a step at most"
        )
    return range(processes.rank, config.micro_batches, processes.world)


def _stand_in() -> ClipBatch:
    """In place of the geometry task's clips: a pixel about which nothing is known."""
    return unlabelled(np.zeros((1, 1, 1, 1, 3), np.uint8), torch.zeros(1, 1, dtype=torch.float64))


def _choose(options: Sequence[tuple[T, float]], draw: torch.Generator) -> T:
    """One of them, by weight."""
    weights = torch.tensor([weight for _, weight in options])
    return options[int(torch.multinomial(weights, 1, generator=draw))][0]
