# SPDX-License-Identifier: Apache-2.0
"""Exported graphs against the torch engine in float32, frame by frame, until every slot has been overwritten."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnistream.engines.base import Engine, StepOutputs
from omnistream.engines.graphs import GraphSet
from omnistream.engines.onnxruntime_engine import OnnxRuntimeEngine
from omnistream.engines.torch_engine import TorchEngine
from omnistream.heads.heads import HEADS
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import CachePolicy

from .static_engine import StaticEngine

FLOAT32_TOLERANCE = 2e-5
"""max|a - b| over max(1, max|b|), of every output: the invariant of this project."""
FLOAT16_TOLERANCE = 2e-2
"""Relative L2 of the patches."""


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

    @property
    def passed(self) -> bool:
        """Whether the invariant holds."""
        if self.dtype == "float32":
            return max(self.largest.values()) <= FLOAT32_TOLERANCE
        return self.patches_l2 <= FLOAT16_TOLERANCE

    def add(self, found: StepOutputs, expected: StepOutputs) -> None:
        """Take one frame into account."""
        self.frames += 1
        for name, a, b in _pairs(found, expected):
            error = float((a - b).abs().max() / b.abs().max().clamp(min=1))
            self.largest[name] = max(self.largest.get(name, 0.0), error)
        l2 = (found.patches.cpu() - expected.patches).norm() / expected.patches.norm()
        self.patches_l2 = max(self.patches_l2, float(l2))

    def __str__(self) -> str:
        limit = (
            f"every output <= {FLOAT32_TOLERANCE:g}"
            if self.dtype == "float32"
            else f"relative L2 of patches <= {FLOAT16_TOLERANCE:g}"
        )
        rows = [f"  {name:<18} {error:.1e}" for name, error in self.largest.items()]
        verdict = "passed" if self.passed else "FAILED"
        head = f"{self.engine}: {verdict}, {self.frames} frames against torch float32 ({limit})"
        return "\n".join([head, *rows, f"  patches, rel. L2   {self.patches_l2:.1e}"])


def verify(model: OmniStream, graphs: GraphSet, seed: int = 0) -> list[Comparison]:
    """Run both backbones of `graphs`, and the heads, on noise; three frames more than there are slots."""
    engines: list[Engine] = [OnnxRuntimeEngine(model.config, [graphs]), StaticEngine(model.config, graphs)]
    return [compare(engine, model, graphs, seed) for engine in engines]


def compare(engine: Engine, model: OmniStream, graphs: GraphSet, seed: int = 0) -> Comparison:
    """Run `engine` and the torch engine on the same noise; three frames more than there are slots."""
    reference = TorchEngine(model, torch.device("cpu"), torch.float32)
    policy, want = graphs.policy, HEADS if model.heads is not None else ()
    states = [e.new_state(policy, *graphs.size) for e in (engine, reference)]
    comparison = Comparison(engine.spec.name, graphs.dtype)
    for frame in _frames(graphs, seed, policy):
        found, expected = (
            e.step(state, frame, None, want) for e, state in zip((engine, reference), states, strict=True)
        )
        comparison.add(found, expected)
    return comparison


def _frames(graphs: GraphSet, seed: int, policy: CachePolicy) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(policy.slots + (3 if policy.evicts else 0)):
        yield torch.randn(graphs.batch, 3, graphs.height, graphs.width, generator=generator)


def _pairs(found: StepOutputs, expected: StepOutputs) -> Iterator[tuple[str, Tensor, Tensor]]:
    sides = [(name, getattr(found, name), getattr(expected, name)) for name in ("patches", "cls", "camera")]
    for f in dataclasses.fields(found.heads):
        name = "raw pose" if f.name == "camera" else f.name
        sides.append((name, getattr(found.heads, f.name), getattr(expected.heads, f.name)))
    yield from ((name, a.cpu(), b) for name, a, b in sides if b is not None)
