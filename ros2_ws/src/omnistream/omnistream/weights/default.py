# SPDX-License-Identifier: Apache-2.0
"""Models for those who name no checkpoint: the shipped weights where there are some, else seeded random ones."""

from __future__ import annotations

from pathlib import Path

import torch

from omnistream.model.config import ModelConfig, preset
from omnistream.model.omnistream import OmniStream
from omnistream.weights.load import load_model
from omnistream.weights.own import CONFIG_FILE

DEFAULT_WEIGHTS = Path(__file__).resolve().parent.parent / "assets" / "default_weights"
DEFAULT_PRESET = "tiny"
DEFAULT_SEED = 0


def default_model() -> tuple[OmniStream, str]:
    """A model in eval mode and one sentence on what it is, which belongs in front of the user."""
    if (DEFAULT_WEIGHTS / CONFIG_FILE).is_file():
        model = load_model(DEFAULT_WEIGHTS)
        return model, f"shipped default weights, scale {model.config.scale}"
    model = random_model(preset(DEFAULT_PRESET), DEFAULT_SEED)
    return model, f"random weights (preset {DEFAULT_PRESET}, seed {DEFAULT_SEED}): depth and pose mean nothing"


def random_model(config: ModelConfig, seed: int) -> OmniStream:
    """`OmniStream(config)` in eval mode, drawn from `seed`; torch's global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OmniStream(config).eval()
