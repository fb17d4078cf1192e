# SPDX-License-Identifier: Apache-2.0
"""What goes into exported graphs and comes out, by name: common to every engine that runs them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from omnistream.engines.base import TAPS, StepOutputs
from omnistream.errors import ConfigError, OmniStreamError
from omnistream.heads.heads import HEADS, HeadOutputs
from omnistream.model.config import ModelConfig
from omnistream.model.rope import rope_tables
from omnistream.stream.state import StreamState

TAP = "tap_"
"""Begins the names of a backbone graph's outputs for the DPT: `tap_0` is the shallowest."""


def check_step(config: ModelConfig, state: StreamState, frames: Tensor, want: Collection[str]) -> None:
    """Raise ConfigError or StreamFull for what cannot be run, before anything is."""
    state.spec.check_frame(frames)
    state.spec.policy.check(state.frames_seen + 1)
    unknown = set(want) - {*HEADS, TAPS}
    if unknown:
        raise ConfigError(f"unknown head(s) {sorted(unknown)}; expected any of {', '.join((*HEADS, TAPS))}")
    if want and config.heads is None:
        raise ConfigError(f"this checkpoint has no heads; it cannot give {', '.join(sorted(want))}")


def step_inputs(
    config: ModelConfig, state: StreamState, frames: Tensor, times: Tensor | None, slot: int
) -> dict[str, Tensor]:
    """Inputs of the coming step but for caches and mask, on the CPU; `slot`: where the frame's keys go."""
    spec, backbone = state.spec, config.backbone
    at = state.begin(times)
    grid = (spec.height // backbone.patch_size, spec.width // backbone.patch_size)
    rope = rope_tables(backbone, grid, backbone.prefix_tokens(spec.camera_token), at)
    return {
        "pixels": frames,
        "first_frame": torch.tensor([state.frames_seen == 0]),
        "rope_cos": rope.cos.expand(spec.batch, -1, -1, -1),
        "rope_sin": rope.sin.expand(spec.batch, -1, -1, -1),
        "write_index": torch.full((spec.batch,), slot * state.tokens),
    }


def tap_names(outputs: Iterable[str]) -> list[str]:
    """Those of a backbone's outputs that are for the DPT, shallow to deep."""
    return sorted((name for name in outputs if name.startswith(TAP)), key=lambda name: int(name.removeprefix(TAP)))


def cache_inputs(kv: Tensor) -> dict[str, Tensor]:
    """Views of a state's slots: the caches of every layer. Aliased outputs go to the same memory."""
    caches = {}
    for layer, (keys, values) in enumerate(kv):
        caches[f"key_cache_{layer}"], caches[f"value_cache_{layer}"] = keys, values
    return caches


def key_mask(state: StreamState) -> Tensor:
    """[B, 1, N, all slots' tokens] bool: true for slots in use, the coming frame's included."""
    batch, tokens = state.spec.batch, state.tokens
    mask = torch.zeros(batch, 1, tokens, state.kv.shape[4], dtype=torch.bool)
    mask[..., : state.spec.policy.filled(state.frames_seen + 1) * tokens] = True
    return mask


def finish_step(state: StreamState, backbone: Mapping[str, Tensor]) -> None:
    """The frame counts, unless the backbone gave NaN or infinity (OmniStreamError): in the cache it would spread."""
    if not bool(backbone["cls"].isfinite().all()):
        raise OmniStreamError("the step gave NaN or infinity: the weights are damaged, or their dtype overflows")
    state.advance()


def step_outputs(
    backbone: Mapping[str, Tensor],
    heads: Mapping[str, Tensor],
    want: Collection[str],
    backbone_ms: float,
    heads_ms: float,
) -> StepOutputs:
    """Outputs of the graphs, by name, as every engine returns them. want: of the step."""
    camera = backbone.get("camera_token")
    return StepOutputs(
        patches=backbone["patches"].float(),
        cls=backbone["cls"].float(),
        camera=None if camera is None else camera.float(),
        heads=HeadOutputs(**heads),
        backbone_ms=backbone_ms,
        heads_ms=heads_ms,
        taps=tuple(backbone[name].float() for name in tap_names(backbone)) if TAPS in want else (),
    )
