# SPDX-License-Identifier: Apache-2.0
"""Linear layers in int8: what is in the graphs, that they are exact integers everywhere, and who may have them."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from omnistream import StreamSession, load_model
from omnistream.engines import select
from omnistream.engines.graph_io import cache_inputs, step_inputs
from omnistream.engines.graphs import GraphSet, read_graphs
from omnistream.engines.onnxruntime_engine import OnnxRuntimeEngine
from omnistream.engines.select import make_engine
from omnistream.engines.torch_engine import TorchEngine
from omnistream.errors import EngineError
from omnistream.heads.heads import HEADS
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import parse_policy
from omnistream.stream.state import StreamState
from omnistream.weights import save_model
from omnistream_export.int8 import LEVELS, quantise_linears
from omnistream_export.onnx_graphs import export_graphs
from omnistream_export.verify import pictures, verify

from .conftest import CONFIG

POLICY = parse_policy("window:3")
SIZE = (1, 32, 48)


@pytest.fixture(scope="session")
def int8(model: OmniStream, tmp_path_factory: pytest.TempPathFactory) -> GraphSet:
    """The model of `graphs` with its linear layers in int8. Do not change its files."""
    directory = tmp_path_factory.mktemp("export") / "int8"
    export_graphs(model, directory, height=32, width=48, policy=POLICY, dtype="int8")
    return read_graphs(directory)


@pytest.fixture
def engine(int8: GraphSet) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(int8.model, [int8])


def run(engine, state, clip, want=()):
    return [engine.step(state, clip[:, i], None, want) for i in range(clip.shape[1])]


def clip(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, frames, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def test_every_linear_layer_of_the_backbone_is_in_integers(int8, graphs):
    proto = onnx.load(int8.path("growing"))
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    products = [node for node in proto.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 4 * CONFIG.backbone.depth
    assert all(kinds[node.input[1]] == onnx.TensorProto.INT8 for node in products)
    assert not [node for node in proto.graph.node if node.op_type == "MatMul"]
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8:
            assert np.abs(onnx.numpy_helper.to_array(tensor)).max(axis=0).tolist() == [LEVELS] * tensor.dims[1]
    sizes = [(each.directory / "backbone.weights").stat().st_size for each in (int8, graphs)]
    assert sizes[0] < 0.6 * sizes[1]
    assert "static" not in int8.graphs and int8.dtype == "int8"


def test_a_product_is_as_close_as_its_rounding():
    """|x| <= 1 and |w| <= 1 over 256 terms: half a step of each, at random signs."""
    generator = np.random.default_rng(0)
    weight = generator.uniform(-1, 1, (256, 8)).astype(np.float32)
    weight[:, 3] = 0  # a channel of zeros has no scale
    x = generator.uniform(-1, 1, (5, 256)).astype(np.float32)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", 1, [5, 256])],
        [helper.make_tensor_value_info("y", 1, [5, 8])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])
    assert quantise_linears(proto) == 1
    (found,) = ReferenceEvaluator(proto).run(None, {"x": x})
    rounding = np.sqrt(256 / 3) * (2 / 255 + 1 / LEVELS) / np.sqrt(12)
    assert np.std(found - x @ weight) < 1.5 * rounding
    assert (found[:, 3] == 0).all()


def test_onnx_reference_evaluator_computes_the_same_integers(engine, int8):
    """So the result does not depend on which kernel a CPU has."""
    evaluator = ReferenceEvaluator(str(int8.path("growing")))
    state = engine.new_state(POLICY, *SIZE)
    mine = StreamState(CONFIG.backbone, engine.spec.state_spec(POLICY, *SIZE))
    frame = clip(1)[:, 0]
    values = step_inputs(CONFIG, mine, frame, None, 0) | cache_inputs(mine.kv[..., : mine.tokens, :].contiguous())
    out = dict(zip(evaluator.output_names, evaluator.run(None, {n: v.numpy() for n, v in values.items()}), strict=True))
    expected = engine.step(state, frame, None, ())
    # A float that differs in its last bit may round to another integer; most do not.
    error = np.linalg.norm(out["patches"] - expected.patches.numpy()) / np.linalg.norm(out["patches"])
    assert error < 1e-3


def test_streams_hold_together(engine, model):
    """Wrap-around, reset, two cameras in turns, a state that changes engines: as for every engine, in int8's limits."""
    exact = TorchEngine(model, torch.device("cpu"), torch.float32)
    frames, other = clip(8), clip(8, seed=1)
    states = [each.new_state(POLICY, *SIZE) for each in (engine, engine, exact, exact)]
    found = run(engine, states[0], frames, HEADS)
    expected = run(exact, states[2], frames, HEADS)
    for a, b in zip(found, expected, strict=True):
        assert (a.patches - b.patches).norm() <= 2e-2 * b.patches.norm()
        assert (a.heads.depth / b.heads.depth - 1).abs().mean() <= 1e-2

    states[0].reset()
    turns = [[run(engine, states[c], x[:, i : i + 1])[0] for c, x in enumerate((frames, other))] for i in range(8)]
    for i in range(8):
        assert torch.equal(turns[i][0].patches, found[i].patches)

    states[3].load_state_dict(states[1].state_dict())
    (continued,) = run(exact, states[3], frames[:, :1])
    (direct,) = run(engine, states[1], frames[:, :1])
    assert (continued.patches - direct.patches).norm() <= 2e-2 * direct.patches.norm()


def test_the_cache_is_that_of_float32_and_in_place(engine, capfd):
    state = engine.new_state(POLICY, *SIZE)
    addresses = {(run(engine, state, clip(1)), state.kv.data_ptr())[1] for _ in range(5)}
    assert len(addresses) == 1 and state.kv.dtype is torch.float32
    assert "in-place" not in "".join(capfd.readouterr())


def test_verify_compares_on_pictures_and_says_what_users_see(model, int8):
    assert len(list(pictures(int8))) == 8
    (comparison,) = verify(model, int8)
    assert comparison.passed and comparison.frames == 8
    assert "depth within 1%" in str(comparison) and "depth, relative" in str(comparison)


def test_weights_that_lose_too_much_are_not_written(model, tmp_path):
    """One channel a thousand times larger than the others takes all levels."""
    outlier = copy.deepcopy(model)
    with torch.no_grad():
        for block in outlier.backbone.blocks:
            block.norm1.weight[0] = block.norm2.weight[0] = 1000
    with pytest.raises(EngineError, match=r"lose too much in int8; export fp32(.|\n)*FAILED, 8 frames"):
        export_graphs(outlier, tmp_path / "out", height=32, width=48, policy=POLICY, dtype="int8")
    assert not (tmp_path / "out").exists()


class TestChoice:
    @pytest.fixture
    def weights(self, model, int8, graphs, tmp_path):
        """The model on disk, with both exports beside it."""
        directory = save_model(model, tmp_path / "weights")
        for each, name in ((int8, "32x48-int8"), (graphs, "32x48-fp32")):
            shutil.copytree(each.directory, directory / "graphs" / name)
        return directory

    def test_by_name(self, weights, model):
        loaded = load_model(weights)
        assert str(make_engine(loaded, "onnxruntime", dtype="int8").spec) == "onnxruntime cpu int8"
        assert str(make_engine(loaded, "auto", dtype="int8").spec) == "onnxruntime cpu int8"
        assert str(make_engine(loaded, "onnxruntime").spec) == "onnxruntime cpu float32"
        for engine in ("torch", "tensorrt"):
            with pytest.raises(EngineError, match=f"int8 is the engine onnxruntime's.*{engine} has none"):
                make_engine(loaded, engine, dtype="int8")

    def test_auto_takes_it_where_the_cpu_has_no_bfloat16(self, weights, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(select, "cpu_flags", lambda: frozenset({"avx2"}))
        loaded = load_model(weights)
        assert str(make_engine(loaded, "auto", size=SIZE).spec) == "onnxruntime cpu int8"
        assert str(make_engine(loaded, "auto", dtype="float32", size=SIZE).spec) == "onnxruntime cpu float32"
        assert make_engine(loaded, "auto", size=(1, 64, 64)).spec.name == "torch"
        session = StreamSession(loaded, image_size=(32, 48))
        session.step(np.zeros((32, 48, 3), np.uint8))
        assert str(session.engine.spec) == "onnxruntime cpu int8"
        monkeypatch.setattr(select, "cpu_flags", lambda: frozenset({"amx_bf16"}))
        assert str(make_engine(loaded, "auto", size=SIZE).spec) == "torch cpu bfloat16"

    def test_a_plan_cannot_be_built_of_it(self, int8):
        from omnistream_export.tensorrt_build import build_plans

        with pytest.raises(EngineError, match="lists no 'static' graph"):
            build_plans(int8, trt=object(), device=object())
