# SPDX-License-Identifier: Apache-2.0
"""The model that a command line names."""

from __future__ import annotations

from omnistream.model.omnistream import OmniStream
from omnistream.weights import default_model, load_model


def named_model(weights: str | None) -> tuple[OmniStream, str]:
    """In eval mode, and in words; None is the shipped one. Raises CheckpointError."""
    if weights is None:
        return default_model()
    model = load_model(weights)
    return model, f"{weights}, scale {model.config.scale}"
