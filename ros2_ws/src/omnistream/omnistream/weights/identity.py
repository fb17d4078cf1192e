# SPDX-License-Identifier: Apache-2.0
"""One short name for what a model computes, so that a policy can tell whether features come from the model it knows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import weakref

import torch

from omnistream.model.backbone import Backbone
from omnistream.model.omnistream import OmniStream

HEX_DIGITS = 16

NOT_COMPUTED_WITH = ("layer_scale_init", "image_size", "scale")
"""Configuration that changes no output for a given input: initial values, the default size, the name of the unit."""
AS_BEFORE = {"lens": "guessed"}
"""Fields that came later, with the values of what was there before: models with these keep their hash."""


def model_hash(model: OmniStream | Backbone) -> str:
    """16 hex digits of a SHA-256 over the configuration that is computed with, and all parameters.

    The parameters enter sorted by name, each as name, shape and float32 little-endian bytes. So the hash is the same on
    every machine and device, and does not depend on the file. It changes when a value changes, also by rounding: a
    float16 copy has another hash, unless every value is exact in float16; saving that copy as float32 keeps its hash.
    Take it from the float32 model, before an engine casts it. Reads every parameter, about 2 s for ViT-L, but once:
    it is remembered until a parameter is replaced or changed in place (through `.data` that would not be noticed).
    """
    versions = _versions(model)
    known = _known.get(model)
    if known is None or versions is None or known[0] != versions:
        known = _known[model] = (versions, _digest(model))
    return known[1]


_known: weakref.WeakKeyDictionary[torch.nn.Module, tuple[list[tuple[int, int]] | None, str]] = (
    weakref.WeakKeyDictionary()
)


def _versions(model: torch.nn.Module) -> list[tuple[int, int]] | None:
    """Changes whenever a parameter does; None where torch does not count (tensors made in inference mode)."""
    try:
        return [(id(tensor), tensor._version) for tensor in (*model.parameters(), *model.buffers())]
    except RuntimeError:
        return None


def _digest(model: OmniStream | Backbone) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps(_computed_with(dataclasses.asdict(model.config)), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:HEX_DIGITS]


def _computed_with(config: dict) -> dict:
    return {
        name: _computed_with(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in NOT_COMPUTED_WITH and AS_BEFORE.get(name) != value
    }
