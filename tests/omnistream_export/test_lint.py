# SPDX-License-Identifier: Apache-2.0
"""Each rule of the TensorRT lint, on a graph that keeps all but that one."""

from __future__ import annotations

import re
from collections.abc import Callable

import onnx
import pytest
from onnx import TensorProto, helper

from omnistream_export.lint import lint

FLOAT, HALF, BOOL, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BOOL, TensorProto.INT64
CACHE, FRAME = [1, 2, 12, 8], [1, 2, 4, 8]


def model(change: Callable[[onnx.GraphProto], None] = lambda graph: None, opset: int = 24) -> onnx.ModelProto:
    """One layer's cache and attention, as our graphs have it."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("TensorScatter", ["keys", "k", "index"], ["new_keys"], "write", axis=2, mode="linear"),
            helper.make_node("TensorScatter", ["values", "v", "index"], ["new_values"], "write_v", axis=2),
            helper.make_node("Attention", ["q", "new_keys", "new_values", "mask"], ["out"], "attention"),
        ],
        "test",
        [
            *(value(name, FLOAT, FRAME) for name in "qkv"),
            *(value(name, FLOAT, CACHE) for name in ("keys", "values")),
            value("index", INT, [1]),
            value("mask", BOOL, [1, 1, 4, 12]),
        ],
        [value("out", FLOAT, FRAME), *(value(name, FLOAT, CACHE) for name in ("new_keys", "new_values"))],
    )
    change(graph)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    return next(n for n in graph.node if n.name == name)


def drop(values, name: str) -> None:
    kept = [value for value in values if value.name != name]
    del values[:]
    values.extend(kept)


def hide_cache(graph: onnx.GraphProto) -> None:
    graph.node.insert(0, helper.make_node("Identity", ["keys"], ["copy"]))
    node(graph, "write").input[0] = "copy"


def compute_index(graph: onnx.GraphProto) -> None:
    graph.node.insert(0, helper.make_node("Identity", ["index"], ["computed"]))
    node(graph, "write").input[2] = "computed"


def foreign_operator(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Sin", ["q"], ["extra"]))


def write_in_a_circle(graph: onnx.GraphProto) -> None:
    mode = next(attribute for attribute in node(graph, "write").attribute if attribute.name == "mode")
    mode.s = b"circular"


def add_double(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("stamp", TensorProto.DOUBLE, [1]))


def open_side(graph: onnx.GraphProto) -> None:
    for value in [*graph.input, *graph.output]:
        if "keys" in value.name or "values" in value.name:
            value.type.tensor_type.shape.dim[2].dim_param = "cache_tokens"
    drop(graph.input, "mask")
    del node(graph, "attention").input[3]


def test_our_form_is_accepted():
    assert lint(model()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (hide_cache, "cache copy is not an input"),
        (compute_index, "write position of copy|write position of keys is not an input"),
        (lambda g: drop(g.output, "new_keys"), "cache update new_keys is not an output"),
        (write_in_a_circle, "expected axis 2, linear"),
        (foreign_operator, "operator Sin is not in the importer's table"),
        (lambda g: node(g, "attention").output.extend(["present_k", "present_v"]), "has 3 outputs; expected one"),
        (lambda g: node(g, "attention").attribute.append(helper.make_attribute("is_causal", 1)), "is causal"),
        (lambda g: node(g, "attention").input.extend(["", "", "index"]), "takes past keys or a length"),
        (open_side, r"keys has shape \[1, 2, 'cache_tokens', 8\]; every side must be fixed"),
    ],
)
def test_each_breach_is_named(change, message):
    found = lint(model(change))
    assert any(re.search(message, line) for line in found), found


def test_an_open_side_that_will_be_fixed_is_fine():
    assert lint(model(open_side), {"cache_tokens": 12}) == []


def test_types_and_opset():
    assert lint(model(add_double)) == ["stamp is DOUBLE"]
    other = model()
    other.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert "domain 'com.microsoft' is imported; expected ONNX's own only" in lint(other)
    assert "opset is 25; expected 24" in lint(model(opset=25))


def test_the_graph_is_left_as_it_was():
    given = model(open_side)
    before = given.SerializeToString()
    lint(given, {"cache_tokens": 12})
    assert given.SerializeToString() == before
