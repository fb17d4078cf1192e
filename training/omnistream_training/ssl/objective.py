# SPDX-License-Identifier: Apache-2.0
"""The self-supervised task: student, teacher, anchor, and the weighted sum of the four terms (paper section 3.2).

    L_ssl = L_DINO + L_iBOT + 0.1 L_KoLeo + L_gram

A single picture is a stream of one frame; a clip's CLS tokens are averaged over time before they are compared.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from omnistream.errors import ConfigError
from omnistream.model.backbone import Backbone, BackboneOutput
from omnistream.model.config import ModelConfig
from omnistream_training.distributed import world_size
from omnistream_training.ssl.config import GLOBALS, SslConfig
from omnistream_training.ssl.head import ProjectionHead
from omnistream_training.ssl.losses import dino_loss, gram_loss, ibot_loss, koleo_loss, sinkhorn
from omnistream_training.ssl.masks import hidden_patches
from omnistream_training.ssl.teacher import Teacher
from omnistream_training.ssl.views import Views


class SelfSupervision(nn.Module):
    """Heads of the student, and the two frozen networks. The student's backbone is the model's and is passed in."""

    def __init__(self, model: ModelConfig, config: SslConfig, backbone: Backbone) -> None:
        """backbone: the student's, as it is before the first step; the anchor stays this way."""
        super().__init__()
        patch, dim = model.backbone.patch_size, model.backbone.dim
        for name in ("global_size", "local_size"):
            if getattr(config, name) % patch or getattr(config, name) < patch:
                raise ConfigError(f"ssl.{name} is {getattr(config, name)}; expected a multiple of the patch, {patch}")
        self.config, self.model_config = config, model
        self.heads = nn.ModuleDict(
            {
                name: ProjectionHead(dim, config.hidden, config.bottleneck, config.prototypes)
                for name in ("dino", "ibot")
            }
        )
        self.teacher = Teacher(backbone=backbone, heads=self.heads)
        self.anchor = copy.deepcopy(backbone).requires_grad_(False).eval() if config.gram else None

    def loss(
        self, backbone: Backbone, views: Views, temperature: float, stretch: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_ssl of the views, and its terms by name, unweighted.

        temperature: the teacher's. stretch: factor on the student's clock (`SslConfig.time_jitter`).
        """
        config = self.config
        crops, clips, frames = views.large.shape[:3]
        seen = views.large.flatten(0, 1)
        times = views.times.repeat(crops, 1)
        masks = views.masks.flatten(0, 1).flatten(1)  # [2B, h*w]
        places = masks[:, None].expand(-1, frames, -1)  # [2B, T, h*w]
        cls_targets, patch_targets = self._targets(seen, times, places, temperature)
        with hidden_patches(backbone, masks, frames):
            student = self._run(backbone, seen, times * stretch)
        large = student.cls.float().mean(1)
        terms: dict[str, Tensor] = {}
        dino = self.heads["dino"]
        scores = dino(large).unflatten(0, (crops, clips))
        cls_targets = cls_targets.unflatten(0, (crops, clips))
        between = dino_loss(scores, cls_targets, config.student_temperature, same_views=True)
        if len(views.small):
            local_times = views.times.repeat(len(views.small), 1) * stretch
            small = self._run(backbone, views.small.flatten(0, 1), local_times).cls.float().mean(1)
            scores = dino(small).unflatten(0, (-1, clips))
            local = dino_loss(scores, cls_targets, config.student_temperature, same_views=False)
            # By the number of pairs that each is a mean of (DINOv3).
            share = GLOBALS * (GLOBALS - 1) / (GLOBALS * (GLOBALS - 1) + GLOBALS * len(views.small))
            terms["dino"] = share * between + (1 - share) * local
        else:
            terms["dino"] = between
        terms["ibot"] = self._ibot(student, patch_targets, places)
        # Before the head, and per large crop: neighbours are other clips, never another view of the same one.
        terms["koleo"] = torch.stack([koleo_loss(part) for part in large.unflatten(0, (crops, clips))]).sum()
        if self.anchor is not None:
            terms["gram"] = gram_loss(student.patches, self._anchored(seen))
        total = sum(getattr(config, name) * value for name, value in terms.items())
        assert isinstance(total, Tensor)
        return total, {name: value.detach() for name, value in terms.items()}

    def follow(self, backbone: Backbone, momentum: float) -> None:
        """Move the teacher towards the student."""
        self.teacher.follow(momentum, backbone=backbone, heads=self.heads)

    def hold_prototypes(self) -> None:
        """Drop the gradients of the heads' last layers."""
        for head in self.heads.values():
            assert isinstance(head, ProjectionHead)
            head.prototypes.weight.grad = None

    @torch.no_grad()
    def _targets(self, seen: Tensor, times: Tensor, places: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The teacher's assignments of crops [2B, K] and of masked patches [N, K]."""
        backbone, heads = self.teacher.backbone, self.teacher.heads
        assert isinstance(backbone, Backbone) and isinstance(heads, nn.ModuleDict)
        out = self._run(backbone, seen, times)
        shared = self.config.shared_centring and world_size() > 1
        cls = sinkhorn(heads["dino"](out.cls.float().mean(1)), temperature, shared=shared)
        masked = out.patches[places]  # where a process has any, all have: their number follows from the configuration
        return cls, sinkhorn(heads["ibot"](masked), temperature, shared=shared) if len(masked) else masked

    def _ibot(self, student: BackboneOutput, targets: Tensor, places: Tensor) -> Tensor:
        masked = student.patches[places]
        if not len(masked):
            return masked.sum() * 0.0
        per_crop = places.sum((1, 2))
        weights = (1 / per_crop.clamp(min=1)).to(masked.device)[:, None, None].expand_as(places)[places]
        return ibot_loss(self.heads["ibot"](masked), targets, weights, len(places), self.config.student_temperature)

    @torch.no_grad()
    def _anchored(self, seen: Tensor) -> Tensor:
        """The initial model's patches [2B, T, h*w, D], every frame by itself."""
        assert self.anchor is not None
        single = seen.flatten(0, 1)[:, None]
        patches = self._run(self.anchor, single, None).patches
        return patches[:, 0].unflatten(0, seen.shape[:2])

    def _run(self, backbone: Backbone, images: Tensor, times: Tensor | None) -> BackboneOutput:
        mean, std = (images.new_tensor(v)[:, None, None] for v in (self.model_config.mean, self.model_config.std))
        if times is not None and bool((times == times[:1]).all()):
            times = times[0]  # one rotary table for all clips
        return backbone((images - mean) / std, times=times, camera_token=self.model_config.camera_token, keep_hidden=())
