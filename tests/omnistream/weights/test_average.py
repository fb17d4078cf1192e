# SPDX-License-Identifier: Apache-2.0
"""`average_checkpoints` and its command: between two checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from omnistream.cli.weights import main
from omnistream.errors import CheckpointError
from omnistream.weights import average_checkpoints, load_model


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "a", tmp_path / "b"
    assert main(["init", str(a), "--preset", "nano"]) == main(["init", str(b), "--preset", "nano", "--seed", "1"]) == 0
    return a, b


def test_a_quarter_of_the_way(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    out = tmp_path / "out"
    assert main(["average", str(a), str(b), str(out), "--share", "0.25"]) == 0
    first, second, mean = (load_model(path).state_dict() for path in (a, b, out))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for name, value in mean.items():
        torch.testing.assert_close(value, first[name] + (second[name] - first[name]) / 4)
    said = json.loads((out / "config.json").read_text())
    assert said["made_by"] == "omnistream-weights average --share 0.25"
    assert (said["parent"]["name"], said["parent"]["averaged_with"]["name"]) == ("b", "a")


def test_the_ends_are_the_two(two: tuple[Path, Path], tmp_path: Path) -> None:
    for share, path in zip((0, 1), two, strict=True):
        state = average_checkpoints(*two, tmp_path / str(share), share=share).state_dict()
        assert all(torch.equal(state[name], value) for name, value in load_model(path).state_dict().items())


def test_what_cannot_be_averaged(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = two
    with pytest.raises(CheckpointError, match=r"share is 1\.5; expected 0 \(the first\) to 1"):
        average_checkpoints(a, b, tmp_path / "out", share=1.5)
    assert main(["init", str(tmp_path / "tiny"), "--preset", "tiny"]) == 0
    assert main(["average", str(a), str(tmp_path / "tiny"), str(tmp_path / "out")]) == 1
    assert "not of one architecture" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
