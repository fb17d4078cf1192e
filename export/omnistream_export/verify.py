# SPDX-License-Identifier: Apache-2.0
"""Exported graphs against the torch engine in float32, frame by frame, until every slot has been overwritten.

Graphs in int8 are compared on pictures instead of noise, as their error depends on what the network sees, and also by
what users see: the depth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from omnistream.engines.base import Engine, StepOutputs
from omnistream.engines.graphs import STATIC, GraphSet
from omnistream.engines.onnxruntime_engine import OnnxRuntimeEngine
from omnistream.engines.torch_engine import TorchEngine
from omnistream.errors import EngineError
from omnistream.heads.heads import HEADS
from omnistream.io import open_source
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import CachePolicy
from omnistream.stream.preprocess import preprocess

from .static_engine import StaticEngine

FLOAT32_TOLERANCE = 2e-5
"""max|a - b| over max(1, max|b|), of every output: the invariant of this project."""
FLOAT16_TOLERANCE = 2e-2
"""Relative L2 of the patches."""
DEPTH_TOLERANCE = 1e-2
"""Mean relative difference of a frame's depth, of int8."""
PICTURES = 8


@dataclass
class Comparison:
    """One engine against the reference: the largest error of each output over all frames."""

    engine: str
    dtype: str
    frames: int = 0
    largest: dict[str, float] = field(default_factory=dict)
    """max|a - b| / max(1, max|b|) by output."""
    patches_l2: float = 0.0
    """Relative L2 of the patches, the worst frame's."""
    depth: float = 0.0
    """Mean relative difference of depth, the worst frame's."""

    @property
    def passed(self) -> bool:
        """Whether the invariant holds."""
        if not all(math.isfinite(error) for error in self.largest.values()):  # of heads too, whatever the dtype
            return False
        if self.dtype == "float32":
            return max(self.largest.values()) <= FLOAT32_TOLERANCE
        return self.patches_l2 <= FLOAT16_TOLERANCE and (self.dtype != "int8" or self.depth <= DEPTH_TOLERANCE)

    def add(self, found: StepOutputs, expected: StepOutputs) -> None:
        """Take one frame into account."""
        self.frames += 1
        for name, a, b in _pairs(found, expected):
            error = (a - b).abs().max() / b.abs().max().clamp(min=1)
            self.largest[name] = max(self.largest.get(name, 0.0), _finite_or_inf(error))
        l2 = (found.patches.cpu() - expected.patches).norm() / expected.patches.norm()
        self.patches_l2 = max(self.patches_l2, _finite_or_inf(l2))
        if found.heads.depth is not None and expected.heads.depth is not None:
            ratio = found.heads.depth.cpu() / expected.heads.depth
            self.depth = max(self.depth, _finite_or_inf((ratio - 1).abs().mean()))

    def __str__(self) -> str:
        limit = f"every output <= {FLOAT32_TOLERANCE:g}"
        if self.dtype != "float32":
            limit = f"relative L2 of patches <= {FLOAT16_TOLERANCE:g}"
            limit += f", depth within {DEPTH_TOLERANCE:.0%}" if self.dtype == "int8" else ""
        rows = [f"  {name:<18} {error:.1e}" for name, error in self.largest.items()]
        verdict = "passed" if self.passed else "FAILED"
        head = f"{self.engine}: {verdict}, {self.frames} frames against torch float32 ({limit})"
        if "log_depth" in self.largest:
            rows.append(f"  depth, relative    {self.depth:.1e}")
        return "\n".join([head, *rows, f"  patches, rel. L2   {self.patches_l2:.1e}"])


def verify(model: OmniStream, graphs: GraphSet) -> list[Comparison]:
    """Run all backbones of `graphs`, and the heads: on noise, over three frames more than slots; int8 on pictures."""
    engines: list[Engine] = [OnnxRuntimeEngine(model.config, [graphs])]
    if STATIC in graphs.graphs:
        engines.append(StaticEngine(model.config, graphs))
    frames = list(pictures(graphs)) if graphs.dtype == "int8" else None
    return [compare(engine, model, graphs, frames) for engine in engines]


def check_int8(model: OmniStream, graphs: GraphSet) -> None:
    """EngineError, with the numbers, unless graphs in int8 come close enough to float32 on the shipped recording."""
    (comparison,) = verify(model, graphs)
    if not comparison.passed:
        raise EngineError(f"these weights lose too much in int8; export fp32. On the shipped recording,\n{comparison}")


def compare(engine: Engine, model: OmniStream, graphs: GraphSet, frames: Iterable[Tensor] | None = None) -> Comparison:
    """Run `engine` and the torch engine on the same frames (default: noise, three frames more than there are slots)."""
    reference = TorchEngine(model, torch.device("cpu"), torch.float32)
    policy, want = graphs.policy, HEADS if model.heads is not None else ()
    states = [e.new_state(policy, *graphs.size) for e in (engine, reference)]
    comparison = Comparison(engine.spec.name, graphs.dtype)
    for frame in _noise(graphs, policy) if frames is None else frames:
        found, expected = (
            e.step(state, frame, None, want) for e, state in zip((engine, reference), states, strict=True)
        )
        comparison.add(found, expected)
    return comparison


def pictures(graphs: GraphSet) -> Iterator[Tensor]:
    """Frames of the shipped recording, spread over it, as the network gets them: [B, 3, H, W], all B the same."""
    source = open_source(Path(str(files("omnistream"))) / "assets" / "recording_room")
    count = min(PICTURES, graphs.policy.slots + (PICTURES if graphs.policy.evicts else 0))
    chosen = set(torch.linspace(0, len(source) - 1, count).long().tolist())
    for frame in source:
        if frame.index in chosen:
            pixels = preprocess(frame.image, (graphs.height, graphs.width), graphs.model)
            yield pixels.expand(graphs.batch, -1, -1, -1)


def _noise(graphs: GraphSet, policy: CachePolicy) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(policy.slots + (3 if policy.evicts else 0)):
        yield torch.randn(graphs.batch, 3, graphs.height, graphs.width, generator=generator)


def _finite_or_inf(error: Tensor) -> float:
    """NaN as infinity: `max` would keep the number before it, and no tolerance would see it."""
    value = float(error)
    return math.inf if math.isnan(value) else value


def _pairs(found: StepOutputs, expected: StepOutputs) -> Iterator[tuple[str, Tensor, Tensor]]:
    sides = [(name, getattr(found, name), getattr(expected, name)) for name in ("patches", "cls", "camera")]
    for f in dataclasses.fields(found.heads):
        name = "raw pose" if f.name == "camera" else f.name
        sides.append((name, getattr(found.heads, f.name), getattr(expected.heads, f.name)))
    yield from ((name, a.cpu(), b) for name, a, b in sides if b is not None)
