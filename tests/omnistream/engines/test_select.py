# SPDX-License-Identifier: Apache-2.0
"""Which engine runs: what `auto` comes to, where graphs are looked for, and that every refusal says why."""

from __future__ import annotations

import builtins
import shutil

import numpy as np
import pytest
import torch

from omnistream import StreamSession, load_model
from omnistream.engines import select
from omnistream.engines.select import engine_report, make_engine
from omnistream.errors import EngineError
from omnistream.weights import save_model

SIZE = (1, 48, 64)
IMAGE = np.zeros((96, 128, 3), np.uint8)
"""Becomes 48 x 64 on the tiny model's budget of 56 x 56 pixels."""


@pytest.fixture
def checkpoint(tiny_model, graphs, tmp_path):
    """The tiny model on disk, with its graphs beside it."""
    directory = save_model(tiny_model, tmp_path / "weights")
    shutil.copytree(graphs.directory, directory / "graphs" / "48x64-fp32")
    return directory


@pytest.fixture
def plain_cpu(monkeypatch):
    """A machine without GPU and without bfloat16 units."""
    monkeypatch.setattr(select, "cpu_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def no_onnxruntime(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_graphs_beside_the_checkpoint_are_found(checkpoint):
    engine = make_engine(load_model(checkpoint), "onnxruntime")
    assert str(engine.spec) == "onnxruntime cpu float32"
    assert make_engine(load_model(checkpoint / "model.safetensors"), "onnxruntime").spec == engine.spec


def test_graphs_are_found_where_they_are_said_to_be(tiny_model, graphs):
    for place in (graphs.directory, graphs.directory.parent):
        assert make_engine(tiny_model, f"onnxruntime:{place}").spec.name == "onnxruntime"


def test_auto_takes_onnxruntime_where_it_is_faster_and_fits(checkpoint, plain_cpu):
    model = load_model(checkpoint)
    assert make_engine(model, "auto", size=SIZE).spec.name == "onnxruntime"
    assert make_engine(model, "auto", size=(1, 64, 64)).spec.name == "torch"
    assert make_engine(model, "auto").spec.name == "torch"  # the size is not known yet
    assert make_engine(model, "torch", size=SIZE).spec.name == "torch"


def test_auto_prefers_bfloat16_units(checkpoint, monkeypatch):
    monkeypatch.setattr(select, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(make_engine(load_model(checkpoint), "auto", size=SIZE).spec) == "torch cpu bfloat16"


def test_auto_never_fails_over_graphs(checkpoint, plain_cpu, tiny_model, make_model):
    """Stale, damaged or without the package: torch runs."""
    stale = load_model(checkpoint)
    with torch.no_grad():
        stale.backbone.cls_token += 1
    assert make_engine(stale, "auto", size=SIZE).spec.name == "torch"
    assert make_engine(tiny_model, "auto", size=SIZE).spec.name == "torch"  # of no checkpoint
    (checkpoint / "graphs" / "48x64-fp32" / "graphs.json").write_text("{")
    assert make_engine(load_model(checkpoint), "auto", size=SIZE).spec.name == "torch"


def test_a_session_settles_auto_when_it_knows_the_size(checkpoint, plain_cpu, clip):
    session = StreamSession(load_model(checkpoint), image_size=56, policy="window:3")
    results = [session.step(IMAGE) for _ in range(5)]
    assert session.engine.spec.name == "onnxruntime"
    reference = StreamSession(load_model(checkpoint), image_size=56, policy="window:3", engine="torch")
    for result in results:
        np.testing.assert_allclose(result.depth, reference.step(IMAGE).depth, rtol=1e-4)
    session.reset()
    session.step(np.zeros((128, 96, 3), np.uint8))  # no graphs of this size
    assert session.engine.spec.name == "torch"


@pytest.mark.parametrize("policy", ["window:2", "full:40", "sink_window:3,30"])
def test_a_graph_takes_any_policy(checkpoint, policy):
    session = StreamSession(load_model(checkpoint), engine="onnxruntime", image_size=(48, 64), policy=policy)
    session.step(IMAGE)
    assert session.slots == session.policy.slots


def test_refusals_say_why(checkpoint, tiny_model, graphs, tmp_path):
    model = load_model(checkpoint)
    with pytest.raises(EngineError, match="this model comes from none; name their directory: onnxruntime:DIR"):
        make_engine(tiny_model, "onnxruntime")
    with pytest.raises(EngineError, match="holds no graphs; export them: omnistream-export onnx"):
        make_engine(model, f"onnxruntime:{tmp_path}/nowhere")
    with pytest.raises(EngineError, match="~nobody-here/graphs does not exist"):
        make_engine(model, "onnxruntime:~nobody-here/graphs")
    with pytest.raises(EngineError, match="graphs in float32, none in float16"):
        make_engine(model, "onnxruntime", dtype="float16")
    with pytest.raises(EngineError, match="'torch:here' is unknown; expected one of auto, torch"):
        make_engine(model, "torch:here")
    with torch.no_grad():
        model.backbone.cls_token += 1
    with pytest.raises(EngineError, match=f"graphs of model {graphs.model_hash}, the checkpoint is model"):
        make_engine(model, "onnxruntime")


def test_without_the_package_the_install_line_is_given(checkpoint, no_onnxruntime):
    with pytest.raises(EngineError, match=r"needs the package onnxruntime .*pip install 'omnistream\[onnxruntime\]'"):
        make_engine(load_model(checkpoint), "onnxruntime")
    report = {status.name: status for status in engine_report()}
    assert str(report["onnxruntime"]) == "no: not installed (pip install 'omnistream[onnxruntime]')"


def test_the_report_names_every_engine_and_the_choice(plain_cpu):
    report = {status.name: status for status in engine_report()}
    assert list(report) == ["torch", "onnxruntime", "tensorrt", "auto"]
    assert report["onnxruntime"].available and "needs exported graphs" in report["onnxruntime"].reason
    assert report["auto"].reason.startswith("torch on cpu in float32, as the CPU has no bfloat16 units")
