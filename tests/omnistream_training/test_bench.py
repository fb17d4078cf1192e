# SPDX-License-Identifier: Apache-2.0
"""The bench measures what it says, and time budgets fit what was measured."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch

from omnistream_training.bench import bench, bench_stage, bench_text, main
from omnistream_training.budget import compiling_pays, seconds_per_step
from omnistream_training.config import TrainConfig
from omnistream_training.data.feed import Feed
from omnistream_training.presets import PRESETS


def test_the_bench_of_the_toy_run(toy: TrainConfig) -> None:
    result = bench(toy, "cpu")
    assert [(s["clips"], s["frames"]) for s in result["stages"]] == [(2, 2), (1, 4)]
    for stage in result["stages"]:
        assert 0 < stage["waiting"] < 1 and stage["frames_per_s"] > 0
        assert all(0 < share < 1 for share in stage["of_gemm_peak"].values())
    assert min(result["gemm_peak_gflops"].values()) > 1 and result["threads"] == torch.get_num_threads()
    assert [line.split(":")[0] for line in bench_text(result)[1:]] == [
        "2 clips x 2 frames x 32 x 32",
        "1 clips x 4 frames x 32 x 48",
    ]


def test_counted_work_is_that_of_the_shapes(toy: TrainConfig) -> None:
    """Twice the clips are twice the work; the backward pass costs about twice the forward pass."""
    counted = []
    for clips in (2, 4):
        stage = dataclasses.replace(toy.stages[0], clips=clips)
        counted.append(bench_stage(toy, stage, "cpu", {"float32": 1e12})["gflop_per_frame"])
    assert counted[0] == counted[1] > 0


def test_the_command_writes_a_report(
    toy: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "toy", toy)
    live = "tests.omnistream_training.scenes:Planes"
    assert main(["toy", live, "--out", str(tmp_path / "bench.json")]) in (0, 1)  # the toy renderer is slow
    report = json.loads((tmp_path / "bench.json").read_text())
    assert set(report["gemm_peak_gflops"]) == {"bfloat16", "float32"} and report["environment"]["machine"]
    assert "of the bfloat16 peak" in capsys.readouterr().out


def test_a_budget_measures_what_a_step_costs(toy: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = seconds_per_step(toy, "cpu")
    real = Feed.batch

    def slow(self, step):  # type: ignore[no-untyped-def]
        time.sleep(0.2)
        return real(self, step)

    monkeypatch.setattr(Feed, "batch", slow)
    slowed = seconds_per_step(toy, "cpu")
    assert len(quick) == 2 and all(b - a > 0.1 for a, b in zip(quick, slowed, strict=True))


def test_a_compiler_that_fails_is_not_used(
    toy: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self, *_, **__):  # type: ignore[no-untyped-def]
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    assert compiling_pays(dataclasses.replace(toy), "cpu") is False
    assert "no compiler here" in capsys.readouterr().err
