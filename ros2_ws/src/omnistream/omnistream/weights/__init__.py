# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: our own format (`own`), the released OmniStream (`released`), DINOv3 as initialisation (`dinov3_*`)."""

from omnistream.weights.average import average_checkpoints
from omnistream.weights.checkpoint import Checkpoint
from omnistream.weights.default import default_model, random_model
from omnistream.weights.identity import model_hash
from omnistream.weights.load import import_checkpoint, load_backbone, load_model, open_checkpoint
from omnistream.weights.own import save_model

__all__ = [
    "Checkpoint",
    "average_checkpoints",
    "default_model",
    "import_checkpoint",
    "load_backbone",
    "load_model",
    "model_hash",
    "open_checkpoint",
    "random_model",
    "save_model",
]
