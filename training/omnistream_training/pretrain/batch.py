# SPDX-License-Identifier: Apache-2.0
"""What a step of pre-training sees: a geometry batch, and beside it views and asked pictures."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from omnistream_training.caption.source import AskedPictures
from omnistream_training.data.batch import ClipBatch
from omnistream_training.ssl.views import Views


@dataclass(frozen=True, kw_only=True)
class PretrainBatch(ClipBatch):
    """The clips of the geometry task, with what the other tasks see."""

    geometry: bool
    """Whether the clips are there. Without that task they are not drawn, and one pixel stands in for them."""
    views: tuple[Views, ...]
    """Of single pictures and of clips, for self-supervision."""
    asked: AskedPictures | None
    """For captioning."""

    @property
    def frames(self) -> int:
        """Pictures that the student runs on, of all tasks."""
        clips = super().frames if self.geometry else 0
        return clips + sum(v.frames for v in self.views) + (self.asked.frames if self.asked else 0)

    def state(self) -> dict[str, Tensor]:
        """Plain tensors, for a file; questions as bytes are left out, they follow from the step."""
        own = {name: getattr(self, name).cpu() for name in ClipBatch.__dataclass_fields__}
        for i, views in enumerate(self.views):
            own |= {f"views{i}.{name}": value for name, value in views.state().items()}
        return own if self.asked is None else own | {"asked.images": self.asked.images.cpu()}
