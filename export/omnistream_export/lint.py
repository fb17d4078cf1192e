# SPDX-License-Identifier: Apache-2.0
"""Whether TensorRT (10.15 or newer, 11.x included) should take a graph: a static check that needs no TensorRT.

The rules come from NVIDIA's operator tables and headers (TensorRT 10.15 to 11.4) and from reports on its parser:
Attention only with one output and four inputs at most (NVIDIA/TensorRT issue 4738); a KV cache must be an input of the
network, its update an output; the write position must be an input; every shape is known.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

OPSET = 24
"""TensorScatter comes with 24; 25 is read since TensorRT 11.5 only."""

# Operators of the importer since 10.3 at the latest; Attention came with 10.14, TensorScatter with 10.15.
OPERATORS = frozenset([
    "Add", "And", "Attention", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose", "Div", "Equal", "Erf",
    "Exp", "Expand", "Gather", "GatherND", "Gelu", "Gemm", "Identity", "LayerNormalization", "LeakyRelu", "Less",
    "MatMul", "Mul", "Neg", "Not", "Pad", "Pow", "ReduceMean", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice",
    "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "TensorScatter", "Tile", "Transpose", "Unsqueeze", "Where",
])  # fmt: skip
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
IO_TYPES = FLOATS | {onnx.TensorProto.BOOL, onnx.TensorProto.INT32, onnx.TensorProto.INT64}


def lint(model: onnx.ModelProto, fixed: Mapping[str, int] | None = None) -> list[str]:
    """Reasons why TensorRT would refuse `model`, sorted; none is good.

    fixed: values of open sides by name, for a graph that is given its sizes before it is built.
    Raises onnx's InferenceError if shapes or types contradict each other.
    """
    typed = onnx.shape_inference.infer_shapes(fix_sides(model, fixed or {}), strict_mode=True)
    graph = typed.graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    found = _opsets(typed) + _interface(graph)
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            found.append(f"operator {node.op_type} of domain {node.domain!r}; expected ONNX's own")
        elif node.op_type not in OPERATORS:
            found.append(f"operator {node.op_type} is not in the importer's table")
        elif node.op_type == "Attention":
            found += _attention(node, types)
        elif node.op_type == "TensorScatter":
            found += _tensor_scatter(node, types, graph)
    return sorted(set(found))


def fix_sides(model: onnx.ModelProto, fixed: Mapping[str, int]) -> onnx.ModelProto:
    """A copy in which the open sides named in `fixed` have these values."""
    model = copy.deepcopy(model)
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in fixed:
                side.dim_value = fixed[side.dim_param]
    return model


def _opsets(model: onnx.ModelProto) -> list[str]:
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    found = [f"domain {domain!r} is imported; expected ONNX's own only" for domain in opsets if domain != "ai.onnx"]
    if opsets.get("ai.onnx") != OPSET:
        found.append(f"opset is {opsets.get('ai.onnx')}; expected {OPSET}")
    return found


def _interface(graph: onnx.GraphProto) -> list[str]:
    found = []
    for value in [*graph.input, *graph.output]:
        tensor = value.type.tensor_type
        sides = [side.dim_value if side.HasField("dim_value") else side.dim_param or "?" for side in tensor.shape.dim]
        if not all(isinstance(side, int) and side > 0 for side in sides):
            found.append(f"{value.name} has shape {sides}; every side must be fixed")
        if tensor.elem_type not in IO_TYPES:
            found.append(f"{value.name} is {onnx.TensorProto.DataType.Name(tensor.elem_type)}")
    return found


def _attention(node: onnx.NodeProto, types: Mapping[str, int]) -> list[str]:
    attributes = _attributes(node)
    found = []
    if len([name for name in node.output if name]) != 1:
        found.append(f"Attention {node.name} has {len(node.output)} outputs; expected one")
    if any(node.input[4:]):
        found.append(f"Attention {node.name} takes past keys or a length; expected q, k, v and a mask at most")
    if attributes.get("is_causal"):
        found.append(f"Attention {node.name} is causal; visibility is the mask's business")
    if attributes.get("q_num_heads") or attributes.get("kv_num_heads"):
        found.append(f"Attention {node.name} has the form of three dimensions; expected four")
    kinds = {types.get(name) for name in node.input[:3]}
    if len(kinds) != 1 or not kinds <= FLOATS:
        found.append(f"Attention {node.name} mixes types: {sorted(map(str, kinds))}")
    if len(node.input) > 3 and node.input[3] and types.get(node.input[3]) not in kinds | {onnx.TensorProto.BOOL}:
        found.append(f"Attention {node.name} has a mask of a type of its own")
    return found


def _tensor_scatter(node: onnx.NodeProto, types: Mapping[str, int], graph: onnx.GraphProto) -> list[str]:
    inputs, outputs = _names(graph.input), _names(graph.output)
    attributes = _attributes(node)
    found = []
    if node.input[0] not in inputs:
        found.append(f"cache {node.input[0]} is not an input of the graph")
    if node.output[0] not in outputs:
        found.append(f"cache update {node.output[0]} is not an output of the graph")
    if len(node.input) < 3 or node.input[2] not in inputs:
        found.append(f"the write position of {node.input[0]} is not an input of the graph")
    if attributes.get("axis", -2) not in (2, -2) or attributes.get("mode", b"linear") != b"linear":
        found.append(f"{node.input[0]} is written along {attributes}; expected axis 2, linear")
    if types.get(node.input[0]) not in FLOATS:
        found.append(f"cache {node.input[0]} is not of a floating type")
    return found


def _names(values: Sequence[onnx.ValueInfoProto]) -> set[str]:
    return {value.name for value in values}


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
