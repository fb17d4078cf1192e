# SPDX-License-Identifier: Apache-2.0
"""Writes the ONNX graphs of a model: a backbone that grows, a backbone of fixed size, the heads, and their sidecar.

Opset 24: the cache is written by TensorScatter and read by single-output Attention, which ONNX Runtime and TensorRT
(10.15 or newer) both run in place. The backbone is traced once; the growing one is the same graph without the key mask.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnxscript
import torch
from onnx.external_data_helper import convert_model_to_external_data, write_external_data_tensors
from onnx.utils import Extractor
from onnxscript.values import Opset
from torch import Tensor, nn

import omnistream
from omnistream.engines.graphs import (
    CACHE_TOKENS,
    GROWING,
    HEAD_OUTPUTS,
    SIDECAR,
    STATIC,
    GraphSet,
    GraphSpec,
    Role,
    TensorSpec,
)
from omnistream.errors import ConfigError
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import CachePolicy
from omnistream.stream.state import StateSpec
from omnistream.weights.files import new_directory, sha256_of
from omnistream.weights.identity import model_hash

from .checks import check_graph
from .int8 import quantise_linears
from .modules import BackboneStep, HeadsStep
from .verify import check_int8

OPSET = 24
DTYPES = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
INLINE_BYTES = 1024
"""Smaller tensors stay in the graph file, where shape inference sees them."""


def export_graphs(
    model: OmniStream,
    directory: Path,
    *,
    height: int,
    width: int,
    policy: CachePolicy,
    dtype: str = "fp32",
    batch: int = 1,
    made_by: str = "omnistream_export.onnx_graphs.export_graphs",
    overwrite: bool = False,
) -> GraphSet:
    """Export `model` (float32, on the CPU) into `directory`, whole or not at all; every graph has passed all checks.

    height, width: of frames, in pixels. policy: gives the number of slots of the static backbone.
    dtype: `fp32` or `fp16`, of the backbone, or `int8`, of its linear layers (then for ONNX Runtime only); the heads
    compute in float32 always.
    Raises ConfigError for sizes that do not fit and for a directory that is taken, and EngineError where int8 comes too
    far from float32 on pictures (see `verify`).
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if batch < 1:
        raise ConfigError(f"batch is {batch}; expected at least 1")
    spec = StateSpec(
        policy=policy,
        batch=batch,
        height=height,
        width=width,
        camera_token=model.config.camera_token,
        dtype=torch.float16 if dtype == "fp16" else torch.float32,
    )
    spec.check(model.config.backbone)
    _check_target(directory, overwrite)
    with new_directory(directory, replace=overwrite) as partial:
        graphs = _write_backbone(model, spec, partial, int8=dtype == "int8")
        if model.heads is not None:
            graphs |= _write_heads(model, spec, partial)
        for graph in graphs.values():
            sides = {CACHE_TOKENS: spec.shape(model.config.backbone)[4]}
            check_graph(partial / graph.file, sides, tensorrt=dtype != "int8")
        names = {name for graph in graphs.values() for name in (graph.file, graph.weights)}
        exported = GraphSet(
            directory=directory,
            model=model.config,
            model_hash=model_hash(model),
            height=height,
            width=width,
            batch=batch,
            policy=policy,
            dtype=DTYPES[dtype],
            opset=OPSET,
            graphs=graphs,
            sha256={name: sha256_of(partial / name) for name in sorted(names)},
            versions={
                "omnistream": omnistream.__version__,
                "torch": torch.__version__,
                "onnx": onnx.__version__,
                "onnxscript": onnxscript.__version__,
            },
            made_by=made_by,
        )
        (partial / SIDECAR).write_text(exported.to_json(), encoding="utf-8")
        if dtype == "int8":  # how much is lost depends on the weights: what loses too much is not written
            check_int8(model, dataclasses.replace(exported, directory=partial))
    return exported


def _write_backbone(model: OmniStream, spec: StateSpec, directory: Path, int8: bool) -> dict[Role, GraphSpec]:
    """Both forms, over one file of weights; the growing one alone with linear layers in int8."""
    step = BackboneStep(_cast(model, spec.dtype))
    config, batch = model.config.backbone, spec.batch
    tokens = config.tokens_per_frame(spec.height, spec.width, spec.camera_token)
    layers, _, *cache_shape = spec.shape(config)
    tables = torch.zeros(2, batch, 1, tokens, config.head_dim, dtype=spec.dtype)
    arguments = (
        torch.zeros(batch, 3, spec.height, spec.width, dtype=spec.dtype),
        torch.zeros(1, dtype=torch.bool),
        tables[0],
        tables[1],
        torch.zeros(batch, dtype=torch.int64),
        torch.ones(batch, 1, tokens, cache_shape[2], dtype=torch.bool),
        list(torch.zeros(2 * layers, *cache_shape, dtype=spec.dtype)),
    )
    proto = _trace(step, arguments, step.input_names, step.output_names)
    aliases = {f"new_{name}": name for name in step.cache_names}
    if int8:
        quantise_linears(proto)
    _write_weights(proto, directory / "backbone.weights")
    graphs: dict[Role, GraphSpec] = {}
    if not int8:
        graphs[STATIC] = _save(proto, directory / "backbone_static.onnx", "backbone.weights", aliases)
    _remove_mask(proto, [*aliases, *aliases.values()])
    graphs[GROWING] = _save(proto, directory / "backbone_growing.onnx", "backbone.weights", aliases)
    return graphs


def _write_heads(model: OmniStream, spec: StateSpec, directory: Path) -> dict[Role, GraphSpec]:
    """One graph for each set of outputs, over one file of weights: a runtime executes all of a graph or nothing."""
    step = HeadsStep(model, spec.height, spec.width)
    config = model.config.backbone
    patches = (spec.height // config.patch_size) * (spec.width // config.patch_size)
    arguments = (
        torch.zeros(spec.batch, config.dim, dtype=spec.dtype),
        [torch.zeros(spec.batch, patches, config.dim, dtype=spec.dtype) for _ in step.heads.config.taps],
    )
    proto = _trace(step, arguments, step.input_names, step.output_names)
    _write_weights(proto, directory / "heads.weights")
    graphs: dict[Role, GraphSpec] = {}
    for role, outputs in HEAD_OUTPUTS.items():
        inputs = ["camera_token"] if role == "pose" else [name for name in step.input_names if name != "camera_token"]
        part = Extractor(proto).extract_model(inputs, list(outputs))
        del part.graph.value_info[:]
        graphs[role] = _save(part, directory / f"{role}.onnx", "heads.weights", {})
    return graphs


def _cast(model: OmniStream, dtype: torch.dtype) -> OmniStream:
    """The model with its backbone in `dtype`; the caller's is left as it is."""
    if dtype is torch.float32:
        return model
    cast = copy.deepcopy(model)
    cast.backbone.to(dtype)
    return cast


def _trace(
    module: nn.Module, arguments: tuple[Tensor | list[Tensor], ...], inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    operators = Opset("", OPSET)  # onnxscript 0.7 has no opset24 module of its own

    def tensor_scatter(cache: object, update: object, index: object) -> object:
        return operators.TensorScatter(cache, update, index, axis=2, mode="linear")

    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            arguments,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            custom_translation_table={torch.ops.omnistream.cache_write.default: tensor_scatter},
            verbose=False,
        )
    assert program is not None  # without a file name it is returned
    proto = program.model_proto
    _strip(proto)
    return proto


def _strip(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes: stack traces with the paths of this machine, and intermediate shapes."""
    del proto.metadata_props[:], proto.graph.metadata_props[:], proto.graph.value_info[:]
    proto.graph.doc_string = proto.doc_string = ""
    proto.graph.name = "omnistream"
    for item in [*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        del item.metadata_props[:]
        item.doc_string = ""


def _remove_mask(proto: onnx.ModelProto, caches: Sequence[str]) -> None:
    """Turn the static backbone into the growing one: all keys are valid, and their number is open."""
    for node in proto.graph.node:
        if node.op_type == "Attention":
            del node.input[3:]
    kept = [value for value in proto.graph.input if value.name != "key_mask"]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    for value in [*proto.graph.input, *proto.graph.output]:
        if value.name in caches:
            value.type.tensor_type.shape.dim[2].dim_param = CACHE_TOKENS


def _write_weights(proto: onnx.ModelProto, path: Path) -> None:
    """Move the weights into a file of their own; `proto` then refers to it."""
    convert_model_to_external_data(proto, location=path.name, size_threshold=INLINE_BYTES)
    write_external_data_tensors(proto, str(path.parent))
    path.chmod(0o644)  # onnx writes it for its owner alone


def _save(proto: onnx.ModelProto, path: Path, weights: str, aliases: dict[str, str]) -> GraphSpec:
    path.write_bytes(proto.SerializeToString())
    inputs, outputs = (tuple(map(_tensor_spec, side)) for side in (proto.graph.input, proto.graph.output))
    return GraphSpec(path.name, weights, inputs, outputs, aliases)


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(value.name, dtype, tuple(d.dim_param or d.dim_value for d in tensor.shape.dim))


def _check_target(directory: Path, overwrite: bool) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not overwrite:
        raise ConfigError(f"{directory} exists already; choose another name or allow overwriting")
    if not (directory / SIDECAR).is_file():
        raise ConfigError(f"{directory} has no {SIDECAR}: it is not an export of ours and is not overwritten")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own internals and on packages that it would like."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
