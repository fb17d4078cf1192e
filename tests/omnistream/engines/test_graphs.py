# SPDX-License-Identifier: Apache-2.0
"""What is refused before anything runs, with the reason: damaged, truncated, foreign and stale exports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnistream.engines.graphs import SIDECAR, GraphSet, find_graphs, head_graphs, read_graphs
from omnistream.engines.onnxruntime_engine import OnnxRuntimeEngine
from omnistream.errors import EngineError
from omnistream.stream.policy import parse_policy
from omnistream.weights.files import sha256_of

from .conftest import HEIGHT, WIDTH


def edit(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((directory / SIDECAR).read_text())
    change(data)
    (directory / SIDECAR).write_text(json.dumps(data))


def open_stream(directory: Path) -> None:
    """What an engine does before the first frame."""
    graphs = read_graphs(directory)
    OnnxRuntimeEngine(graphs.model, [graphs]).new_state(parse_policy("window:2"), 1, HEIGHT, WIDTH)


def test_the_sidecar_says_what_the_graphs_are(graphs, tiny_model):
    assert graphs.model == tiny_model.config
    assert graphs.size == (1, 48, 64) and graphs.dtype == "float32" and graphs.opset == 24
    assert set(graphs.graphs) == {"growing", "static", "pose", "depth", "rays", "depth_rays"}
    growing = graphs.graphs["growing"]
    shapes = {t.name: t.shape for t in growing.inputs}
    assert shapes["pixels"] == (1, 3, 48, 64) and shapes["key_cache_0"] == (1, 2, "cache_tokens", 32)
    assert {t.name: t.shape for t in graphs.graphs["static"].inputs}["key_cache_0"] == (1, 2, 12 * 18, 32)
    assert growing.aliases == {
        f"new_{kind}_cache_{i}": f"{kind}_cache_{i}" for i in range(4) for kind in ("key", "value")
    }
    assert {"omnistream", "torch", "onnx", "onnxscript"} == set(graphs.versions)


def test_reading_gives_back_what_was_written(graphs, copied_graphs):
    assert read_graphs(copied_graphs).to_json() == (graphs.directory / SIDECAR).read_text()


@pytest.mark.parametrize("name", ["backbone.weights", "backbone_growing.onnx", "heads.weights"])
@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
def test_damaged_files_are_refused(copied_graphs, name, damage):
    path = copied_graphs / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[:-100])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(EngineError, match=f"{name} {'is missing' if damage == 'missing' else 'has sha256'}"):
        open_stream(copied_graphs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="other"), "format 'other'; expected 'omnistream-graphs'"),
        (lambda d: d.update(format_version=2), "format_version 2; this omnistream reads 1"),
        (lambda d: d.pop("policy"), "has fields"),
        (lambda d: d.update(height="48"), "height is '48'; expected int"),
        (lambda d: d.update(policy="half"), "cache policy 'half'"),
        (lambda d: d["model"]["backbone"].update(depth=0), "backbone.depth is 0"),
        (lambda d: d["graphs"].update(head=d["graphs"]["pose"]), "lists a graph 'head'"),
        (lambda d: d["graphs"]["pose"].pop("inputs"), "graph 'pose' is not described as expected"),
        (lambda d: d["graphs"]["pose"].update(file="../pose.onnx"), "names the file '../pose.onnx'"),
        (lambda d: d["graphs"]["pose"].update(weights="/etc/passwd"), "names the file '/etc/passwd'"),
        (lambda d: d["sha256"].pop("pose.onnx"), "gives no sha256 of pose.onnx"),
        (lambda d: d["graphs"].pop("growing"), "lists no 'growing' graph"),
        (lambda d: d["graphs"]["growing"]["inputs"].pop(), "inputs of .* are not those that its sidecar lists"),
    ],
)
def test_foreign_and_inconsistent_sidecars_are_refused(copied_graphs, change, message):
    edit(copied_graphs, change)
    with pytest.raises(EngineError, match=message):
        open_stream(copied_graphs)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_sidecar_that_is_no_json_object_is_refused(copied_graphs, text):
    (copied_graphs / SIDECAR).write_text(text)
    with pytest.raises(EngineError, match=SIDECAR):
        read_graphs(copied_graphs)


def test_another_onnx_file_in_its_place_is_refused(copied_graphs):
    """Even if the sidecar was made to agree: the inputs are looked at."""
    path = copied_graphs / "backbone_growing.onnx"
    shutil.copy(copied_graphs / "pose.onnx", path)
    edit(copied_graphs, lambda d: d["sha256"].update({path.name: sha256_of(path)}))
    with pytest.raises(EngineError, match="are not those that its sidecar lists"):
        open_stream(copied_graphs)


def test_a_file_that_is_no_graph_is_refused(copied_graphs):
    path = copied_graphs / "backbone_growing.onnx"
    path.write_bytes(b"not a graph")
    edit(copied_graphs, lambda d: d["sha256"].update({path.name: sha256_of(path)}))
    with pytest.raises(EngineError, match=r"onnxruntime [\d.]+ cannot load"):
        open_stream(copied_graphs)


def test_graphs_of_another_model_are_stale(graphs):
    with pytest.raises(
        EngineError, match=f"model {graphs.model_hash}, the checkpoint is model 00ff; export it again: "
    ):
        graphs.check_model("00ff")


def test_a_size_without_graphs_is_refused_with_the_command(graphs):
    engine = OnnxRuntimeEngine(graphs.model, [graphs])
    with pytest.raises(EngineError, match=r"found 48x64 .*omnistream-export onnx .*--size 64x64 --policy window:2"):
        engine.new_state(parse_policy("window:2"), 1, 64, 64)


def test_graphs_are_found_in_a_folder_or_in_its_folders(graphs: GraphSet, tmp_path: Path):
    assert [found.directory for found in find_graphs(graphs.directory)] == [graphs.directory]
    assert [found.directory for found in find_graphs(graphs.directory.parent)] == [graphs.directory]
    assert find_graphs(tmp_path) == find_graphs(tmp_path / "missing") == []


@pytest.mark.parametrize(
    ("want", "expected"),
    [
        ((), []),
        (("pose",), ["pose"]),
        (("depth", "pose"), ["depth", "pose"]),
        (("rays",), ["rays"]),
        (("pose", "rays", "depth"), ["depth_rays", "pose"]),
    ],
)
def test_no_head_is_run_twice(want, expected):
    assert head_graphs(want) == expected
