# SPDX-License-Identifier: Apache-2.0
"""Losses of the geometric part of the pre-training: depth, rays, points, camera."""

from omnistream_training.losses.geometry import LossConfig, geometry_loss
from omnistream_training.losses.targets import Targets, make_targets

__all__ = ["LossConfig", "Targets", "geometry_loss", "make_targets"]
