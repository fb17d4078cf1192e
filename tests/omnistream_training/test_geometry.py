# SPDX-License-Identifier: Apache-2.0
"""The trainer learns, its weights run in a stream session, heads train on frozen features."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from omnistream import StreamSession, load_model
from omnistream.errors import ConfigError
from omnistream.model.omnistream import OmniStream
from omnistream.weights import open_checkpoint, save_model
from omnistream_training.checkpointing import averaged
from omnistream_training.cli import main
from omnistream_training.config import ModelChoice, Stage, TrainConfig
from omnistream_training.data.feed import Feed
from omnistream_training.geometry import GeometryTrainer
from omnistream_training.journal import read_journal
from tests.omnistream_training.conftest import MICRO


def lines(run: Path, kind: str) -> list[dict[str, object]]:
    return [record for record in read_journal(run / "log.jsonl") if record["kind"] == kind]


def test_it_learns_the_distances_of_a_few_walls(toy: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(
        toy,
        data=dataclasses.replace(toy.data, live_options={"variety": "4"}),
        stages=(Stage(steps=150, clips=8, frames=2, size=(32, 32), stride=(1, 8)),),
        optim=dataclasses.replace(toy.optim, lr=1e-3, muon_lr=1e-2, warmup=10, ema=0.9),
        eval_every=0,
        eval_clips=12,
        log_every=10,
    )
    GeometryTrainer(config, tmp_path).train()
    end = lines(tmp_path, "end")[0]
    assert end["abs_rel"] < 0.5 * end["constant_abs_rel"]  # type: ignore[operator]
    losses = [r["loss"] for r in lines(tmp_path, "train")]
    assert losses[-1] < 0.5 * losses[0]  # type: ignore[operator]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_weights_run_in_a_session_and_say_their_scale(toy: TrainConfig, tmp_path: Path) -> None:
    trainer = GeometryTrainer(toy, tmp_path)
    trainer.train()
    model = load_model(tmp_path / "weights")
    assert model.config.scale == "metric" and model.config.image_size == 128
    with averaged(trainer.learner.model, trainer.learner.average):
        for name, value in trainer.learner.model.state_dict().items():
            assert torch.equal(model.state_dict()[name], value.half().float()), name
    result = StreamSession(model, image_size=(32, 32)).step(np.zeros((40, 40, 3), np.uint8))
    assert result.scale == "metric" and result.depth is not None and np.isfinite(result.depth).all()


def test_evaluation_leaves_training_weights_alone(toy: TrainConfig, tmp_path: Path) -> None:
    learner = GeometryTrainer(toy, tmp_path).learner
    learner.average.average[0].add_(1)
    before = [p.detach().clone() for p in learner.model.parameters()]
    with averaged(learner.model, learner.average):
        assert not torch.equal(next(learner.model.parameters()), before[0])
        assert not learner.model.training
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))
    assert learner.model.training


def test_heads_train_on_a_frozen_backbone_without_heads(toy: TrainConfig, tmp_path: Path) -> None:
    bare = dataclasses.replace(MICRO, heads=None, camera_token=False)
    torch.manual_seed(1)
    foreign = OmniStream(bare)
    save_model(foreign, tmp_path / "foreign")
    choice = ModelChoice(start=str(tmp_path / "foreign"), freeze_backbone=True, image_size=64)
    trainer = GeometryTrainer(dataclasses.replace(toy, model=choice), tmp_path / "run")
    untrained = {k: v.clone() for k, v in trainer.learner.model.state_dict().items()}
    trainer.train()
    trained = trainer.learner.model.state_dict()
    for name, value in foreign.backbone.state_dict().items():
        if name != "camera_token":  # foreign weights had none, so it is learnt with the heads
            assert torch.equal(trained[f"backbone.{name}"], value), name
    moved = [n for n, v in trained.items() if not torch.equal(v, untrained[n])]
    assert "backbone.camera_token" in moved and any(n.startswith("heads.dpt") for n in moved)
    written = open_checkpoint(tmp_path / "run" / "weights")
    assert written.config.outputs == ("features", "depth", "rays", "pose")


def test_the_released_start_goes_on_with_all_its_weights(toy: TrainConfig, tmp_path: Path) -> None:
    GeometryTrainer(toy, tmp_path / "first").train()
    choice = ModelChoice(start=str(tmp_path / "first" / "weights"), image_size=64)
    second = GeometryTrainer(dataclasses.replace(toy, model=choice), tmp_path / "second")
    stored = load_model(tmp_path / "first" / "weights").state_dict()
    assert all(torch.equal(v, stored[k]) for k, v in second.learner.model.state_dict().items())
    assert second.learner.parent is not None


def test_a_per_frame_twin_learns_from_each_frame_alone(toy: TrainConfig, tmp_path: Path) -> None:
    twin = dataclasses.replace(toy, policy="window:1")
    learner = GeometryTrainer(twin, tmp_path).learner
    batch = Feed(twin, "cpu").batch(7)  # four frames
    changed = dataclasses.replace(batch, images=batch.images.clone())
    changed.images[:, 0] = 0
    with torch.no_grad():
        a, b = (learner.forward(x).log_depth for x in (batch, changed))
    assert a is not None and b is not None
    assert torch.equal(a[:, 1:], b[:, 1:]) and not torch.equal(a[:, 0], b[:, 0])
    with pytest.raises(ConfigError, match="window"):
        dataclasses.replace(toy, policy="some")


def test_relative_scale_is_stored(toy: TrainConfig, tmp_path: Path) -> None:
    choice = dataclasses.replace(toy.model, scale="relative")
    GeometryTrainer(dataclasses.replace(toy, model=choice), tmp_path).train()
    assert load_model(tmp_path / "weights").config.scale == "relative"


def test_the_command_line_trains_resumes_and_fails_with_its_codes(
    micro: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planes = "tests.omnistream_training.scenes:Planes"
    run = str(tmp_path / "run")
    options = ["--preset", "toy", "--model.preset", micro, "--data.live", planes, "--device", "cpu"]
    assert main(["geometry", run, *options]) == 0
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["kind"] == "end"
    assert main(["geometry", run]) == 0  # nothing left to do, and no option needed to find that out
    assert main(["geometry", run, "--seed", "4"]) == 2
    assert "differs in seed" in capsys.readouterr().err
    assert main(["geometry", str(tmp_path / "b"), *options, "--stop-after", "0"]) == 1
    assert main(["geometry", str(tmp_path / "c"), "--preset", "nonsense"]) == 2
    assert main(["heads", str(tmp_path / "d"), "--data.live", planes]) == 2
    assert "name the checkpoint" in capsys.readouterr().err
    assert main(["heads", str(tmp_path / "e"), "--model.start", str(tmp_path / "none"), "--data.live", planes]) == 4
    assert main(["geometry", str(tmp_path / "f"), "--data.live", "None", "--data.folders", str(tmp_path / "no")]) == 3
    assert not (tmp_path / "e").exists() and not (tmp_path / "f").exists()
    assert main(["geometry", str(tmp_path / "f"), *options, "--stop-after", "0"]) == 1  # what was wrong is forgotten
    assert main(["dance"]) == 2
