# SPDX-License-Identifier: Apache-2.0
"""Pictures with questions and answers, from any live renderer that knows what it shows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from omnistream.errors import ConfigError
from omnistream_training.caption.config import CaptionConfig
from omnistream_training.caption.questions import Question, draw_kinds, question_for, write_on
from omnistream_training.data.live import open_renderer, seed_of

WANT = ("rgb", "text", "ids", "things")
RATE = 30.0
"""Hz, of clips of one picture: any will do."""


@dataclass(frozen=True, kw_only=True)
class AskedPictures:
    """B pictures, each with a question."""

    images: Tensor
    """[B, 1, 3, H, W] float32 in 0 .. 1: clips of one frame."""
    questions: tuple[Question, ...]

    @property
    def frames(self) -> int:
        """B."""
        return len(self.images)


class CaptionSource:
    """Asks about the renderer's pictures."""

    def __init__(self, config: CaptionConfig) -> None:
        assert config.live is not None
        self.config = config
        self.description = f"questions about live {config.live} {config.live_options or ''}".rstrip()
        self._renderer = open_renderer(config.live, config.live_options)
        self._one_at_a_time = threading.Lock()  # a physics client is not for two threads

    def read(self, numbers: Sequence[int], seed: int, device: str) -> AskedPictures:
        """Pictures of those clip numbers. seed: decides what is asked. ConfigError if the renderer lacks a field."""
        draw = torch.Generator().manual_seed(seed)
        config = self.config
        with self._one_at_a_time:
            try:
                clips = self._renderer.clips(  # type: ignore[call-arg]  # `want` is for those that know what they show
                    [seed_of(n) for n in numbers], frames=1, size=config.size, rate=RATE, device=device, want=WANT
                )
            except TypeError as error:
                raise ConfigError(
                    f"live source {config.live!r} cannot be asked about its pictures ({error}); caption.live has to "
                    f"name one whose clips() takes want={WANT}, such as worlds or tabletop"
                ) from error
        pictures, questions = clips.rgb[:, 0], []
        ids = clips.ids[:, 0].cpu()
        written = []
        for i, kind in enumerate(draw_kinds(config, len(numbers), draw)):
            question = question_for(kind, clips.text[i], ids[i], clips.things[i], config.smallest, draw)
            questions.append(question)
            read = question.kind == "read"
            written.append(write_on(pictures[i], question.answer, draw) if read else pictures[i])
        images = torch.stack(written).permute(0, 3, 1, 2)[:, None].float() / 255
        return AskedPictures(images=images, questions=tuple(questions))
