# SPDX-License-Identifier: Apache-2.0
"""Elementwise torch functions written out as C++ loops.

The mathematics of the ray caster exists once, as torch functions on equally shaped tensors. `emit` traces such a
function and prints the same operations as one loop over the rays of a tile, which a C++ compiler turns into vector
code: nothing is stored between two operations, which is what makes it an order of magnitude faster than the same
function run eagerly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

_C_TYPE = {torch.float32: "float", torch.int32: "int", torch.bool: "int", torch.int64: "int"}

# aten operation -> C++ expression of its operands
_EXPRESSIONS: dict[str, str] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "rsub": "{1} - {0}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "fabsf({0})",
    "reciprocal": "1.0f / {0}",
    "sqrt": "sqrtf({0})",
    "rsqrt": "1.0f / sqrtf({0})",
    "floor": "floorf({0})",
    "sin": "fast_sin({0})",
    "cos": "fast_cos({0})",
    "exp": "fast_exp({0})",
    "atan2": "fast_atan2({0}, {1})",
    "sign": "(float)({0} > 0) - (float)({0} < 0)",
    "maximum": "{0} > {1} ? {0} : {1}",
    "minimum": "{0} < {1} ? {0} : {1}",
    "clamp_min": "{0} < {1} ? {1} : {0}",
    "clamp_max": "{0} > {1} ? {1} : {0}",
    "clamp": "{0} < {1} ? {1} : ({0} > {2} ? {2} : {0})",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
    "bitwise_not": "!{0}",
    "logical_not": "!{0}",
    "__rshift__": "{0} >> {1}",
    "bitwise_right_shift": "{0} >> {1}",
    "pow": "",
    "where": "{0} ? {1} : {2}",
    "scalar_tensor": "{0}",
    "full_like": "{1}",
    "ones_like": "1",
    "zeros_like": "0",
    "_to_copy": "{0}",
    "lift_fresh_copy": "{0}",
    "clone": "{0}",
}


@dataclass(frozen=True)
class Stage:
    """A torch function to be emitted.

    function: called with a dict of tensors, returns a dict of tensors (the outputs, ray buffers of the tile).
    rays: inputs per ray (buffers of the tile), and their type. record: columns of the surface that each ray hit.
    thing: columns of one record for all rays. frame: columns of the frame. arguments: numbers, one for all rays.
    """

    name: str
    function: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    rays: Sequence[str] = ()
    record: Sequence[str] = ()
    thing: Sequence[str] = ()
    frame: Sequence[str] = ()
    arguments: Sequence[str] = ()


INTEGER = frozenset({"surface", "hash", "slot", "index", "count", "face"})
"""Names that are int32; all others are float32."""


def number(value: float | int | bool, as_float: bool) -> str:
    """A C++ literal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not as_float and isinstance(value, int):
        return str(value) if value != -(1 << 31) else "(-2147483647 - 1)"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    if math.isnan(value):
        return "NAN"
    digits = f"{float(value):.9g}"
    return digits + ("f" if "." in digits or "e" in digits else ".0f")


def emit(stage: Stage, columns: dict[str, int], frame: dict[str, int]) -> tuple[str, list[str]]:
    """C++ text of the stage, and the names of its outputs.

    columns, frame: position of every column in a record and in a frame row.

    Raises:
        NotImplementedError: the function uses an operation that has no C++ form here.
    """
    names = [*stage.rays, *stage.record, *stage.thing, *stage.frame, *stage.arguments]
    examples = [torch.ones(4, dtype=torch.int32 if n in INTEGER else torch.float32) for n in names]
    outputs: list[str] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        result = stage.function(dict(zip(names, tensors, strict=True)))
        outputs[:] = list(result)
        return list(result.values())

    graph: Graph = make_fx(flat)(*examples).graph
    graph.eliminate_dead_code()
    arguments = "".join(f", {'int' if a in INTEGER else 'float'} {a}" for a in stage.arguments)
    text = [
        f"STAGE void {stage.name}(Tile& __restrict tile, const float* __restrict records,",
        f"    const float* __restrict thing, const float* __restrict frame{arguments}) {{",
    ]
    for name in stage.thing:
        text.append(f"    const float in_{name} = thing[{columns[name]}];")
    for name in stage.frame:
        text.append(f"    const float in_{name} = frame[{frame[name]}];")
    for name in stage.arguments:
        text.append(f"    const {'int' if name in INTEGER else 'float'} in_{name} = {name};")
    text.append("    for (int r = 0; r < RAYS; ++r) {")
    for name in stage.rays:
        text.append(f"        const {'int' if name in INTEGER else 'float'} in_{name} = tile.{name}[r];")
    if stage.record:
        text.append(f"        const int row = tile.surface[r] * {len(columns)};")
    for name in stage.record:
        text.append(f"        const float in_{name} = records[row + {columns[name]}];")
    placeholders = iter(names)
    value: dict[Node, str] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            value[node] = f"in_{next(placeholders)}"
        elif node.op == "call_function":
            value[node] = node.name
            text.append("        " + _statement(node, value))
        elif node.op == "get_attr":
            raise NotImplementedError(f"{stage.name}: a constant tensor is used; write it as a number")
        elif node.op == "output":
            for name, result in zip(outputs, node.args[0], strict=True):
                text.append(f"        tile.{name}[r] = {value[result]};")
    text.append("    }\n}")
    return "\n".join(text), outputs


def _dtype(node: Any) -> torch.dtype | None:
    if isinstance(node, Node):
        meta = node.meta.get("tensor_meta") or node.meta.get("val")
        return meta.dtype if meta is not None else None
    return None


def _statement(node: Node, value: dict[Node, str]) -> str:
    """One operation as a C++ declaration."""
    operation = str(node.target).split(".")[1] if "." in str(node.target) else str(node.target)
    expression = _EXPRESSIONS.get(operation)
    if expression is None:
        raise NotImplementedError(f"torch operation {node.target} has no C++ form in {__name__}")
    if node.kwargs.get("rounding_mode") is not None or (operation in ("add", "sub") and "alpha" in node.kwargs):
        raise NotImplementedError(f"{node.target} with {node.kwargs} has no C++ form in {__name__}")
    result = _dtype(node)
    operands = [a for a in node.args if a is not None]
    floating = result == torch.float32 or any(_dtype(a) == torch.float32 for a in operands)
    scalars = [a for a in operands if not isinstance(a, list)]
    words = [value[a] if isinstance(a, Node) else number(a, floating) for a in scalars]  # type: ignore[arg-type]
    if operation == "pow":
        if node.args[1] not in (2, 3):
            raise NotImplementedError(f"{node.target} with exponent {node.args[1]} has no C++ form in {__name__}")
        expression, words = "{0}", [" * ".join(words[:1] * int(node.args[1]))]  # type: ignore[arg-type]
    if operation == "clamp" and (len(node.args) < 3 or node.args[1] is None):
        expression = _EXPRESSIONS["clamp_max" if len(node.args) > 2 else "clamp_min"]
    if operation == "bitwise_not" and result != torch.bool:
        expression = "~{0}"
    if operation == "abs" and result == torch.int32:
        expression = "{0} < 0 ? -{0} : {0}"
    assert result is not None
    kind = _C_TYPE[result]
    body = expression.format(*words)
    if operation == "_to_copy" or any(
        _dtype(a) not in (None, result) for a in operands if operation in ("add", "sub", "mul")
    ):
        body = f"({kind})({body})"
    return f"const {kind} {node.name} = {body};"
