# SPDX-License-Identifier: Apache-2.0
"""Building plans, and refusing those that may not be run, on the stand-in and a graph of three nodes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from omnistream.cli.interrupt import Interrupt
from omnistream.engines import plans as plans_module
from omnistream.engines.graphs import GROWING, SIDECAR, STATIC, GraphSet, GraphSpec, TensorSpec, read_graphs
from omnistream.engines.plans import PlanSet, has_plans, read_plans
from omnistream.engines.tensorrt_api import check_version
from omnistream.engines.tensorrt_engine import TensorRTEngine
from omnistream.errors import ConfigError, EngineError
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.stream.policy import parse_policy
from omnistream_export.build_progress import BuildProgress
from omnistream_export.tensorrt_build import TIMING_CACHE, build_plans
from tests.omnistream.engines.fake_tensorrt import FakeTensorRT, HostDevice

CACHE, UPDATE = [1, 2, 8, 4], [1, 2, 2, 4]
MODEL = ModelConfig(backbone=BackboneConfig(dim=32, depth=1, heads=2))


def write_graphs(folder: Path, operator: str = "Neg", model_hash: str = "0123456789abcdef") -> GraphSet:
    """A cache written in place and something else, as the graphs of a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "update": (TensorProto.FLOAT, UPDATE),
        "write_index": (TensorProto.INT64, [1]),
        "key_cache_0": (TensorProto.FLOAT, CACHE),
        "new_key_cache_0": (TensorProto.FLOAT, CACHE),
        "patches": (TensorProto.FLOAT, UPDATE),
    }
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in values.items()]
    nodes = [
        helper.make_node(
            "TensorScatter", ["key_cache_0", "update", "write_index"], ["new_key_cache_0"], axis=2, mode="linear"
        ),
        helper.make_node(operator, ["update"], ["patches"], name="last"),
    ]
    graph = helper.make_graph(nodes, "small", infos[:3], infos[3:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
    specs = [
        TensorSpec(name, {TensorProto.FLOAT: "float32"}.get(kind, "int64"), tuple(shape))
        for name, (kind, shape) in values.items()
    ]
    (folder / "static.onnx").write_bytes(proto.SerializeToString())
    (folder / "static.weights").write_bytes(b"")
    spec = GraphSpec(
        "static.onnx", "static.weights", tuple(specs[:3]), tuple(specs[3:]), {"new_key_cache_0": "key_cache_0"}
    )
    graphs = GraphSet(
        directory=folder,
        model=MODEL,
        model_hash=model_hash,
        height=32,
        width=32,
        batch=1,
        policy=parse_policy("window:4"),
        dtype="float32",
        opset=24,
        graphs={GROWING: spec, STATIC: spec},
        sha256={name: digest(folder / name) for name in ("static.onnx", "static.weights")},
        versions={},
        made_by="test",
    )
    (folder / SIDECAR).write_text(graphs.to_json())
    return read_graphs(folder)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(graphs: GraphSet, version: str = "10.16.1.11", **options) -> PlanSet:
    device = HostDevice()
    return build_plans(graphs, trt=FakeTensorRT(device, version), device=device, **options)


def engine_on(plans: PlanSet, version: str = "10.16.1.11", gpu: str = "Stand-in GPU") -> TensorRTEngine:
    device = HostDevice()
    device.gpu = gpu
    return TensorRTEngine(MODEL, [plans], trt=FakeTensorRT(device, version), device=device)


def load(plans: PlanSet) -> None:
    """What a robot does: read the sidecar, check, load the plan."""
    engine_on(read_plans(read_graphs(plans.graphs.directory))).new_state(parse_policy("window:2"), 1, 32, 32)


@pytest.fixture
def graphs(tmp_path) -> GraphSet:
    return write_graphs(tmp_path / "graphs" / "32x32")


@pytest.fixture
def plans(graphs) -> PlanSet:
    return build(graphs)


def test_plans_of_all_graphs_but_the_growing_one_private_and_described(plans, graphs):
    folder = graphs.directory / "tensorrt"
    assert sorted(path.name for path in folder.iterdir()) == ["plans.json", "static.plan"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    found = read_plans(graphs)
    assert found == plans and list(found.plans) == [STATIC]
    assert found.read(STATIC) == (folder / "static.plan").read_bytes()
    assert has_plans(graphs)


def test_graphs_without_plans_say_how_to_build_them(graphs):
    assert not has_plans(graphs)
    with pytest.raises(EngineError, match=f"no TensorRT plans.*omnistream-export tensorrt {graphs.directory}"):
        read_plans(graphs)


def test_timings_are_kept_beside_the_graphs_and_begun_anew_for_another_version(graphs):
    cache = graphs.directory.parent / TIMING_CACHE
    build(graphs)
    build(graphs)
    assert cache.read_bytes() == b"10.16.1.11++"
    build(graphs, "11.4.0.106")
    assert cache.read_bytes() == b"11.4.0.106+"
    cache.chmod(0o666)
    build(graphs, "11.4.0.106")
    assert cache.read_bytes() == b"11.4.0.106+" and cache.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("version", "gpu"), [("10.16.1.12", "Stand-in GPU"), ("10.16.1.11", "Other GPU")])
def test_plans_of_another_machine_are_stale(plans, graphs, version, gpu):
    with pytest.raises(
        EngineError, match=f"was built for .*Build again: omnistream-export tensorrt {graphs.directory}"
    ):
        engine_on(plans, version, gpu)


def test_plans_of_an_earlier_export_are_stale(plans, graphs):
    write_graphs(graphs.directory, "Relu")
    with pytest.raises(EngineError, match="'static' plan of another export.*Build again"):
        load(plans)
    write_graphs(graphs.directory, model_hash="fedcba9876543210")
    with pytest.raises(EngineError, match="is of model 0123456789abcdef, the graphs beside it of model fedcba98"):
        load(plans)


def test_only_the_bytes_that_were_built_are_loaded(plans):
    path = plans.directory / "static.plan"
    data = path.read_bytes()
    for damaged in (data[:-1], data[:-1] + b"x", b""):
        path.write_bytes(damaged)
        with pytest.raises(EngineError, match="static.plan has sha256 .*damaged, truncated.*Build again"):
            load(plans)
    path.unlink()
    with pytest.raises(EngineError, match="static.plan cannot be read: No such file"):
        load(plans)
    path.mkdir()
    with pytest.raises(EngineError, match="cannot be read: Is a directory"):
        load(plans)


def test_only_a_plan_that_nobody_else_could_have_written_is_loaded(plans, monkeypatch):
    path = plans.directory / "static.plan"
    path.chmod(0o620)
    with pytest.raises(EngineError, match="may be written by others .mode -rw--w----"):
        load(plans)
    path.chmod(0o600)
    monkeypatch.setattr(plans_module.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(EngineError, match=f"belongs to user {os.getuid()}, this is user .* executes it"):
        load(plans)


def test_tensorrt_itself_refuses_a_foreign_plan(plans):
    """A sidecar that vouches for it is not enough."""
    path, sidecar = plans.directory / "static.plan", plans.directory / "plans.json"
    path.write_bytes(b"not a plan")
    text = json.loads(sidecar.read_text())
    text["plans"]["static"]["sha256"] = digest(path)
    sidecar.write_text(json.dumps(text))
    with pytest.raises(EngineError, match="TensorRT cannot load the static plan of .*plan is for .*Build it again"):
        load(plans)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="zip"), "has format 'zip' version 1; expected 'omnistream-plans' version 1"),
        (lambda d: d.update(format_version=2), "version 2; expected"),
        (lambda d: d.pop("gpu"), "has fields"),
        (lambda d: d.update(tf32="no"), "tf32 is 'no'; expected bool"),
        (lambda d: d["plans"].update(depth={}), "lists a plan 'depth'; the graphs beside it are"),
        (lambda d: d["plans"]["static"].pop("sha256"), "plan 'static' is not described as expected"),
        (lambda d: d["plans"]["static"].update(file="../static.plan"), "names the file '../static.plan'"),
        (lambda d: d["plans"].clear(), "lists no 'static' plan"),
    ],
)
def test_a_sidecar_that_is_not_ours_is_refused(plans, change, message):
    path = plans.directory / "plans.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(EngineError, match=message):
        load(plans)
    path.write_text("{")
    with pytest.raises(EngineError, match="is not JSON.*Build: omnistream-export tensorrt"):
        load(plans)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: dataclasses.replace(s, aliases={}), "new_key_cache_0 shares memory with key_cache_0; expected none"),
        (
            lambda s: dataclasses.replace(s, inputs=s.inputs[1:]),
            "inputs are not those of its graph .found update float32",
        ),
        (
            lambda s: dataclasses.replace(s, outputs=(TensorSpec("patches", "float16", tuple(UPDATE)), *s.outputs[:1])),
            "outputs .*found patches float32.*expected patches float16",
        ),
    ],
)
def test_a_plan_whose_tensors_are_not_the_sidecars_is_refused(plans, change, message):
    graphs = plans.graphs
    wrong = dataclasses.replace(graphs, graphs={**graphs.graphs, STATIC: change(graphs.graphs[STATIC])})
    with pytest.raises(EngineError, match=message):
        engine_on(dataclasses.replace(plans, graphs=wrong)).new_state(parse_policy("window:2"), 1, 32, 32)


def test_what_the_parser_does_not_take_is_named(tmp_path):
    graphs = write_graphs(tmp_path / "g", "Floor")
    with pytest.raises(EngineError, match=r"does not take .*static.onnx:\n  Attention node_7: operator Floor is not"):
        build(graphs)
    assert not (graphs.directory / "tensorrt").exists()


def test_damaged_graphs_are_not_built(graphs):
    (graphs.directory / "static.weights").write_bytes(b"x")
    with pytest.raises(EngineError, match="static.weights has sha256"):
        build(graphs)


def test_an_interrupted_build_leaves_the_plans_as_they_were(plans, graphs, monkeypatch):
    before = {path.name: path.read_bytes() for path in plans.directory.iterdir()}
    monkeypatch.setattr(Interrupt, "__enter__", lambda self: (setattr(self, "wanted", True), self)[1])
    with pytest.raises(EngineError, match="interrupted at static; nothing was changed"):
        build(graphs)
    assert {path.name: path.read_bytes() for path in plans.directory.iterdir()} == before
    assert [path.name for path in graphs.directory.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_holds_no_plans_is_not_replaced(graphs):
    (graphs.directory / "tensorrt").mkdir()
    (graphs.directory / "tensorrt" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no plans of ours"):
        build(graphs)


def test_rounding_to_ten_bits_is_asked_for(graphs, monkeypatch):
    flags: list[set[str]] = []
    original = FakeTensorRT.Builder

    def builder(self, logger):
        made = original(self, logger)
        inner = made.build_serialized_network
        made.build_serialized_network = lambda network, config: (
            flags.append(set(config.flags)),
            inner(network, config),
        )[1]
        return made

    monkeypatch.setattr(FakeTensorRT, "Builder", builder)
    assert build(graphs).command.endswith(f"{graphs.directory} --build-only")
    assert build(graphs, tf32=True).command.endswith("--tf32 --build-only")
    assert flags == [set(), {"tf32"}]


@pytest.mark.parametrize(
    ("found", "good"), [("10.3.0", False), ("10.15.1.29", True), ("11.4.0.106", True), ("x", False)]
)
def test_versions(found, good):
    if good:
        check_version(found)
    else:
        with pytest.raises(EngineError, match=f"tensorrt is {found}; expected 10.15 or newer"):
            check_version(found)


def test_progress_names_the_phases(capsys):
    progress = BuildProgress("static", Interrupt())
    progress.start("Building", 3)
    progress.start("Timing", 80)
    assert progress.step("Timing", 11)
    assert progress.line(41) == "static: Building 0/3 > Timing 12/80, 0:41"
    progress.finish("Timing")
    assert progress.line(42) == "static: Building 0/3, 0:42"


def test_the_small_graph_is_a_graph(graphs):
    onnx.checker.check_model(str(graphs.path(STATIC)), full_check=True)
