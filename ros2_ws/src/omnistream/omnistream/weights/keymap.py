# SPDX-License-Identifier: Apache-2.0
"""From the tensors of a file to the tensors of our model: what a file must hold, and how each of ours is made of it.

A `KeyMap` is data. `check` compares it with a file's header and reads nothing; `assemble` reads tensor by tensor, so
the peak is one model plus one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnistream.errors import CheckpointError
from omnistream.weights.tensor_source import FLOAT_BYTES, Shape, TensorSource

SHOWN = 8
"""How many names of a kind an error lists."""


@dataclass(frozen=True)
class Slot:
    """One tensor that a file may or must hold."""

    shapes: tuple[Shape, ...]
    """Accepted shapes; all have the same elements in the same order."""
    required: bool = True


@dataclass(frozen=True)
class Rule:
    """One tensor of ours: `make` of the listed source tensors (None for an optional one that is absent)."""

    target: str
    shape: Shape
    sources: tuple[str, ...]
    make: Callable[..., Tensor]


@dataclass
class KeyMap:
    """All slots of a file format for one configuration, and all rules of our model."""

    slots: dict[str, Slot] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)

    def copy(self, target: str, shape: Shape, source: str, *also: Shape, required: bool = True) -> None:
        """`target` is `source` reshaped to `shape`; the file may hold it in `shape` or one of `also`. Absent: zeros."""
        self.slots[source] = Slot((shape, *also), required)
        self.make(target, shape, (source,), lambda t: torch.zeros(shape) if t is None else t.reshape(shape))

    def make(self, target: str, shape: Shape, sources: tuple[str, ...], make: Callable[..., Tensor]) -> None:
        """`target` is `make(*sources)`; the slots of the sources are added by the caller."""
        self.rules.append(Rule(target, shape, sources, make))

    def drop(self, source: str, shape: Shape) -> None:
        """`source` may be in the file and is not read; not even its values matter."""
        self.slots[source] = Slot((shape,), required=False)

    def prefixed(self, prefix: str) -> KeyMap:
        """The same with `prefix` before every target."""
        rules = [Rule(prefix + r.target, r.shape, r.sources, r.make) for r in self.rules]
        return KeyMap(self.slots, rules)


def check(source: TensorSource, mapping: KeyMap, described: str) -> None:
    """Refuse missing, unknown, misshapen and non-float tensors, all by name; `described` says what the config is."""
    shapes = {name: " or ".join(map(str, slot.shapes)) for name, slot in mapping.slots.items()}
    missing = [f"{n} {shapes[n]}" for n, slot in mapping.slots.items() if slot.required and n not in source.tensors]
    unknown = [f"{n} {info.shape}" for n, info in source.tensors.items() if n not in mapping.slots]
    misfits, dtypes = [], []
    for name, slot in mapping.slots.items():  # in the order of the model, which reads better than that of a file
        info = source.tensors.get(name)
        if info is None:
            continue
        if info.shape not in slot.shapes:
            misfits.append(f"{name} found {info.shape}, expected {shapes[name]}")
        if info.dtype not in FLOAT_BYTES:
            dtypes.append(f"{name} found {info.dtype}, expected {', '.join(FLOAT_BYTES)}")
    kinds = {"missing": missing, "unknown": unknown, "wrong shape": misfits, "wrong dtype": dtypes}
    problems = [listing(kind, names) for kind, names in kinds.items() if names]
    if problems:
        raise CheckpointError(f"{source.where} does not fit {described}: {'; '.join(problems)}")


def assemble(source: TensorSource, mapping: KeyMap) -> dict[str, Tensor]:
    """Our tensors, float32, in memory of their own. The source must have passed `check`. Refuses NaN and infinity."""
    bad: list[str] = []

    def read(name: str) -> Tensor | None:
        if name not in source.tensors:
            return None
        tensor = source.read(name)
        finite = torch.isfinite(tensor)
        if not bool(finite.all()):
            bad.append(f"{name} ({int((~finite).sum())} of {tensor.numel()} values)")
        return tensor

    tensors: dict[str, Tensor] = {}
    for rule in mapping.rules:
        tensor = rule.make(*(read(name) for name in rule.sources)).contiguous()
        if tuple(tensor.shape) != rule.shape:  # a mistake in a table of ours, not in the file
            raise AssertionError(f"{rule.target} was made with shape {tuple(tensor.shape)}, not {rule.shape}")
        tensors[rule.target] = tensor
    if bad:
        raise CheckpointError(f"{source.where} holds values that are not finite: {listing('tensors', bad)}")
    return tensors


def listing(kind: str, names: Iterable[str]) -> str:
    """`kind (n): a, b, ... and m more`."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{kind} ({len(names)}): {', '.join(names[:SHOWN])}{more}"
