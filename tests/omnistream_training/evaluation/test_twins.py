# SPDX-License-Identifier: Apache-2.0
"""The experiment behind "memory helps", at toy size: trained within a budget, stopped, gone on with, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from omnistream.model.config import PRESETS, BackboneConfig, HeadConfig, ModelConfig
from omnistream.weights import load_model
from omnistream_training import twins
from omnistream_training.config import TrainConfig
from omnistream_training.config_file import load_config
from omnistream_training.evaluation.cli import main as evaluate
from omnistream_training.evaluation.plots import pyplot_or_none
from omnistream_training.twins import FINISHED, KINDS, STOPPED, main

MICRO = ModelConfig(
    backbone=BackboneConfig(dim=32, depth=4, heads=2),
    heads=HeadConfig(taps=(0, 1, 2, 3), projections=(8, 8, 16, 16), features=16),
    camera_token=True,
)
RECIPE = {
    "model": {"preset": "micro", "image_size": 64},
    "data": {"live": "tests.omnistream_training.scenes:Planes"},
    "precision": "float32",
}


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setitem(PRESETS, "micro", MICRO)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))

    def run(*more: str, minutes: str = "1000") -> int:
        recipe = str(tmp_path / "recipe.yaml")
        out = [str(tmp_path / "runs"), minutes, "--preset", "toy", "--config", recipe, "--device", "cpu"]
        return main([*out, "--seeds", "0", "1", *more])

    return run


def test_all_runs_differ_in_policy_and_seed_alone_and_a_stopped_experiment_goes_on(train, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert train("--now", "0") == STOPPED
    runs = tmp_path / "runs"
    assert sorted(path.name for path in runs.iterdir()) == ["config.yaml"]
    shared = (runs / "config.yaml").read_bytes()
    assert train(minutes="0.001") == FINISHED  # the plan was made at the first start
    assert (runs / "config.yaml").read_bytes() == shared
    configs = {path.name: load_config(path / "config.yaml", TrainConfig()) for path in runs.iterdir() if path.is_dir()}
    assert sorted(configs) == sorted(f"{kind}-{seed}" for kind in KINDS for seed in (0, 1))
    assert {name: (c.policy, c.seed) for name, c in configs.items() if name.endswith("1")} == {
        "stream-1": ("full", 1),
        "frame-1": ("window:1", 1),
        "anchor-1": ("sink_window:1,1", 1),
    }
    assert len({str(c.stages) + str(c.optim) + str(c.data) + str(c.model) for c in configs.values()}) == 1
    sizes = {name: sum(p.numel() for p in load_model(runs / name / "weights").parameters()) for name in configs}
    assert len(set(sizes.values())) == 1
    seen = {
        name: json.loads((runs / name / "log.jsonl").read_text().splitlines()[-1])["frames_seen"] for name in configs
    }
    assert len(set(seen.values())) == 1
    one, other = (load_model(runs / name / "weights").state_dict() for name in ("stream-0", "frame-0"))
    assert any(not torch.equal(one[key], other[key]) for key in one)
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*.safetensors")}
    assert train() == FINISHED
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("*.safetensors")}


def test_all_runs_together_fit_the_minutes(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(twins, "seconds_per_step", lambda config, device: [3.0, 6.0])
    assert train("--now", "0", minutes="3") == STOPPED
    stages = load_config(tmp_path / "runs" / "config.yaml", TrainConfig()).stages
    assert 0 < 6 * (stages[0].steps * 3 + stages[1].steps * 6) <= 3 * 60  # six runs


def test_the_comparison_of_all_runs(train, data: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert train() == FINISHED
    out = tmp_path / "out"
    arguments = ["twins", str(tmp_path / "runs"), "--data", f"recordings={data}", "--out", str(out), "--device", "cpu"]
    arguments += ["--frames", "4", "8", "--policy", "sink_window:1,3", "full"]
    assert evaluate(arguments) == 0
    text = capsys.readouterr().out
    assert "sink_window:1,3 against the twin window:1" in text and "2 seed(s) each" in text
    report = json.loads((out / "twins.json").read_text())
    assert report["runs"] == {kind: [f"{kind}-0", f"{kind}-1"] for kind in KINDS}
    found = report["sets"]["recordings"]
    assert [(c["policy"], c["twin"]) for c in found["comparisons"]] == [
        ("sink_window:1,3", "frame"),
        ("sink_window:1,3", "anchor"),
        ("full", "frame"),
        ("full", "anchor"),
    ]
    row = found["comparisons"][0]["rows"][0]
    assert row["seeds"] == [2, 2] and row["sequences"] == 3 and len(row["a_by_seed"]) == 2
    assert set(found["curves"]) == {
        "streaming, sink_window:1,3",
        "streaming, full",
        "twin, window:1",
        "twin, sink_window:1,1",
    }
    assert {(p["frames"], p["metric"]) for p in found["curves"]["streaming, full"]} >= {(4, "abs_rel"), (8, "abs_rel")}
    if pyplot_or_none() is not None:
        assert (out / "plots" / "twins_recordings.png").stat().st_size > 5000


def test_what_is_missing_is_named(data: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "runs" / "stream-0").mkdir(parents=True)
    (tmp_path / "runs" / "stream-0" / "finished").touch()
    base = ["twins", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert evaluate([*base, "--data", f"recordings={data}"]) == 3
    assert "no seed of which stream-S, frame-S and anchor-S are all finished" in capsys.readouterr().err
    assert evaluate([*base, "--data", str(data)]) == 2
    assert "expected PROTOCOL=DIR" in capsys.readouterr().err
