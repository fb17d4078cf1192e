# SPDX-License-Identifier: Apache-2.0
"""The model card says what the files say, and refuses files that are about something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnistream.weights import average_checkpoints, model_hash, random_model, save_model
from omnistream_training.config import TrainConfig
from omnistream_training.config_file import save_config
from omnistream_training.evaluation.cli import main
from omnistream_training.pretrain.config import PretrainConfig, TaskWeights
from omnistream_training.ssl.config import SslConfig


@pytest.fixture
def run(tmp_path: Path, model) -> Path:  # type: ignore[no-untyped-def]
    """A training run of two starts, 200 frames."""
    folder = tmp_path / "run"
    save_config(TrainConfig(), folder / "config.yaml")
    save_model(model, folder / "weights", made_by="test")
    start = {"kind": "start", "step": 0, "device": "cpu", "processor": "Abacus", "threads": 2, "source": "live worlds"}
    train = {"kind": "train", "step": 10, "frames_seen": 100, "seconds": 1800.0, "waiting": 0.1}
    later = {**train, "step": 20, "frames_seen": 200, "seconds": 5400.0, "waiting": 0.3}
    (folder / "log.jsonl").write_text("\n".join(json.dumps(line) for line in (start, train, start, later)) + "\n")
    return folder


def card(run: Path, out: Path, *reports: Path) -> int:
    return main(["card", str(run), "--results", *map(str, reports), "--out", str(out)])


def test_data_cost_numbers_and_limits(run: Path, data: Path, tmp_path: Path, model) -> None:  # type: ignore[no-untyped-def]
    options = ["--out", str(tmp_path / "geometry"), "--weights", str(run / "weights"), "--device", "cpu"]
    assert main(["geometry", str(data), *options, "--frames", "4", "8"]) == 0
    results = tmp_path / "geometry" / "results.json"
    assert card(run, tmp_path / "card.md", results) == 0
    text = (tmp_path / "card.md").read_text()
    assert f"| model hash | {model_hash(model)} |" in text
    assert "200 frames and 4.00 core hours" in text and "| 25.0% | Abacus, 2 threads |" in text
    assert "It has never seen a real photograph" in text
    assert "Frames per sequence: 8" in text and "| straight line |" in text and "| frame by frame |" in text
    row = next(row for row in json.loads(results.read_text())["rows"] if row["frames"] == 8)
    assert f"{row['depth']['abs_rel']['value']:.3f} [" in text


def test_a_pretraining_run_has_objectives(run: Path, tmp_path: Path) -> None:
    config = PretrainConfig(weights=TaskWeights(caption=0), ssl=SslConfig(pictures={"holiday": 1.0}))
    save_config(config, run / "config.yaml")
    assert card(run, tmp_path / "card.md") == 0
    text = (tmp_path / "card.md").read_text()
    assert "Objectives of run: 0.1 x self-supervision + 1 x geometry.\n" in text
    assert "a picture that the network ran on" in text and "never seen a real photograph" not in text
    save_config(PretrainConfig(weights=TaskWeights(geometry=0)), run / "config.yaml")
    assert card(run, tmp_path / "card.md") == 0
    text = (tmp_path / "card.md").read_text()
    assert "0.1 x self-supervision + 1 x captions. Its heads have learnt nothing." in text
    assert "never seen a real photograph" in text


def test_foreign_and_missing_files_are_refused(run: Path, data: Path, tmp_path: Path, model, capsys) -> None:  # type: ignore[no-untyped-def]
    other = save_model(random_model(model.config, seed=9), tmp_path / "other", made_by="test")
    options = ["--out", str(tmp_path / "geometry"), "--weights", str(other), "--device", "cpu", "--limit", "1"]
    assert main(["geometry", str(data), *options]) == 0
    assert card(run, tmp_path / "card.md", tmp_path / "geometry" / "results.json") == 3
    assert "is about other weights" in capsys.readouterr().err
    (tmp_path / "x.json").write_text("{}")
    assert card(run, tmp_path / "card.md", tmp_path / "x.json") == 3
    assert "not a report for a model card" in capsys.readouterr().err
    (run / "log.jsonl").unlink()
    assert card(run, tmp_path / "card.md", tmp_path / "x.json") == 3
    assert "log.jsonl: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "card.md").exists()


def test_an_average_of_what_the_run_wrote(run: Path, data: Path, tmp_path: Path, model, capsys) -> None:  # type: ignore[no-untyped-def]
    first = save_model(random_model(model.config, seed=9), tmp_path / "first", made_by="test")
    mean = tmp_path / "mean"
    average_checkpoints(first, run / "weights", mean, made_by="omnistream-weights average --share 0.5")
    options = ["--out", str(tmp_path / "geometry"), "--weights", str(mean), "--device", "cpu", "--limit", "1"]
    assert main(["geometry", str(data), *options]) == 0
    words = [
        "card",
        str(run),
        "--results",
        str(tmp_path / "geometry" / "results.json"),
        "--out",
        str(tmp_path / "c.md"),
    ]
    assert main([*words, "--weights", str(mean)]) == 0
    assert "| last written by | `omnistream-weights average --share 0.5` |" in (tmp_path / "c.md").read_text()
    assert main([*words, "--weights", str(first)]) == 3
    assert "was not made from" in capsys.readouterr().err
