# SPDX-License-Identifier: Apache-2.0
"""Linear layers in 8 bits, for CPUs: weights once and for all, what goes in anew for every frame.

Weights are symmetric, with a scale for each output channel; inputs are unsigned, with one scale for the whole tensor
(ONNX's DynamicQuantizeLinear), so nothing has to be calibrated. Products and sums are exact integers: the result is the
same on every CPU. Attention, norms, the residual stream, the patch projection and the heads stay in float32.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

LEVELS = 63
"""Largest weight. The 16-bit sums of two products in CPUs before AVX512-VNNI hold 2 * 255 * 63 and no more; with 127
they would saturate without a word. The lost bit costs less than the rounding of the inputs."""


def quantise_linears(proto: onnx.ModelProto) -> int:
    """Replace every product with a constant matrix, in place; returns their number. Weights must be inline.

    x @ w becomes dequantise(quantise(x) @ integers); ONNX Runtime fuses the nodes of each into one kernel.
    """
    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    replaced: dict[str, list[TensorProto]] = {}
    count = 0
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            nodes.append(node)
            continue
        name = node.input[1]
        if name not in replaced:
            integers, scale = _quantise(numpy_helper.to_array(weights[name]))
            replaced[name] = [
                numpy_helper.from_array(integers, f"{name}_int8"),
                numpy_helper.from_array(scale, f"{name}_scale"),
            ]
        nodes += _integer_product(node.input[0], name, node.output[0])
        count += 1
    kept = [tensor for tensor in graph.initializer if tensor.name not in replaced]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *(tensor for pair in replaced.values() for tensor in pair)])
    return count


def _quantise(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """[in, out] -> integers of the same shape and the scale of each output, [out]."""
    largest = np.abs(weight).max(axis=0)
    scale = np.where(largest > 0, largest, 1).astype(np.float32) / LEVELS
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def _integer_product(x: str, weight: str, out: str) -> list[NodeProto]:
    return [
        helper.make_node("DynamicQuantizeLinear", [x], [f"{out}_uint8", f"{out}_scale", f"{out}_zero"]),
        helper.make_node("MatMulInteger", [f"{out}_uint8", f"{weight}_int8", f"{out}_zero"], [f"{out}_int32"]),
        helper.make_node("Cast", [f"{out}_int32"], [f"{out}_sums"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_scale", f"{weight}_scale"], [f"{out}_unit"]),
        helper.make_node("Mul", [f"{out}_sums", f"{out}_unit"], [out]),
    ]
