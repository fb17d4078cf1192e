# SPDX-License-Identifier: Apache-2.0
"""Batches of all tasks, as a pure function of (run seed, step), like those of a geometry run."""

from __future__ import annotations

import torch

from omnistream_training.caption.source import AskedPictures, CaptionSource
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.feed import CLIPS_PER_STEP, STEPS_PER_RUN, Feed
from omnistream_training.data.source import HELD_OUT, ClipRequest
from omnistream_training.pretrain.batch import PretrainBatch
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.ssl.views import Views, make_views

QUARTER = CLIPS_PER_STEP // 4
"""A step's clip numbers are shared out: geometry, single pictures, clips, captions. No task sees another's clip."""


class PretrainFeed(Feed):
    """See the module docstring; `held_out` gives geometry clips, `held_out_asked` pictures with questions."""

    def __init__(self, config: PretrainConfig, device: str, patch: int) -> None:
        """patch: side of the model's patches, for the masks."""
        super().__init__(config, device)
        self._patch = patch
        self.pretrain = config
        self.questions = CaptionSource(config.caption) if config.weights.caption else None

    @property
    def description(self) -> str:
        own = super().description
        return own if self.questions is None else f"{own}; {self.questions.description}"

    def batch(self, step: int) -> PretrainBatch:
        """The batch of `step`, on the device."""
        clips = super().batch(step)
        views: list[Views] = []
        ssl = self.pretrain.ssl
        if self.pretrain.weights.ssl:
            views += [
                self._views(step, quarter, count, frames)
                for quarter, count, frames in ((1, ssl.images, 1), (2, ssl.clips, ssl.frames))
                if count
            ]
        fields = {name: getattr(clips, name) for name in ClipBatch.__dataclass_fields__}
        return PretrainBatch(**fields, views=tuple(views), asked=self._asked(step))

    def held_out_asked(self, first: int, count: int) -> AskedPictures:
        """Pictures and questions that no run trains on. ConfigError where captioning is left out."""
        assert self.questions is not None
        numbers = range(HELD_OUT + first, HELD_OUT + first + count)
        return self.questions.read(numbers, self._seed("held-out questions", first), self.device)

    def _asked(self, step: int) -> AskedPictures | None:
        if self.questions is None:
            return None
        numbers = self._numbers(step, 3, self.pretrain.caption.pictures)
        return self.questions.read(numbers, self._seed("questions", step), self.device)

    def _views(self, step: int, quarter: int, count: int, frames: int) -> Views:
        draw = torch.Generator().manual_seed(self._seed(f"views {quarter}", step))
        source = self.sources[int(torch.multinomial(torch.tensor(self.weights), 1, generator=draw))]
        low, high = self.config.stage_at(step)[1].stride
        request = ClipRequest(
            numbers=self._numbers(step, quarter, count),
            frames=frames,
            size=self.pretrain.ssl.source_size,
            stride=int(torch.randint(low, high + 1, (1,), generator=draw)),
            device=self.device,
        )
        batch = source.read(request).to(self.device)
        return make_views(batch.images, batch.times, self.pretrain.ssl, self._patch, draw)

    def _numbers(self, step: int, quarter: int, count: int) -> range:
        first = (self.config.seed * STEPS_PER_RUN + step) * CLIPS_PER_STEP + quarter * QUARTER
        return range(first, first + count)
