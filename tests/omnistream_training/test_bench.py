# SPDX-License-Identifier: Apache-2.0
"""The bench measures what it says, and time budgets fit what was measured."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch

from omnistream_training.bench import bench
from omnistream_training.budget import compiling_pays, seconds_per_step
from omnistream_training.config import TrainConfig
from omnistream_training.data.feed import Feed


def test_the_bench_of_the_toy_run(toy: TrainConfig) -> None:
    result = bench(toy, "cpu")
    assert [(s["clips"], s["frames"]) for s in result["stages"]] == [(2, 2), (1, 4)]
    for stage in result["stages"]:
        assert 0 < stage["waiting"] < 1 and 0 < stage["of_gemm_peak"] < 1 and stage["frames_per_s"] > 0
    assert result["gemm_peak_gflops"] > 1 and result["threads"] == torch.get_num_threads()


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
