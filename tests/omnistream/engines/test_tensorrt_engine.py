# SPDX-License-Identifier: Apache-2.0
"""What is TensorRT's alone, on the stand-in of `fake_tensorrt.py`; the invariant is in `test_invariant.py`."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
import torch

from omnistream.engines import select, tensorrt_api, tensorrt_engine
from omnistream.engines.base import TAPS
from omnistream.engines.graphs import STATIC, GraphSet
from omnistream.engines.plans import PlanSet, read_plans
from omnistream.engines.select import make_engine
from omnistream.engines.tensorrt_engine import TensorRTEngine
from omnistream.engines.tensorrt_log import make_logger
from omnistream.engines.tensorrt_plan import BoundPlan, LoadedPlan
from omnistream.errors import ConfigError, EngineError, OmniStreamError, StreamFull
from omnistream.heads.heads import HEADS
from omnistream.stream.policy import parse_policy
from omnistream.stream.session import StreamSession
from omnistream_export.onnx_graphs import export_graphs
from omnistream_export.tensorrt_build import build_plans

from .conftest import HEIGHT, WIDTH, tensorrt_on_stand_in
from .fake_tensorrt import FakeTensorRT, HostDevice

SIZE = (HEIGHT, WIDTH)
OVERFLOWING = torch.full((1, 1, 3, *SIZE), 3e38)
"""A frame whose keys are NaN."""


@pytest.fixture(scope="module")
def plans(graphs: GraphSet) -> PlanSet:
    """Of twelve slots."""
    return read_plans(graphs)


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


@pytest.fixture
def trt_engine(tiny_model, graphs, device) -> TensorRTEngine:
    return tensorrt_on_stand_in(tiny_model, graphs, device)


def new_state(engine, policy="window:3"):
    return engine.new_state(parse_policy(policy), 1, *SIZE)


def run(engine, state, frames, want=()) -> torch.Tensor:
    """Patches [1, T, n, D]."""
    return torch.stack([engine.step(state, frames[:, i], None, want).patches for i in range(frames.shape[1])], 1)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() <= 2e-5 * max(1, expected.abs().max())


def test_one_launch_as_it_is_then_a_graph_that_is_replayed(trt_engine, device, clip):
    state = new_state(trt_engine)
    run(trt_engine, state, clip(6), ("depth",))
    assert device.captures == 2  # backbone and depth head
    assert device.replays == 2 * 5
    waits = device.waits
    run(trt_engine, state, clip(1), ("depth",))
    assert device.waits == waits + 2


def test_without_cuda_graphs_nothing_is_captured(tiny_model, graphs, device, clip):
    engine = tensorrt_on_stand_in(tiny_model, graphs, device, cuda_graph=False)
    patches = run(engine, new_state(engine), clip(7))
    assert device.captures == 0
    assert_close(patches, tiny_model.backbone(clip(7), "window:3", camera_token=True).patches)


def test_a_plan_that_cannot_be_captured_is_launched_as_it_is(trt_engine, tiny_model, device, clip, monkeypatch):
    tried: list[object] = []
    monkeypatch.setattr(device, "capture", tried.append)
    patches = run(trt_engine, new_state(trt_engine), clip(7))
    assert len(tried) == 1
    assert_close(patches, tiny_model.backbone(clip(7), "window:3", camera_token=True).patches)


def test_a_stream_that_is_dropped_frees_its_memory_at_once(trt_engine, clip):
    """Gigabytes on a robot, which the next window needs: they must not wait for the garbage collector."""
    state = new_state(trt_engine)
    run(trt_engine, state, clip(4), ("pose",))
    held = [weakref.ref(state), *(weakref.ref(bound) for bound in state.bound.values())]
    gc.disable()
    try:
        del state
        assert [ref() for ref in held] == [None] * 3
    finally:
        gc.enable()


def test_outputs_are_the_callers_to_keep(trt_engine, clip):
    state = new_state(trt_engine)
    first = trt_engine.step(state, clip(1)[:, 0], None, HEADS)
    before = first.patches.clone(), first.heads.log_depth.clone()
    run(trt_engine, state, clip(3, seed=1), HEADS)
    assert torch.equal(first.patches, before[0]) and torch.equal(first.heads.log_depth, before[1])


def test_what_nobody_wants_is_not_copied(trt_engine, device, clip):
    """The depth head reads the blocks that it taps where the backbone's plan wrote them."""
    state = new_state(trt_engine)
    copies = []
    for want in ((), ("depth",), (TAPS,)):
        before = device.copies
        trt_engine.step(state, clip(1)[:, 0], None, want)
        copies.append(device.copies - before)
    assert copies == [3, 3 + 2, 3 + 4]  # patches, CLS, camera; log depth and its confidence; four taps


def test_a_smaller_window_hides_the_plans_other_slots(trt_engine, clip):
    states = [new_state(trt_engine) for _ in range(2)]
    states[1].kv[..., states[1].tokens :, :] = 1e4
    patches = [run(trt_engine, state, clip(5)) for state in states]
    assert torch.equal(*patches)
    assert states[0].kv.shape[4] == 12 * states[0].tokens


def test_nothing_of_a_broken_cache_survives_a_reset(trt_engine, clip):
    state = new_state(trt_engine)
    with pytest.raises(OmniStreamError, match="NaN or infinity"):
        run(trt_engine, state, OVERFLOWING)
    assert state.kv.isnan().any()
    state.reset()
    assert torch.equal(run(trt_engine, state, clip(5)), run(trt_engine, new_state(trt_engine), clip(5)))


def test_nothing_of_a_broken_cache_survives_a_loaded_snapshot(trt_engine, clip):
    good, broken = new_state(trt_engine), new_state(trt_engine)
    run(trt_engine, good, clip(2))
    with pytest.raises(OmniStreamError, match="NaN or infinity"):
        run(trt_engine, broken, OVERFLOWING)
    broken.load_state_dict(good.state_dict())
    assert torch.equal(run(trt_engine, broken, clip(5)), run(trt_engine, good, clip(5)))


def test_plans_of_heads_are_loaded_when_one_is_wanted(tiny_model, graphs, device, clip, monkeypatch):
    read: list[str] = []
    original = PlanSet.read
    monkeypatch.setattr(PlanSet, "read", lambda self, role: (read.append(role), original(self, role))[1])
    engine = tensorrt_on_stand_in(tiny_model, graphs, device)
    assert read == []
    state = new_state(engine)
    run(engine, state, clip(1))
    assert read == [STATIC]
    run(engine, state, clip(1), ("pose",))
    assert read == [STATIC, "pose"]
    run(engine, new_state(engine), clip(1), ("pose",))
    assert read == [STATIC, "pose"]  # a second camera shares what is loaded


def test_a_step_that_fails_leaves_the_stream_as_it_was(trt_engine, tiny_model, device, clip):
    state, frames = new_state(trt_engine), clip(9)
    first = run(trt_engine, state, frames[:, :1])
    stream, device.stream = device.stream, 0
    with pytest.raises(EngineError, match="did not execute the static plan.*stream 0x0"):
        run(trt_engine, state, frames[:, 1:2])
    device.stream = stream
    assert state.frames_seen == 1
    rest = run(trt_engine, state, frames[:, 1:])
    assert_close(torch.cat([first, rest], 1), tiny_model.backbone(frames, "window:3", camera_token=True).patches)


def test_refusals(trt_engine, tiny_model, graphs, device, clip):
    with pytest.raises(
        EngineError, match=r"policy window:13 needs 13 slots; .* have 12 \(window:12\).*export onnx.*&&"
    ):
        new_state(trt_engine, "window:13")
    with pytest.raises(EngineError, match="no TensorRT plans for frames of 32x32.*found 48x64.*omnistream-export"):
        trt_engine.new_state(parse_policy("window:2"), 1, 32, 32)
    state = new_state(trt_engine, "full:2")
    with pytest.raises(ConfigError, match="frame is"):
        trt_engine.step(state, torch.zeros(1, 3, 32, 32), None, ())
    run(trt_engine, state, clip(2))
    with pytest.raises(StreamFull):
        run(trt_engine, state, clip(1))
    other = tensorrt_on_stand_in(tiny_model, graphs, device)
    with pytest.raises(EngineError, match="of another engine"):
        run(other, state, clip(1))
    trt_engine.close()
    with pytest.raises(EngineError, match="of another engine"):
        run(trt_engine, state, clip(1))
    with pytest.raises(EngineError, match="closed"):
        new_state(trt_engine)


def test_of_several_plans_of_a_size_a_stream_gets_the_least_that_holds_its_policy(
    tiny_model, graphs, plans, device, clip, tmp_path
):
    small = export_graphs(tiny_model, tmp_path / "b_small", height=HEIGHT, width=WIDTH, policy=parse_policy("window:3"))
    build_plans(small, trt=FakeTensorRT(device), device=device)
    for sets in ([plans, read_plans(small)], [read_plans(small), plans]):
        engine = TensorRTEngine(tiny_model.config, sets, trt=FakeTensorRT(device), device=device)
        least, large = new_state(engine, "window:3"), new_state(engine, "window:5")
        assert least.nbytes == large.nbytes * 3 // 12
        plain = new_state(tensorrt_on_stand_in(tiny_model, graphs, device), "window:3")
        assert plain.nbytes == large.nbytes
        for state in (least, large):
            run(engine, state, clip(6), HEADS)
        with pytest.raises(EngineError, match="needs 13 slots; the plans in .* have 12"):
            new_state(engine, "window:13")


def test_without_tensorrt_one_sentence_says_how_to_get_it(tiny_model, plans):
    with pytest.raises(EngineError, match="needs NVIDIA's package tensorrt .*pip install"):
        TensorRTEngine(tiny_model.config, [plans])


def test_a_session_names_the_engine_and_the_place(tiny_model, graphs, device, monkeypatch):
    for module in (tensorrt_api, select):
        monkeypatch.setattr(module, "load_tensorrt", lambda: FakeTensorRT(device))
    monkeypatch.setattr(tensorrt_engine, "CudaDevice", lambda name: device)
    session = StreamSession(
        tiny_model, engine=f"tensorrt:{graphs.directory}", dtype="float32", policy="window:3", image_size=SIZE
    )
    plain = StreamSession(tiny_model, engine="torch", dtype="float32", policy="window:3", image_size=SIZE)
    for seed in range(5):
        image = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8)
        found, expected = session.step(image), plain.step(image)
        assert np.allclose(found.depth, expected.depth, rtol=1e-4)
        assert np.allclose(found.T_world_camera, expected.T_world_camera, atol=1e-4)
    assert str(session.engine.spec).startswith("tensorrt cpu float32")
    assert session.engine.spec.model_hash == session.model_hash
    assert session.cache_nbytes(96, 128) == session.nbytes == 4 * plain.nbytes  # of three slots the plan has twelve
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        other.backbone.cls_token += 1
    with pytest.raises(ConfigError, match="expected the same weights"):
        StreamSession(other, engine=session.engine)
    with pytest.raises(EngineError, match="graphs in float32, none in float16"):
        make_engine(tiny_model, f"tensorrt:{graphs.directory}")


class TestStandIn:
    """The rules that the stand-in enforces: if it were lenient, the tests above would prove less."""

    @pytest.fixture
    def bound(self, trt_engine) -> BoundPlan:
        return new_state(trt_engine).bound[STATIC]

    def execute(self, bound: BoundPlan, device: HostDevice) -> bool:
        with device.on_stream():
            return bound._context.execute_async_v3(device.stream)

    def test_an_address_that_is_not_set(self, bound, device):
        del bound._context.addresses["cls"]
        assert not self.execute(bound, device)
        assert bound._plan.log.reasons() == "address of cls is not set"

    def test_a_cache_that_comes_out_elsewhere(self, bound, device):
        elsewhere = device.zeros(tuple(bound.tensors["key_cache_0"].shape), torch.float32)
        assert bound._context.set_tensor_address("new_key_cache_0", elsewhere.data_ptr())
        assert not self.execute(bound, device)
        assert "new_key_cache_0 is not at the address of key_cache_0" in bound._plan.log.reasons()

    @pytest.mark.parametrize("wrong", ["dtype", "size", "foreign"])
    def test_memory_that_does_not_fit(self, bound, device, wrong):
        shape = tuple(bound.tensors["patches"].shape)
        memory = {
            "dtype": lambda: device.zeros(shape, torch.float16),
            "size": lambda: device.zeros(shape[1:-1], torch.float32),
            "foreign": lambda: torch.zeros(shape),
        }[wrong]()
        assert not bound._context.set_tensor_address("patches", memory.data_ptr())
        assert "no allocation of" in bound._plan.log.reasons()

    @pytest.mark.parametrize("index", [-1, 11 * 18 + 1, 12 * 18])
    def test_a_write_beyond_the_cache_is_ignored_without_a_word(self, bound, device, index):
        cache = bound.tensors["key_cache_0"]
        assert cache.shape[2] == 12 * 18
        cache.fill_(0.5)
        bound.tensors["key_mask"].fill_(True)
        with device.on_stream():
            bound.write("write_index", torch.tensor([index]))
        assert self.execute(bound, device)
        assert (cache == 0.5).all()

    def test_a_capture_before_the_first_execution(self, bound, device):
        with device.on_stream(), pytest.raises(AssertionError, match="captured before"):
            device.capture(bound._execute)

    def test_a_plan_of_another_version(self, plans, device):
        trt = FakeTensorRT(device, "11.4.0.106")
        log = make_logger(trt)
        with pytest.raises(EngineError, match="cannot load p: plan is for .*10.16.1.11"):
            LoadedPlan(trt, trt.Runtime(log), log, plans.read(STATIC), plans.graphs.graphs[STATIC], "p")
