# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of any known kind, opened: configuration read, header checked, weights still on disk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnistream.errors import CheckpointError, ConfigError
from omnistream.model.backbone import Backbone
from omnistream.model.config import ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.weights.files import sha256_of
from omnistream.weights.keymap import KeyMap, assemble, check
from omnistream.weights.shapes import describe
from omnistream.weights.tensor_source import TensorSource

BACKBONE = "backbone."
ROPE_OVERRIDES = ("rope_layout", "temporal_rope", "rope_base")


@dataclass(frozen=True)
class Checkpoint:
    """Made by `open_checkpoint`; `state_dict`, `model` and `backbone` read the weights."""

    path: Path
    kind: str
    """`omnistream`, `released`, `dinov3-transformers` or `dinov3-meta`."""
    config: ModelConfig
    source: TensorSource
    mapping: KeyMap
    """Targets are parameter names of `OmniStream(config)`."""
    weights_sha256: str | None = None
    """What config.json says of the weights file; checked before it is read."""
    info: dict[str, Any] = field(default_factory=dict)
    """The whole config.json of our own format; empty for the others."""

    def __post_init__(self) -> None:
        check(self.source, self.mapping, f"the {self.kind} model ({describe(self.config.backbone)})")

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """The float32 tensors whose names start with `prefix`, which is removed. Raises `CheckpointError`."""
        if self.weights_sha256 is not None:
            found = sha256_of(self.source.files[0])
            if found != self.weights_sha256:
                raise CheckpointError(
                    f"{self.source.where} has sha256 {found[:16]}..., config.json says {self.weights_sha256[:16]}...; "
                    "the two files are not of one checkpoint, or the weights are damaged"
                )
        rules = [
            replace(rule, target=rule.target.removeprefix(prefix))
            for rule in self.mapping.rules
            if rule.target.startswith(prefix)
        ]
        return assemble(self.source, KeyMap(self.mapping.slots, rules))

    def model(self) -> OmniStream:
        """The whole model, float32, on the CPU, in eval mode."""
        with torch.device("meta"):  # no memory, no initialisation: every parameter is replaced
            model = OmniStream(self.config)
        model.load_state_dict(self.state_dict(), assign=True)
        model.checkpoint = self.path
        return model.eval()

    def backbone(self, **overrides: Any) -> Backbone:
        """The backbone alone, in eval mode, with rotary settings overridden (`ROPE_OVERRIDES`)."""
        unknown = sorted(set(overrides) - set(ROPE_OVERRIDES))
        if unknown:
            raise ConfigError(f"{', '.join(unknown)} cannot be overridden; expected {', '.join(ROPE_OVERRIDES)}")
        with torch.device("meta"):
            backbone = Backbone(replace(self.config.backbone, **overrides))
        backbone.load_state_dict(self.state_dict(BACKBONE), assign=True)
        return backbone.eval()

    def provenance(self) -> dict[str, Any]:
        """What a checkpoint made from this one records of it: kind, name and digests, no path of this machine."""
        return {
            "kind": self.kind,
            "name": self.path.resolve().name,
            "files": {file.name: sha256_of(file) for file in self.source.files},
        }
