# SPDX-License-Identifier: Apache-2.0
"""The ablation: its report on made-up numbers with known answers, and all of it once on the smallest of runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnistream.errors import ConfigError, InputError
from omnistream_training.ablation import command
from omnistream_training.ablation.command import Ablation, run_ablation
from omnistream_training.ablation.measure import _episodes, read_measured
from omnistream_training.ablation.plan import VARIANTS, runs
from omnistream_training.ablation.report import compare, report_text
from omnistream_training.config import ModelChoice
from omnistream_training.journal import Journal
from omnistream_training.pretrain.presets import PRESETS, TABLETOP_TINY
from tests.omnistream_training.pretrain.test_pretrain import TOY


def made_up(depth: float, right: float, seed: int, episodes: float | None = None) -> dict[str, Any]:
    """A run's measurements: 40 clips about `depth`, 40 scenes with `right` of 10 samples right."""
    rng = np.random.default_rng(seed)
    spread = np.random.default_rng(0).normal(0, 0.05, 40)  # of the clips, the same for all runs
    clips = [{"abs_rel_scaled": depth + s + rng.normal(0, 0.002), "ate_percent": 5.0} for s in spread]
    del clips[3]["ate_percent"]  # a path too short to score
    sums = [[right, 10.0]] * 40
    probe = {"unit": "% right", "better": 1, "sums": sums}
    solved = [] if episodes is None else (rng.random(100) < episodes).astype(float).tolist()
    return {"clips": clips, "probes": {"whether its thing moves": probe}, "episodes": solved}


def test_known_differences_are_found_and_judged() -> None:
    measured = {
        "full": [made_up(0.20, 8, s, 0.9) for s in range(3)],
        "no-video": [made_up(0.25, 7, s + 10, 0.5) for s in range(3)],
        "no-geometry": [made_up(0.15, 8, s + 20, 0.9) for s in range(3)],
    }
    rows = {row["question"]: row for row in compare(measured)}
    assert set(rows) == {"depth, one scale", "pose", "motion probe", "policy"}
    video = rows["depth, one scale"]["differences"]["no-video"]
    assert video["value"] == pytest.approx(0.05, abs=0.005) and video["low"] < 0.05 < video["high"]
    assert (video["without"], video["paper"], video["agrees"]) == ("worse", "worse", True)
    geometry = rows["depth, one scale"]["differences"]["no-geometry"]
    assert (geometry["without"], geometry["agrees"]) == ("better", False)
    assert rows["motion probe"]["differences"]["no-video"]["value"] == pytest.approx(-10)
    assert rows["motion probe"]["differences"]["no-geometry"]["agrees"] is None  # equal: not clear
    assert rows["pose"]["differences"]["no-video"]["paper"] is None
    assert rows["policy"]["differences"]["no-video"]["without"] == "worse"
    text = "\n".join(report_text(list(rows.values()), 3))
    assert "depth, one scale, no-geometry" in text and "disagrees" in text and "no clear difference" in text
    other_order = compare({name: measured[name] for name in ("no-video", "full", "no-geometry")})
    assert report_text(other_order, 3)[0].split() == ["unit", "full", "no-video", "no-geometry"]


def test_what_a_run_lacks_is_not_compared() -> None:
    measured = {"full": [made_up(0.2, 8, 0, 0.9)], "no-video": [made_up(0.2, 8, 1)]}
    assert "policy" not in {row["question"] for row in compare(measured)}
    assert report_text([], 0) == ["nothing to compare yet"]


def test_runs_measured_otherwise_are_not_compared(tmp_path: Path) -> None:
    asked = {"clips": 64, "policy": ""}
    assert read_measured(tmp_path, asked) is None
    (tmp_path / "measured.json").write_text(json.dumps({"asked": asked, "clips": []}))
    assert read_measured(tmp_path, asked) == {"asked": asked, "clips": []}
    with pytest.raises(ConfigError, match="was measured with clips 64, now 32: give the same options"):
        read_measured(tmp_path, asked | {"clips": 32})


def test_each_variant_lacks_its_task_alone() -> None:
    by_name = {run.name: run.config for run in runs(TABLETOP_TINY, (0, 1), tuple(VARIANTS))}
    assert list(by_name)[:4] == ["full-0", "no-video-0", "no-geometry-0", "no-captions-0"] and len(by_name) == 8
    full = by_name["full-1"]
    assert full == dataclasses.replace(TABLETOP_TINY, seed=1)
    assert by_name["no-video-1"] == dataclasses.replace(full, ssl=dataclasses.replace(full.ssl, clips=0))
    assert by_name["no-geometry-1"].weights.geometry == 0 and by_name["no-captions-1"].weights.caption == 0


def test_episodes_of_a_policy(tmp_path: Path) -> None:
    assert _episodes(tmp_path, tmp_path / "weights", "") == []
    record = {"index": 0, "tasks": ["a", "b"], "done": [{"task": "a", "solved": True}, {"task": "b", "solved": False}]}
    command = f"""python -c "import pathlib,sys; p=pathlib.Path(sys.argv[1])/'policy'; p.mkdir();
(p/'episodes.jsonl').write_text(sys.argv[2])" {{run}} '{json.dumps(record)}'"""
    assert _episodes(tmp_path, tmp_path / "weights", command) == [0.5]
    (tmp_path / "policy" / "episodes.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="no record of an episode"):
        _episodes(tmp_path, tmp_path / "weights", "")
    with pytest.raises(InputError, match="left no"):
        _episodes(tmp_path / "other", tmp_path / "weights", "true")
    with pytest.raises(InputError, match="ended with 1"):
        _episodes(tmp_path / "other", tmp_path / "weights", "false")


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="variants are no-video; expected full"):
        Ablation(out=tmp_path, variants=("no-video",))
    with pytest.raises(ConfigError, match="seeds are"):
        Ablation(out=tmp_path, seeds=(1, 1))


def test_a_resumed_experiment_has_the_options_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Ablation] = []
    monkeypatch.setattr(command, "run_ablation", lambda options: bool(seen.append(options)))
    began = Ablation(out=tmp_path, minutes=3, seeds=(4, 5), clips=9, now=1.0)
    command._go_on(began, tmp_path)
    command.run_command([str(tmp_path), "--now", "45"])
    assert seen == [dataclasses.replace(began, now=45.0)]
    command._go_on(dataclasses.replace(began, seeds=(4, 5, 6)), tmp_path)  # may grow
    with pytest.raises(ConfigError, match="began with minutes 3, now 15"):
        command._go_on(dataclasses.replace(began, minutes=15.0), tmp_path)


def test_the_time_of_a_run_that_was_killed_counts_no_step_twice(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("start", 0)
    journal.write("train", 20, seconds=20.0)
    journal.write("train", 40, seconds=20.0)
    journal.write("start", 30)  # killed after the state of step 30
    journal.write("train", 40, seconds=10.0)
    journal.write("train", 45, seconds=5.0)
    assert command._seconds(tmp_path) == 45.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_experiment_stops_goes_on_and_compares(
    micro: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("transformers")
    stages = tuple(dataclasses.replace(stage, steps=2) for stage in TOY.stages)
    toy = dataclasses.replace(TOY, model=ModelChoice(preset=micro), stages=stages, eval_every=0)
    monkeypatch.setitem(PRESETS, "toy", toy)
    options = Ablation(
        out=tmp_path,
        preset="toy",
        minutes=60,
        now=0.0,
        seeds=(0, 1),
        variants=("full", "no-geometry"),
        readout_steps=2,
        clips=3,
        scenes=60,
        device="cpu",
        threads=1,
    )
    assert not run_ablation(options) and "nothing to compare yet" in capsys.readouterr().out
    options = dataclasses.replace(options, now=None)
    assert run_ablation(options)
    report = json.loads((tmp_path / "ablation.json").read_text())
    assert report["seeds"] == [0, 1] and report["steps"] == 4
    assert {row["question"] for row in report["rows"]} >= {"depth, one scale", "largest thing"}
    row = report["rows"][0]
    assert set(row["values"]) == {"full", "no-geometry"} and len(row["by_seed"]["full"]) == 2
    assert "no-geometry" in (tmp_path / "ablation.txt").read_text()
    assert json.loads((tmp_path / "full-0" / "measured.json").read_text())["asked"]["clips"] == 3
    measured = (tmp_path / "full-0" / "measured.json").stat().st_mtime_ns
    assert run_ablation(options)  # finished: read again, not made again
    assert (tmp_path / "full-0" / "measured.json").stat().st_mtime_ns == measured
