# SPDX-License-Identifier: Apache-2.0
"""The numbers that steer a run, on a model whose every answer is known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnistream_training import validate
from omnistream_training.config import TrainConfig
from omnistream_training.data.feed import Feed
from omnistream_training.journal import Journal, duration, read_journal
from omnistream_training.learner import Learner
from omnistream_training.losses.targets import make_targets
from omnistream_training.meter import Meter
from omnistream_training.validate import Validation, summary


@pytest.fixture
def two_metres(toy: TrainConfig) -> Learner:
    """A model that says 2 m, no motion, and a field of view of 60 degrees, whatever it sees."""
    learner = Learner(toy, "cpu")
    heads = learner.model.heads
    assert heads is not None
    with torch.no_grad():
        depth = heads.dpt.depth_out[-1]
        depth.weight.zero_()  # type: ignore[union-attr, operator]
        depth.bias[0] = math.log(2)  # type: ignore[union-attr, index, operator]
        for layer in (heads.camera.translation, heads.camera.quaternion, heads.camera.fov):
            layer.weight.zero_()
        heads.camera.fov.bias.fill_(math.log(1 / 2))  # pi / 3 of pi
    return learner


def test_a_model_of_one_depth_scores_what_that_depth_scores(two_metres: Learner, toy: TrainConfig) -> None:
    feed = Feed(toy, "cpu")
    batch = feed.held_out(0, range(8), 4, stride=4)
    depth = batch.depth.numpy().astype(np.float64)
    result = Validation(feed, 0, clips=8, frames=4).run(two_metres.model.eval())
    assert result["abs_rel"] == pytest.approx(np.mean(np.abs(2 - depth) / depth), abs=1e-4)
    assert result["delta1"] == pytest.approx(np.mean(np.maximum(2 / depth, depth / 2) < 1.25), abs=1e-4)
    assert result["abs_rel_scaled"] == result["flat_abs_rel_scaled"] == pytest.approx(0, abs=1e-4)  # walls are flat
    assert result["alone_abs_rel"] == result["abs_rel"]
    assert result["constant_abs_rel"] <= result["abs_rel"]
    assert result["translation_m"] == result["still_translation_m"]
    assert result["rotation_deg"] == pytest.approx(0, abs=1e-3)
    lens = [2 * math.atan(n / (2 * 0.9 * 48)) for n in (32, 48)]  # the last stage is 32 x 48
    assert result["fov_deg"] == pytest.approx(np.degrees(np.abs(np.array(lens) - math.pi / 3)).mean(), abs=1e-3)
    assert result["line_percent"] == pytest.approx(0, abs=1e-3)  # the camera does move on a straight line
    assert result["clips"] == 8 and "ATE" in summary(result)


def test_relative_depth_is_compared_in_its_own_unit_and_motion_in_metres(
    two_metres: Learner, toy: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = dataclasses.replace(toy, model=dataclasses.replace(toy.model, scale="relative"))
    feed = Feed(toy, "cpu")
    batch = feed.held_out(0, range(8), 4, stride=4)
    unit = make_targets(batch, "relative").scale
    predict = validate._predict

    def moving(*arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        depth, camera = predict(*arguments)
        camera[:, 1:, 0] = 0.5
        return depth, camera

    monkeypatch.setattr(validate, "_predict", moving)
    result = Validation(feed, 0, clips=8, frames=4).run(two_metres.model.eval())
    walls = (batch.depth / unit[:, None, None, None]).numpy().astype(np.float64)  # as far in every clip
    assert result["abs_rel"] == pytest.approx(np.mean(np.abs(2 - walls) / walls), abs=1e-3)
    assert result["constant_abs_rel"] == pytest.approx(0, abs=0.02) == result["map_abs_rel"]
    moved = (batch.T_world_camera - batch.T_world_camera[:, :1])[..., 0, 3]
    off = 0.5 * unit[:, None] - moved
    off[:, 0] = 0
    far = moved[:, -1] > validate.MIN_PATH
    assert result["translation_m"] == pytest.approx(float(off[far].abs().mean()), abs=1e-3)


def test_clips_without_depth_are_said_and_not_scored(two_metres: Learner, toy: TrainConfig) -> None:
    feed = Feed(toy, "cpu")
    known = feed.sources[0]

    class Blind:
        description = "no depth"

        def read(self, request):  # type: ignore[no-untyped-def]
            batch = known.read(request)
            batch.depth.fill_(math.nan)
            return batch

    feed.sources[0] = Blind()
    result = Validation(feed, 0, clips=2, frames=4).run(two_metres.model.eval())
    assert result == {"clips": 0} and summary(result) == "no clip has depth"


def test_a_meter_means_counts_and_finds_the_first_bad_step(toy: TrainConfig) -> None:
    meter = Meter(torch.device("cpu"))
    for step, loss in enumerate([1.0, 3.0]):
        with meter.waiting():
            pass
        meter.add(step, 0, {"loss": torch.tensor(loss)}, frames=4)
    assert meter.bad_step() is None
    values = meter.collect()
    assert values["loss"] == 2 and 0 <= values["waiting"] <= 1
    assert meter.seconds_left(toy, 10) == 0 and meter.seconds_left(toy, 2) > 0
    for step in (2, 3):
        meter.add(step, 0, {"loss": torch.tensor(math.nan)}, frames=4)
    assert meter.bad_step() == 2


def test_a_journal_outlives_a_line_cut_off_by_a_kill(tmp_path: Path) -> None:
    Journal(tmp_path).write("train", 1, loss=0.5)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"kind": "train", "st')
    assert [r["loss"] for r in read_journal(tmp_path / "log.jsonl")] == [0.5]
    Journal(tmp_path).write("train", 2, loss=0.25)
    assert [r["loss"] for r in read_journal(tmp_path / "log.jsonl")] == [0.5, 0.25]


def test_a_curve_is_drawn_from_what_there_is(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.draw(tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    journal.write("train", 1, loss=0.5, frames_seen=10)
    journal.write("train", 2, loss=math.nan, frames_seen=20)
    journal.draw(tmp_path / "a.png")
    journal.write("eval", 2, abs_rel=0.4, constant_abs_rel=0.5, frames_seen=20)
    journal.draw(tmp_path / "b.png")
    from PIL import Image

    sizes = {Image.open(tmp_path / name).size for name in ("a.png", "b.png")}
    assert sizes == {(900, 600)}


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.6, "10 s"), (65, "1 min 05 s"), (7325, "2 h 02 min"), (math.inf, "?")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
