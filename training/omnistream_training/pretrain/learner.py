# SPDX-License-Identifier: Apache-2.0
"""One step of pre-training: the tasks one after the other, their gradients added up, one update.

Only one task's activations are in memory at a time (paper section 3.5).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from omnistream.errors import CheckpointError
from omnistream_training.caption.captioner import Captioner
from omnistream_training.caption.source import AskedPictures
from omnistream_training.data.batch import ClipBatch
from omnistream_training.learner import Learner, Progress
from omnistream_training.losses import geometry_loss, make_targets
from omnistream_training.optim import Optimizers
from omnistream_training.pretrain.batch import PretrainBatch
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.ssl.objective import SelfSupervision
from omnistream_training.ssl.teacher import momentum_at, temperature_at
from omnistream_training.ssl.views import Views


class PretrainLearner(Learner):
    """A `Learner` with a teacher, projection heads and a decoder. What is shipped is its `model`, as ever."""

    def __init__(self, config: PretrainConfig, device: str) -> None:
        super().__init__(config, device)
        self.pretrain = config
        self.ssl: SelfSupervision | None = None
        self.captioner: Captioner | None = None
        # Each from a seed of its own, so that leaving one task out changes nothing about the others.
        with torch.random.fork_rng(devices=[]):
            if config.weights.ssl:
                torch.manual_seed(config.seed + (1 << 20))
                self.ssl = SelfSupervision(self.model.config, config.ssl, self.model.backbone).to(self.device)
            if config.weights.caption:
                torch.manual_seed(config.seed + (2 << 20))
                captioner = Captioner(self.model.config.backbone.dim, config.caption).to(self.device)
                self.captioner = captioner.train()
        parts: dict[str, nn.Module] = {"model": self.model}
        if self.ssl is not None:
            parts["ssl"] = self.ssl
        if self.captioner is not None:
            parts["caption"] = self.captioner
        self.parts = nn.ModuleDict(parts)
        self.optimizers = Optimizers(self.parts, config.optim)
        # Clipped apart: a young projection head would otherwise hold everybody's step down.
        heads = self.model.heads if config.weights.geometry else None
        modules = (self.model.backbone, heads, self.ssl and self.ssl.heads, self.captioner)
        self._clipped = [list(m.parameters()) for m in modules if m is not None]

    def gradient(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Gradients of the weighted sum of all tasks. Returns `loss`, the norm before clipping, and all terms."""
        assert isinstance(batch, PretrainBatch)
        weights = self.pretrain.weights
        values: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
        for i, views in enumerate(batch.views):
            loss, terms = self._self_supervision(views, i)
            total = total + self._backward(loss, weights.ssl / len(batch.views))
            kind = "image" if views.times.shape[1] == 1 else "video"
            values |= {f"{kind}_{name}": value for name, value in terms.items()}
        if weights.geometry:
            targets = make_targets(batch, self.config.model.scale)
            loss, terms = geometry_loss(self.forward(batch), targets, self.config.loss)
            total = total + self._backward(loss, weights.geometry)
            values |= {"geometry": loss.detach(), **terms}
        if batch.asked is not None:
            loss, _ = self.caption(batch.asked)
            total = total + self._backward(loss, weights.caption)
            values["caption"] = loss.detach()
        if self.ssl is not None and self.progress.step < self.pretrain.ssl.freeze_prototypes:
            self.ssl.hold_prototypes()
        self._frames = batch.frames
        return {"loss": total, "norm": self._clip(), **values}

    def update(self) -> None:
        """Weights, averaged weights, and the teacher after them."""
        step = self.progress.step
        super().update()
        if self.ssl is not None:
            self.ssl.follow(self.model.backbone, momentum_at(step, self.config.steps, self.pretrain.ssl))

    def caption(self, asked: AskedPictures) -> tuple[Tensor, dict[str, Tensor]]:
        """L_cap of pictures and questions, and its mean per kind of question."""
        assert self.captioner is not None
        with self._autocast():
            config = self.model.config
            mean, std = (asked.images.new_tensor(v)[:, None, None] for v in (config.mean, config.std))
            out = self.model.backbone((asked.images - mean) / std, camera_token=config.camera_token, keep_hidden=())
            return self.captioner.loss(out.patches[:, 0], asked.questions)

    def extra_state(self) -> dict[str, Any]:
        """What the next step depends on beside the state of a geometry run. The anchor is made anew, and checked."""
        state: dict[str, Any] = {}
        if self.ssl is not None:
            state["ssl_heads"] = self.ssl.heads.state_dict()
            state["teacher"] = self.ssl.teacher.state_dict()
            state["anchor"] = None if self.ssl.anchor is None else digest(self.ssl.anchor.state_dict().values())
        if self.captioner is not None:
            state["captioner"] = self.captioner.state_dict()
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of what `trainer` saves. CheckpointError if the anchor is another one than it was."""
        self.model.load_state_dict(state["model"])
        for mine, stored in zip(self.average.average, state["average"], strict=True):
            mine.copy_(stored)
        if self.ssl is not None:
            mine = self.extra_state()["anchor"]
            if mine != state["anchor"]:
                raise CheckpointError(
                    f"the initial model is not the one this run began with ({mine} now, {state['anchor']} then): "
                    f"{self.config.model.start} has changed; put it back, or start a new run"
                )
            self.ssl.heads.load_state_dict(state["ssl_heads"])
            self.ssl.teacher.load_state_dict(state["teacher"])
        if self.captioner is not None:
            self.captioner.load_state_dict(state["captioner"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.progress = Progress(**state["progress"])

    def _self_supervision(self, views: Views, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.ssl is not None
        config, step = self.pretrain.ssl, self.progress.step
        draw = torch.Generator().manual_seed((self.config.seed * 3 + number) * (1 << 40) + step)
        spread = math.log(config.time_jitter)
        stretch = math.exp(spread * (2 * float(torch.rand(1, generator=draw)) - 1))
        with self._autocast():
            return self.ssl.loss(self.model.backbone, views, temperature_at(step, config), stretch)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _backward(self, loss: Tensor, weight: float) -> Tensor:
        (weight * loss).backward()
        return weight * loss.detach()

    def _clip(self) -> Tensor:
        """Limit every module's gradient by itself; the norm of all before."""
        limit = self.config.optim.clip
        return torch.stack([nn.utils.clip_grad_norm_(parameters, limit) for parameters in self._clipped]).norm()


def digest(tensors: Iterable[Tensor]) -> str:
    """Of the bytes of tensors, in order."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]
