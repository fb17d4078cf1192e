# SPDX-License-Identifier: Apache-2.0
"""The whole geometry loss: L_geo = L_depth + L_ray + L_points + L_camera (paper section 3.3), every term by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from omnistream.errors import ConfigError
from omnistream.heads.camera import lens_error, rays_in_first_camera, split_camera
from omnistream.heads.heads import HeadOutputs
from omnistream_training.losses.camera import camera_loss
from omnistream_training.losses.depth import depth_loss
from omnistream_training.losses.rays import halve, point_loss, ray_loss
from omnistream_training.losses.targets import Targets

Lens = Literal["guessed", "known"]
"""See `ModelConfig.lens`."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms; 0 leaves a term, and where possible its head's work, out."""

    depth: float = 1.0
    """Confidence-weighted depth error."""
    depth_gradient: float = 1.0
    """Multi-scale gradient of the depth error, relative to the depth term."""
    depth_space: Literal["log", "linear"] = "log"
    """Where depth errors are measured."""
    depth_common: float | None = None
    """Weight of each clip's mean depth error, taken out of the pixels' errors; None leaves it in them."""
    lens: Lens = "guessed"
    """Whether depth is asked for as it comes, or after the known lens has corrected it (`lens_error`): the effect of a
    lens that every robot tells in its CameraInfo need not be guessed then."""
    alpha: float = 0.2
    """Reward for confidence: at error e the best confidence is alpha / e (VGGT's value)."""
    rays: float = 0.3
    """Ray map."""
    points: float = 0.1
    """Points from predicted rays and depth."""
    camera: float = 1.0
    """Translation, rotation and field of view."""
    motion: float = 0.0
    """Translation without each clip's mean error, times `camera`: what is left of a path's error once it is aligned."""

    def __post_init__(self) -> None:
        for name in ("depth", "depth_gradient", "alpha", "rays", "points", "camera", "motion"):
            if getattr(self, name) < 0:
                raise ConfigError(f"loss.{name} is {getattr(self, name)}; expected 0 or more")
        if self.lens not in ("guessed", "known"):
            raise ConfigError(f"loss.lens is {self.lens!r}; expected 'guessed' or 'known'")
        if self.lens == "known" and not self.camera:
            raise ConfigError(
                "loss.lens is 'known', which corrects what the camera head guessed; give loss.camera a weight"
            )
        if self.points and not (self.rays and self.depth):
            raise ConfigError(f"loss.points is {self.points} but points need depth and rays; give both a weight")

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that some term needs."""
        wanted = {"depth": self.depth, "rays": self.rays, "pose": self.camera}
        return tuple(name for name, weight in wanted.items() if weight)


def geometry_loss(outputs: HeadOutputs, targets: Targets, config: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Total and its weighted terms, which add up to it (scalars, float32). Heads that are None are left out."""
    terms: dict[str, Tensor] = {}
    if config.lens == "known":
        outputs = through_known_lens(outputs, targets)
    if outputs.log_depth is not None and outputs.depth_confidence is not None:
        parts = depth_loss(
            _wide(outputs.log_depth),
            _wide(outputs.depth_confidence),
            targets.depth,
            targets.depth_valid,
            space=config.depth_space,
            alpha=config.alpha,
            gradient=config.depth_gradient,
            common=config.depth_common,
        )
        terms |= {name: config.depth * term for name, term in parts.items()}
    if outputs.rays is not None and outputs.ray_confidence is not None:
        rays, known = _wide(outputs.rays), targets.posed & targets.calibrated
        if outputs.camera is not None:
            own = targets.placed[..., None, None, None]
            rays = torch.where(own, rays, rays_in_first_camera(rays, _wide(outputs.camera)))
        terms["rays"] = config.rays * ray_loss(
            rays, _wide(outputs.ray_confidence), targets.rays, known, alpha=config.alpha
        )
        if config.points and outputs.depth is not None:
            valid = targets.depth_valid & known[:, :, None, None]
            predicted, _ = halve(_wide(outputs.depth), torch.ones_like(valid))
            wanted, complete = halve(targets.depth, valid)
            terms["points"] = config.points * point_loss(rays, predicted, targets.rays, wanted, complete)
    if outputs.camera is not None:
        camera = camera_loss(
            _wide(outputs.camera),
            targets.translation,
            targets.quaternion,
            targets.fov,
            posed=targets.posed,
            placed=targets.placed,
            calibrated=targets.calibrated,
            motion=config.motion,
        )
        terms |= {name: config.camera * term for name, term in camera.items()}
    if not terms:
        raise ConfigError("no head ran: the loss has nothing to work on")
    return torch.stack(list(terms.values())).sum(), terms


def through_known_lens(outputs: HeadOutputs, targets: Targets) -> HeadOutputs:
    """Depth corrected by the known lens, where it is known. The camera head learns nothing by it."""
    if outputs.log_depth is None or outputs.camera is None:
        return outputs
    error = lens_error(split_camera(_wide(outputs.camera).detach())[2], targets.fov)
    error = torch.where(targets.calibrated, error, 0.0)
    return dataclasses.replace(outputs, log_depth=_wide(outputs.log_depth) - error[..., None, None])


def _wide(x: Tensor) -> Tensor:
    """At least float32: under autocast some outputs are bfloat16, and losses are not computed in that."""
    return x if x.dtype is torch.float64 else x.float()
