# SPDX-License-Identifier: Apache-2.0
"""omnistream-export: default places, what it prints, exit status."""

from __future__ import annotations

import pytest

from omnistream import load_model
from omnistream.engines.select import make_engine
from omnistream.weights import save_model
from omnistream_export import cli


def test_onnx_writes_beside_the_checkpoint_and_verifies(model, tmp_path, capsys):
    weights = save_model(model, tmp_path / "weights")
    command = ["onnx", "--weights", str(weights), "--size", "32x32", "--policy", "window:2", "--verify"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "checked: onnx full check, strict shape inference, TensorRT lint" in printed
    assert "onnxruntime: passed, 5 frames" in printed and "static graph: passed" in printed
    assert (weights / "graphs" / "32x32-fp32" / "graphs.json").is_file()
    assert make_engine(load_model(weights), "onnxruntime").spec.name == "onnxruntime"
    assert cli.main(command) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--size": "32"}, "size is '32'; expected HEIGHTxWIDTH"),
        ({"--size": "30x32"}, "multiples of 16"),
        ({"--weights": "nowhere"}, "nowhere does not exist"),
        ({"--weights": "~nobody-here/w"}, "~nobody-here/w does not exist"),
        ({"--policy": "full"}, "no bound"),
    ],
)
def test_refusals_are_status_1(model, tmp_path, capsys, change, message):
    weights = save_model(model, tmp_path / "weights")
    options = {"--weights": str(weights), "--size": "32x32", "--policy": "window:2", **change}
    assert cli.main(["onnx", str(tmp_path / "out"), *(word for pair in options.items() for word in pair)]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_status_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["onnx", "--size", "32x32"])
    assert stopped.value.code == 2
    assert "weights" in capsys.readouterr().err
