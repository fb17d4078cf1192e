# SPDX-License-Identifier: Apache-2.0
"""Every engine that runs here, on the tiny sharp model: tests that take `engine` run once for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from omnistream.engines.base import Engine
from omnistream.engines.graphs import GraphSet, read_graphs
from omnistream.engines.onnxruntime_engine import OnnxRuntimeEngine
from omnistream.engines.plans import read_plans
from omnistream.engines.select import make_engine
from omnistream.engines.tensorrt_engine import TensorRTEngine
from omnistream.engines.torch_engine import TorchEngine
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import parse_policy
from omnistream_export.onnx_graphs import export_graphs
from omnistream_export.static_engine import StaticEngine
from omnistream_export.tensorrt_build import build_plans

from .fake_tensorrt import FakeTensorRT, HostDevice

HEIGHT, WIDTH = 48, 64
MOST_SLOTS = 12


@pytest.fixture(scope="session")
def graphs(tiny_model: OmniStream, tmp_path_factory: pytest.TempPathFactory) -> GraphSet:
    """The tiny model in float32, HEIGHT x WIDTH, MOST_SLOTS slots; plans of the stand-in. Do not change its files."""
    policy = parse_policy(f"window:{MOST_SLOTS}")
    directory = tmp_path_factory.mktemp("graphs") / "fp32"
    export_graphs(tiny_model, directory, height=HEIGHT, width=WIDTH, policy=policy)
    graphs = read_graphs(directory)
    device = HostDevice()
    build_plans(graphs, trt=FakeTensorRT(device), device=device)
    return graphs


class HostGraphs(HostDevice):
    """Records torch's work as a CUDA graph does: nothing is computed until it is replayed."""

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            launch()

        return replay


MAKERS: dict[str, Callable[[OmniStream, GraphSet], Engine]] = {
    "torch float32": lambda model, graphs: make_engine(model, "torch", "cpu", "float32"),
    "torch bfloat16": lambda model, graphs: make_engine(model, "torch", "cpu", "bfloat16"),
    "torch graphed stand-in": lambda model, graphs: TorchEngine(
        model, torch.device("cpu"), torch.float32, graph_device=HostGraphs()
    ),
    "onnxruntime": lambda model, graphs: OnnxRuntimeEngine(model.config, [graphs]),
    "static graph": lambda model, graphs: StaticEngine(model.config, graphs),
    "tensorrt stand-in": lambda model, graphs: tensorrt_on_stand_in(model, graphs, HostDevice()),
}


def tensorrt_on_stand_in(model: OmniStream, graphs: GraphSet, device: HostDevice, **options: bool) -> TensorRTEngine:
    """The TensorRT engine, on host memory."""
    plans = [read_plans(graphs)]
    return TensorRTEngine(model.config, plans, trt=FakeTensorRT(device), device=device, **options)


@pytest.fixture(scope="session")
def engines(tiny_model: OmniStream, graphs: GraphSet) -> Iterator[dict[str, Engine]]:
    """All of them by name."""
    made = {name: make(tiny_model, graphs) for name, make in MAKERS.items()}
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture(params=sorted(MAKERS))
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    """Each in turn."""
    return engines[request.param]


@pytest.fixture
def clip() -> Callable[..., torch.Tensor]:
    """clip(frames, seed=0) -> [1, frames, 3, HEIGHT, WIDTH] noise, normalised."""

    def make(frames: int, seed: int = 0) -> torch.Tensor:
        return torch.randn(1, frames, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def copied_graphs(graphs: GraphSet, tmp_path: Path) -> Path:
    """A copy of the export, to damage."""
    import shutil

    return Path(shutil.copytree(graphs.directory, tmp_path / "copy"))
