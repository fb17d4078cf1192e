# SPDX-License-Identifier: Apache-2.0
"""One step of pre-training: the tasks one after the other, their gradients added up, one update.

Only one task's activations are in memory at a time (paper section 3.5).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from omnistream.model.backbone import Backbone
from omnistream_training.caption.captioner import Captioner
from omnistream_training.caption.source import AskedPictures
from omnistream_training.data.batch import ClipBatch
from omnistream_training.distributed import whole
from omnistream_training.learner import Learner
from omnistream_training.losses import geometry_loss, make_targets
from omnistream_training.optim import Optimizers, WeightAverage
from omnistream_training.parallel import parallelize, shard, shard_backbone
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
        anchor = None if self.ssl is None else self.ssl.anchor
        self.anchor_digest = None if anchor is None else digest(anchor.state_dict().values())
        """Of the initial model, which is not stored: what is made anew has to be the same one."""
        self._prepare()

    def _prepare(self) -> None:
        """What holds on to parameters, for those that there are now."""
        config = self.pretrain
        self.optimizers = Optimizers(self.parts, config.optim)
        self.average = WeightAverage(self.model.parameters(), config.optim.ema)
        # Clipped apart: a young projection head would otherwise hold everybody's step down.
        heads = self.model.heads if config.weights.geometry else None
        modules = (self.model.backbone, heads, self.ssl and self.ssl.heads, self.captioner)
        self._clipped = [list(m.parameters()) for m in modules if m is not None]

    def shard(self, mesh: DeviceMesh) -> None:
        """Share weights, optimiser, teacher, anchor and decoder out over processes, before the first step."""
        narrow = torch.bfloat16 if self.config.precision == "bfloat16" and self.device.type == "cuda" else torch.float32
        parallelize(self.model, mesh, precision=narrow)
        if self.ssl is not None:
            teacher = self.ssl.teacher.get_submodule("backbone")
            for frozen in (teacher, self.ssl.anchor):
                if isinstance(frozen, Backbone):
                    frozen.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
                    shard_backbone(frozen, mesh, recompute=False, precision=narrow)
            for heads in (self.ssl.heads, self.ssl.teacher.get_submodule("heads")):
                for head in heads.children():
                    shard(head, mesh)
        if self.captioner is not None:
            for layer in self.captioner.decoder.model.layers:
                shard(layer, mesh)
            shard(self.captioner, mesh)  # in one piece: word embeddings and output layer may be the same weights
        self._prepare()

    def gradient(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Gradients of the weighted sum of all tasks. Returns `loss`, the norm before clipping, and all terms."""
        values = self.accumulate(batch)
        self.count(batch.frames)
        return {"loss": values.pop("loss"), "norm": self.clip(), **values}

    def accumulate(self, batch: ClipBatch, share: float = 1.0) -> dict[str, Tensor]:
        """Add `share` of the gradients of one micro-batch to those that are there. Returns its `loss` and all terms."""
        assert isinstance(batch, PretrainBatch)
        weights = self.pretrain.weights
        values: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
        for i, views in enumerate(batch.views):
            loss, terms = self._self_supervision(views, i)
            total = total + self._backward(loss, weights.ssl / len(batch.views), share)
            kind = "image" if views.times.shape[1] == 1 else "video"
            values |= {f"{kind}_{name}": value for name, value in terms.items()}
        if weights.geometry:
            targets = make_targets(batch, self.config.model.scale)
            loss, terms = geometry_loss(self.forward(batch), targets, self.config.loss)
            total = total + self._backward(loss, weights.geometry, share)
            values |= {"geometry": loss.detach(), **terms}
        if batch.asked is not None:
            loss, _ = self.caption(batch.asked)
            total = total + self._backward(loss, weights.caption, share)
            values["caption"] = loss.detach()
        return {"loss": total, **values}

    def clip(self) -> Tensor:
        """Limit every module's gradient by itself; the norm of all before. Young prototypes are held still."""
        if self.ssl is not None and self.progress.step < self.pretrain.ssl.freeze_prototypes:
            self.ssl.hold_prototypes()
        limit = self.config.optim.clip
        norms = [nn.utils.clip_grad_norm_(parameters, limit) for parameters in self._clipped]
        return torch.stack([whole(norm) for norm in norms]).norm()

    def count(self, frames: int) -> None:
        """Pictures of the step, for the counters, where it had several parts."""
        self._frames = frames

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
            return self.captioner(out.patches[:, 0], asked.questions)

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

    def _backward(self, loss: Tensor, weight: float, share: float) -> Tensor:
        (share * weight * loss).backward()
        return weight * loss.detach()


def digest(tensors: Iterable[Tensor]) -> str:
    """Of the bytes of tensors, in order."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]
