# SPDX-License-Identifier: Apache-2.0
"""A run that is killed ends where a run that is not ends: the same weights, bit for bit (CPU, float32)."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from omnistream.errors import CheckpointError, ConfigError
from omnistream_training.checkpointing import save_state
from omnistream_training.config import DataConfig, TrainConfig
from omnistream_training.data.augment import AugmentConfig
from omnistream_training.geometry import GeometryTrainer
from omnistream_training.journal import read_journal
from omnistream_training.running import Where, run_geometry
from tests.omnistream_training.conftest import ROOT

CHILD = """
import sys, torch
from pathlib import Path
import tests.omnistream_training.conftest as setup
from omnistream.model.config import PRESETS
from omnistream_training.config import TrainConfig
from omnistream_training.config_file import load_config
from omnistream_training.journal import read_journal
from omnistream_training.running import Where, run_geometry
PRESETS["micro"] = setup.MICRO
run = Path(sys.argv[1])
run_geometry(load_config(run.parent / "wanted.yaml", TrainConfig()), run, Where(device="cpu", threads=1))
"""


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "state" / "latest.pt", weights_only=True)["model"]


def averages(run: Path) -> list[torch.Tensor]:
    return torch.load(run / "state" / "latest.pt", weights_only=True)["average"]


def same(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return (
        left.keys() == right.keys()
        and all(torch.equal(left[k], right[k]) for k in left)
        and all(torch.equal(x, y) for x, y in zip(averages(a), averages(b), strict=True))
    )


def train(config: TrainConfig, run: Path, until: int | None = None) -> GeometryTrainer:
    trainer = GeometryTrainer(config, run)
    trainer.train(until)
    return trainer


@pytest.mark.parametrize("muon", [0.0, 1e-2], ids=["adamw", "muon"])
def test_stopping_anywhere_changes_nothing(toy: TrainConfig, tmp_path: Path, muon: float) -> None:
    toy = dataclasses.replace(toy, optim=dataclasses.replace(toy.optim, muon_lr=muon))
    train(toy, tmp_path / "whole")
    for stop in (1, 5, 6, 9):  # 6 is the border of two stages
        train(toy, tmp_path / f"cut{stop}", stop)
        train(toy, tmp_path / f"cut{stop}")
        assert same(tmp_path / "whole", tmp_path / f"cut{stop}"), f"stopped after step {stop}"


def test_weights_do_move_and_seeds_differ(toy: TrainConfig, tmp_path: Path) -> None:
    train(toy, tmp_path / "a", 1)
    before = weights(tmp_path / "a")
    train(toy, tmp_path / "a")
    train(dataclasses.replace(toy, seed=1), tmp_path / "b")
    assert not any(torch.equal(v, before[k]) for k, v in weights(tmp_path / "a").items() if k.endswith("qkv.weight"))
    assert not same(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_killed_ten_times_at_random_moments_it_ends_with_equal_weights(toy: TrainConfig, tmp_path: Path) -> None:
    from omnistream_training.config_file import save_config

    stages = tuple(dataclasses.replace(stage, steps=60) for stage in toy.stages)
    toy = dataclasses.replace(toy, stages=stages, save_every=3, eval_every=0, log_every=1)
    save_config(toy, tmp_path / "wanted.yaml")
    train(toy, tmp_path / "whole")
    run, draw = tmp_path / "killed", random.Random(0)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    kills, finished = 0, False
    while not finished:
        seen = _last_step(run)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(run)], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )
        if kills < 10:
            target = seen + draw.randint(1, 10)
            while child.poll() is None and _last_step(run) < min(target, 118):
                time.sleep(0.01)
            time.sleep(draw.random() * 0.05)  # in the middle of a step, of a save, anywhere
        if kills < 10 and child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
        else:
            finished = child.wait() == 0
            assert finished, "the run failed"
    assert kills == 10
    assert same(tmp_path / "whole", run)


def _last_step(run: Path) -> int:
    """Newest step in the journal."""
    journal = run / "log.jsonl"
    if not journal.exists():
        return 0
    steps = [0]
    for line in journal.read_text().splitlines():
        try:
            steps.append(json.loads(line)["step"])
        except json.JSONDecodeError:
            continue
    return steps[-1]


def test_sigterm_saves_and_stops(toy: TrainConfig, tmp_path: Path) -> None:
    trainer = GeometryTrainer(toy, tmp_path)
    calls = iter([False, False, False, True])
    assert trainer.train(stop=lambda: next(calls)) is False
    assert read_journal(tmp_path / "log.jsonl")[-1]["step"] == 3  # and says what these steps took
    assert trainer.progress.seconds > 0
    assert torch.load(tmp_path / "state" / "latest.pt", weights_only=True)["progress"]["step"] == 3


def test_a_state_that_is_cut_off_is_replaced_by_the_one_before(
    toy: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(toy, tmp_path / "whole")
    train(toy, tmp_path / "run", 4)
    state = tmp_path / "run" / "state" / "latest.pt"
    state.write_bytes(state.read_bytes()[:1000])
    capsys.readouterr()
    trainer = GeometryTrainer(toy, tmp_path / "run")
    assert 0 < trainer.progress.step <= 4
    said = capsys.readouterr().err
    assert "latest.pt is damaged" in said and "going on from" in said and "previous.pt" in said
    assert (tmp_path / "run" / "state" / "latest.damaged").exists()
    save_state(state, trainer.learner)  # what was good is still the one before
    assert torch.load(state.with_name("previous.pt"), weights_only=True)["progress"] == vars(trainer.progress)
    state.unlink()
    trainer = GeometryTrainer(toy, tmp_path / "run")
    assert 0 < trainer.progress.step <= 4
    trainer.train()
    assert same(tmp_path / "whole", tmp_path / "run")


def test_a_state_of_an_older_release_lacks_fields_that_are_newer(toy: TrainConfig, tmp_path: Path) -> None:
    train(dataclasses.replace(toy, augment=AugmentConfig()), tmp_path, 4)
    path = tmp_path / "state" / "latest.pt"
    stored = torch.load(path, weights_only=True)
    assert stored["config"]["augment"].pop("away") == 0.0
    torch.save(stored, path)
    assert GeometryTrainer(dataclasses.replace(toy, augment=AugmentConfig()), tmp_path).progress.step == 4
    with pytest.raises(CheckpointError, match="another configuration"):
        GeometryTrainer(dataclasses.replace(toy, augment=AugmentConfig(away=0.5)), tmp_path)


def test_both_states_damaged_is_said_with_both_names(toy: TrainConfig, tmp_path: Path) -> None:
    train(toy, tmp_path, 4)
    for name in ("latest.pt", "previous.pt"):
        (tmp_path / "state" / name).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"latest\.pt.*previous\.pt"):
        GeometryTrainer(toy, tmp_path)


def test_another_configuration_does_not_go_on_in_the_same_directory(toy: TrainConfig, tmp_path: Path) -> None:
    assert run_geometry(toy, tmp_path, Where(device="cpu"))
    with pytest.raises(ConfigError, match="differs in seed"):
        run_geometry(dataclasses.replace(toy, seed=3), tmp_path, Where(device="cpu"))


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_the_batch(toy: TrainConfig, tmp_path: Path) -> None:
    from omnistream_training.data.feed import CLIPS_PER_STEP
    from omnistream_training.data.live import seed_of
    from omnistream_training.geometry import NotFiniteError

    options = {"break_at": str(seed_of(3 * CLIPS_PER_STEP))}
    toy = dataclasses.replace(toy, data=DataConfig(live=toy.data.live, live_options=options))
    trainer = GeometryTrainer(toy, tmp_path)
    with pytest.raises(NotFiniteError, match="step 3.*bad_step_3.pt"):
        trainer.train()
    assert all(p.isfinite().all() for p in trainer.learner.model.parameters())
    assert torch.load(tmp_path / "state" / "latest.pt", weights_only=True)["progress"]["step"] == 2
    saved = torch.load(tmp_path / "bad_step_3.pt", weights_only=True)
    assert saved["step"] == 3 and set(saved["batch"]) == {"images", "depth", "T_world_camera", "K", "times", "place"}
    assert "not_finite" in (tmp_path / "log.jsonl").read_text()
