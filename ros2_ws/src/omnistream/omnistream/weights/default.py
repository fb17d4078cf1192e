# SPDX-License-Identifier: Apache-2.0
"""Models for those who name no checkpoint: the shipped weights, or seeded random ones."""

from __future__ import annotations

import torch

from omnistream.model.config import ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.weights.load import load_model
from omnistream.weights.shipped import DEFAULT


def default_model() -> tuple[OmniStream, str]:
    """The shipped model in eval mode and one sentence on what it is, which belongs in front of the user."""
    model = load_model(DEFAULT)
    return model, f"shipped default weights, scale {model.config.scale}"


def random_model(config: ModelConfig, seed: int) -> OmniStream:
    """`OmniStream(config)` in eval mode, drawn from `seed`; torch's global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OmniStream(config).eval()
