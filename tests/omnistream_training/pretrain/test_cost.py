# SPDX-License-Identifier: Apache-2.0
"""The bill of a pre-training step against what torch counts in a step that is really made."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from omnistream.errors import ConfigError
from omnistream.model.config import PRESETS
from omnistream_training.cli import main
from omnistream_training.config import ModelChoice
from omnistream_training.pretrain import bench
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.cost import QWEN3_06B, Cost, bill, decoder_weights, frames_of, memory
from omnistream_training.pretrain.feed import PretrainFeed
from omnistream_training.pretrain.learner import PretrainLearner
from omnistream_training.pretrain.presets import PRESETS as RUNS
from tests.omnistream_training.conftest import ROOT
from tests.omnistream_training.pretrain.test_pretrain import TOY


@pytest.fixture
def toy(micro: str) -> PretrainConfig:
    return dataclasses.replace(TOY, model=ModelChoice(preset=micro))


def test_the_bill_is_what_a_real_step_costs(toy: PretrainConfig) -> None:
    learner, feed = PretrainLearner(toy, "cpu"), PretrainFeed(toy, "cpu", 16)
    batch = feed.batch(0)
    assert batch.asked is not None
    with FlopCounterMode(display=False) as counter:
        learner.gradient(batch)
    texts = [len(q.ask) + len(q.answer) + 2 for q in batch.asked.questions]  # bytes, a new line and the end
    text = min(max(texts), toy.caption.max_tokens)
    counted = sum(line.flop for line in bill(toy, toy.stages[0], text))
    # Masks are drawn, first layers take no gradient of their input, and texts differ in length.
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.1)
    assert sum(frames_of(toy, toy.stages[0]).values()) == 3 + 2 * 2 + 2 * 2 + 3


def test_without_a_task_nothing_is_charged(toy: PretrainConfig) -> None:
    toy = dataclasses.replace(toy, weights=dataclasses.replace(toy.weights, caption=0.0, ssl=0.0))
    assert {line.task for line in bill(toy, toy.stages[0], 16)} == {"geometry"}


def test_memory_is_shared_out() -> None:
    config = RUNS["paper_vitl_stage1"]
    one, many = memory(config, 1), memory(config, 64)
    assert sum(one.values()) == pytest.approx(64 * sum(many.values()))
    assert decoder_weights(QWEN3_06B, 1024) / 1e6 == pytest.approx(596, rel=0.01)  # Qwen3-0.6B, and a projector of 2 M


def test_the_page_shows_what_the_command_prints(capsys: Any) -> None:
    assert main(["cost"]) == 0
    printed = capsys.readouterr().out.rstrip("\n")
    page = (ROOT / "docs" / "scale.md").read_text()
    for line in printed.splitlines():
        assert line.strip() in page, f"docs/scale.md lacks {line!r}; it is made by `omnistream-train cost`"


def test_options_that_make_no_sense(capsys: Any) -> None:
    with pytest.raises(ConfigError, match="utilisation is"):
        Cost(utilisation=(1.5,))
    assert main(["cost", "--preset", "nothing"]) == 2
    assert "preset 'nothing' is unknown" in capsys.readouterr().err


def test_the_bench_makes_real_steps(toy: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNS, "toy", toy)
    monkeypatch.setattr(bench, "gemm_peak", lambda device, dtype: 1e9)
    assert bench.main(["toy", "--steps", "1", "--pictures", "2", "--out", str(tmp_path / "bench.json")]) == 0
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["steps"] == 1 and report["seconds_per_step"] > 0 and report["tflop_per_step"] > 0
    assert report["frames_per_step"] == {"geometry": 3, "all": 3 + 2 * 4 + 2 * 2 * 4 + 2}
    assert PRESETS  # the network is one of these
