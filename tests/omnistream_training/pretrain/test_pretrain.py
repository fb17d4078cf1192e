# SPDX-License-Identifier: Apache-2.0
"""Tasks one after the other, one update; and a run that stops anywhere ends where one that does not."""

from __future__ import annotations

import copy
import dataclasses
import json
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import omnistream
from omnistream.errors import CheckpointError, ConfigError
from omnistream.model.config import PRESETS
from omnistream.weights import open_checkpoint, random_model, save_model
from omnistream_training.caption.config import CaptionConfig, DecoderConfig
from omnistream_training.cli import main
from omnistream_training.config import ModelChoice, Stage
from omnistream_training.config_file import load_config, save_config
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.source import ClipRequest
from omnistream_training.optim import OptimConfig
from omnistream_training.pretrain.command import run_pretrain
from omnistream_training.pretrain.config import PretrainConfig, TaskWeights
from omnistream_training.pretrain.feed import PretrainFeed
from omnistream_training.pretrain.learner import PretrainLearner
from omnistream_training.pretrain.presets import PRESETS as RUNS
from omnistream_training.pretrain.trainer import PretrainTrainer
from omnistream_training.running import Where
from omnistream_training.ssl.config import SslConfig
from omnistream_training.state_folder import read_state
from tests.omnistream_training.conftest import MICRO

pytest.importorskip("transformers")

TOY = PretrainConfig(
    stages=(Stage(steps=4, clips=2, frames=2, size=(32, 32)), Stage(steps=3, clips=1, frames=3, size=(32, 48))),
    optim=OptimConfig(warmup=2, ema=0.9, muon_lr=1e-2),
    precision="float32",
    ssl=SslConfig(
        images=3,
        clips=2,
        frames=2,
        source_size=(48, 48),
        global_size=32,
        local_size=16,
        prototypes=16,
        hidden=16,
        bottleneck=8,
        temperature_steps=4,
        freeze_prototypes=2,
        momentum=(0.9, 1.0),
    ),
    caption=CaptionConfig(
        pictures=3, size=(32, 32), max_tokens=48, decoder=DecoderConfig(dim=16, depth=1, heads=2, mlp=16)
    ),
    eval_every=4,
    eval_clips=2,
    eval_frames=3,
    eval_questions=4,
    save_every=2,
    log_every=2,
)

PRELOAD = ["transformers.models.qwen3.modeling_qwen3", "omnistream_training.pretrain.command"]
"""What a process that is to be killed imports beforehand, once for all of them."""


@pytest.fixture
def toy(micro: str) -> PretrainConfig:
    return dataclasses.replace(TOY, model=ModelChoice(preset=micro))


def state(run: Path) -> dict[str, Any]:
    plain, tensors = read_state(max((run / "state").glob("step_????????")))
    plain["progress"].pop("seconds")
    return plain | tensors


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, whatever is nested in what; what is unknown (NaN) in both is equal too."""
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def train(config: PretrainConfig, run: Path, until: int | None = None) -> PretrainTrainer:
    trainer = PretrainTrainer(config, run)
    trainer.train(until)
    return trainer


def gradients(config: PretrainConfig) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Of the backbone at step 0, and the values of the step."""
    learner = PretrainLearner(config, "cpu")
    values = learner.gradient(PretrainFeed(config, "cpu", 16).batch(0))
    found = {n: p.grad for n, p in learner.model.backbone.named_parameters() if p.grad is not None}
    return found, values


def test_the_gradient_is_the_weighted_sum_of_the_tasks(toy: PretrainConfig) -> None:
    toy = dataclasses.replace(toy, optim=dataclasses.replace(toy.optim, clip=1e9))
    whole, values = gradients(toy)
    total = {name: torch.zeros_like(g) for name, g in whole.items()}
    parts = (TaskWeights(geometry=0, caption=0), TaskWeights(ssl=0, caption=0), TaskWeights(ssl=0, geometry=0))
    loss = torch.zeros(())
    for weights in parts:
        alone, terms = gradients(dataclasses.replace(toy, weights=weights))
        loss = loss + terms["loss"]
        for name, gradient in alone.items():
            total[name] += gradient
    torch.testing.assert_close(values["loss"], loss)
    for name, gradient in whole.items():
        torch.testing.assert_close(gradient, total[name], rtol=1e-3, atol=1e-6)
    expected = {"image_dino", "video_dino", "image_ibot", "video_gram", "geometry", "depth", "caption", "norm", "loss"}
    assert expected <= values.keys()


def test_a_step_moves_student_and_teacher_and_no_anchor(toy: PretrainConfig) -> None:
    learner = PretrainLearner(toy, "cpu")
    before = {k: v.clone() for k, v in learner.parts.state_dict().items()}
    learner.gradient(PretrainFeed(toy, "cpu", 16).batch(0))
    learner.update()
    moved = {k for k, v in learner.parts.state_dict().items() if not torch.equal(v, before[k])}
    for name in ("model.backbone.blocks.0.attn.qkv.weight", "caption.decoder.model.layers.0.mlp.up_proj.weight"):
        assert name in moved
    assert "ssl.teacher.backbone.blocks.0.attn.qkv.weight" in moved and "ssl.teacher.heads.dino.mlp.0.weight" in moved
    assert "model.heads.camera.fov.weight" in moved and "ssl.heads.ibot.mlp.0.weight" in moved
    assert not [name for name in moved if name.startswith("ssl.anchor") or name.startswith("ssl.heads.dino.prototypes")]


def test_without_a_task_nothing_of_it_is_built(toy: PretrainConfig) -> None:
    toy = dataclasses.replace(toy, weights=TaskWeights(ssl=0, caption=0))
    learner, feed = PretrainLearner(toy, "cpu"), PretrainFeed(toy, "cpu", 16)
    assert learner.ssl is None and learner.captioner is None
    batch = feed.batch(0)
    assert batch.views == () and batch.asked is None and feed.description == "live worlds"


def test_without_video_the_pictures_stay(toy: PretrainConfig) -> None:
    batch = PretrainFeed(dataclasses.replace(toy, ssl=dataclasses.replace(toy.ssl, clips=0)), "cpu", 16).batch(0)
    assert [views.times.shape for views in batch.views] == [(3, 1)]


def test_a_batch_is_a_function_of_the_step(toy: PretrainConfig) -> None:
    one, two = (PretrainFeed(toy, "cpu", 16) for _ in range(2))
    one.batch(0)
    a, b, c = one.batch(3), two.batch(3), two.batch(4)
    assert same(a.state(), b.state()) and not same(b.state(), c.state())
    assert a.asked is not None and b.asked is not None and a.asked.questions == b.asked.questions
    views = 4 * 3 + 4 * 2 * 2  # of 3 pictures and of 2 clips of 2 frames
    assert a.frames == 2 * 2 + views + 3


def test_stopping_anywhere_changes_nothing(toy: PretrainConfig, tmp_path: Path) -> None:
    train(toy, tmp_path / "whole")
    for stop in (1, 2, 4, 6):
        train(toy, tmp_path / f"cut{stop}", stop)
        train(toy, tmp_path / f"cut{stop}")
        assert same(state(tmp_path / "whole"), state(tmp_path / f"cut{stop}")), f"stopped after step {stop}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_ten_times_at_random_moments_it_ends_with_equal_weights(toy: PretrainConfig, tmp_path: Path) -> None:
    toy = dataclasses.replace(
        toy, stages=tuple(dataclasses.replace(s, steps=20) for s in toy.stages), eval_every=0, log_every=1
    )
    save_config(toy, tmp_path / "wanted.yaml")
    train(toy, tmp_path / "whole")
    run, draw = tmp_path / "killed", random.Random(0)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOAD)
    kills, finished = 0, False
    while not finished:
        seen = _last_step(run)
        child = server.Process(target=go_on, args=(tmp_path / "wanted.yaml", run))
        child.start()
        if kills < 10:
            target = seen + draw.randint(1, 4)
            while child.is_alive() and _last_step(run) < min(target, toy.steps - 1):
                time.sleep(0.01)
            time.sleep(draw.random() * 0.1)  # in the middle of a task, of a save, anywhere
        if kills < 10 and child.is_alive():
            child.kill()
            child.join()
            kills += 1
        else:
            child.join()
            assert child.exitcode == 0, "the run failed; what it said is above"
            finished = True
    assert kills == 10
    assert same(state(tmp_path / "whole"), state(run))


def go_on(wanted: Path, run: Path) -> None:
    """In a process of its own: start the run, or go on with it."""
    PRESETS["micro"] = MICRO
    run_pretrain(load_config(wanted, PretrainConfig()), run, Where(device="cpu", threads=1))


def _last_step(run: Path) -> int:
    """Newest step in the journal."""
    steps = [0]
    journal = run / "log.jsonl"
    for line in journal.read_text().splitlines() if journal.exists() else ():
        try:
            steps.append(json.loads(line)["step"])
        except json.JSONDecodeError:
            continue
    return steps[-1]


def test_what_a_run_leaves(toy: PretrainConfig, tmp_path: Path) -> None:
    train(toy, tmp_path)
    model = omnistream.load_model(tmp_path / "weights")
    assert set(model.config.outputs) == {"features", "depth", "rays", "pose"}
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    kinds = {line["kind"] for line in lines}
    assert kinds == {"start", "train", "cut", "eval_caption", "eval", "end_caption", "end"}
    caption = next(line for line in lines if line["kind"] == "end_caption")
    assert caption["caption"] > 0 and caption["caption_strangers"] > 0
    assert {"image_dino", "video_ibot", "caption", "depth", "waiting"} <= next(
        x for x in lines if x["kind"] == "train"
    ).keys()


def test_answers_that_are_too_long_are_counted(toy: PretrainConfig, tmp_path: Path, capsys: Any) -> None:
    short = dataclasses.replace(toy.caption, max_tokens=24, describe=1.0, list=0.0, ground=0.0, read=0.0)
    trainer = PretrainTrainer(dataclasses.replace(toy, caption=short), tmp_path)
    trainer.train(2)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["answers"] for line in lines if line["kind"] == "cut"] == [6]  # two steps of three pictures
    assert "longer than caption.max_tokens, 24, are cut" in capsys.readouterr().err
    assert trainer.captions()["caption_cut"] == 4


def test_another_initial_model_is_refused(toy: PretrainConfig, tmp_path: Path) -> None:
    save_model(random_model(MICRO, 0), tmp_path / "start", made_by="a test")
    model = dataclasses.replace(toy.model, start=str(tmp_path / "start"))
    toy = dataclasses.replace(toy, model=model, eval_every=0)
    train(toy, tmp_path / "run", 2)
    save_model(random_model(MICRO, 1), tmp_path / "start", made_by="a test", overwrite=True)
    with pytest.raises(CheckpointError, match="not the one this run began with"):
        PretrainTrainer(toy, tmp_path / "run")


def test_the_command_trains_goes_on_and_refuses(toy: PretrainConfig, tmp_path: Path, capsys: Any) -> None:
    save_config(toy, tmp_path / "toy.yaml")
    run = str(tmp_path / "run")
    arguments = ["pretrain", run, "--config", str(tmp_path / "toy.yaml"), "--device", "cpu", "--threads", "1"]
    assert main([*arguments, "--stop-after", "0"]) == 1
    assert main(["pretrain", run, "--device", "cpu", "--threads", "1"]) == 0
    assert load_config(tmp_path / "run" / "config.yaml", PretrainConfig()) == toy
    made_by = open_checkpoint(tmp_path / "run" / "weights").info["made_by"]
    assert made_by == f"omnistream-train pretrain RUN {' '.join(arguments[2:])} --stop-after 0"
    assert main([*arguments, "--weights.caption", "0"]) == 2
    assert "differs in weights" in capsys.readouterr().err
    assert main(["pretrain", run, "--preset", "tabletop_small", "--device", "cpu"]) == 2
    assert "differs in model" in capsys.readouterr().err
    save_config(dataclasses.replace(toy, seed=5), tmp_path / "other.yaml")
    assert main(["pretrain", run, "--config", str(tmp_path / "other.yaml"), "--device", "cpu"]) == 2
    assert "differs in seed" in capsys.readouterr().err


def test_a_run_of_an_older_release_goes_on(
    toy: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setitem(RUNS, "toy", dataclasses.replace(toy, keep_last=5, log_every=9))
    save_config(dataclasses.replace(toy, keep_last=2, log_every=20), tmp_path / "toy.yaml")  # the defaults
    arguments = ["pretrain", str(run), "--device", "cpu", "--threads", "1"]
    assert main([*arguments, "--config", str(tmp_path / "toy.yaml"), "--stop-after", "0"]) == 1

    def older(data: dict[str, Any]) -> dict[str, Any]:
        assert data.pop("keep_last") == 2 and data.pop("log_every") == 20 and data["ssl"].pop("shared_centring")
        return data

    config = run / "config.yaml"
    config.write_text(yaml.safe_dump(older(yaml.safe_load(config.read_text()))))
    for path in (run / "state").glob("step_*/run.json"):
        plain = json.loads(path.read_text())
        path.write_text(json.dumps(plain | {"config": older(plain["config"])}))
    monkeypatch.setattr("omnistream_training.pretrain.command.DEFAULT_PRESET", "toy")  # what it sets is not the run's
    assert main(arguments) == 0
    plain = dict(read_state(max((run / "state").glob("step_????????")))[0])
    assert plain["config"]["keep_last"] == 2 and plain["config"]["log_every"] == 20


def test_the_papers_presets_ask_for_what_they_start_from(tmp_path: Path, capsys: Any) -> None:
    assert main(["pretrain", str(tmp_path / "a"), "--preset", "paper_vitl_stage1"]) == 2
    assert "model.start is missing" in capsys.readouterr().err
    assert main(["pretrain", str(tmp_path / "a"), "--preset", "paper_vitl_stage1", "--model.start", "x"]) == 2
    assert "caption.language_model is missing" in capsys.readouterr().err
    missing = ["--preset", "tabletop_tiny", "--ssl.pictures", str(tmp_path / "none"), "1", "--device", "cpu"]
    assert main(["pretrain", str(tmp_path / "a"), *missing]) == 3
    assert not (tmp_path / "a").exists()


def test_presets_hold_the_papers_numbers() -> None:
    one, two = RUNS["paper_vitl_stage1"], RUNS["paper_vitl_stage2"]
    assert (one.weights.ssl, one.weights.geometry, one.weights.caption) == (0.1, 1.0, 1.0)
    assert (one.steps, two.steps) == (60_000, 120_000)
    assert one.stages[0].frames == two.stages[0].frames == one.ssl.frames == 16
    assert one.stages[0].size == (224, 224) and two.stages[0].size == (512, 512)
    for run in (one, two):
        assert (run.optim.lr, run.optim.warmup, run.optim.weight_decay) == (1e-4, 4000, 0.0)
        assert (run.ssl.local_crops, run.ssl.prototypes, run.ssl.bottleneck) == (2, 65536, 256)
        assert PRESETS[run.model.preset].backbone.dim == 1024
        assert run.model.scale == "relative"  # "targets normalised"


def test_strides_of_video_are_log_uniform_too(toy: PretrainConfig) -> None:
    stages = tuple(dataclasses.replace(stage, stride=(1, 15)) for stage in toy.stages)
    feed = PretrainFeed(dataclasses.replace(toy, stages=stages, weights=TaskWeights(geometry=0, caption=0)), "cpu", 16)
    read, strides = feed.sources[0].read, []

    def counted(request: ClipRequest) -> ClipBatch:
        if request.frames > 1:
            strides.append(request.stride)
        return read(dataclasses.replace(request, size=(16, 16)))

    feed.sources[0].read = counted  # type: ignore[method-assign]
    for step in range(60):
        feed.batch(step)
    assert {1, 2} < set(strides) <= set(range(1, 16))
    assert 18 < sum(stride < 4 for stride in strides) < 42  # half; drawn evenly it would be a fifth


def test_held_out_questions_are_the_same_for_every_run_and_shared_out_by_weight(toy: PretrainConfig) -> None:
    one, other = (PretrainFeed(dataclasses.replace(toy, seed=seed), "cpu", 16) for seed in (0, 1))
    a, b = (feed.held_out_asked(4, 4) for feed in (one, other))
    assert torch.equal(a.images, b.images) and a.questions == b.questions
    worlds, _ = one.questions[0]
    rare, often = copy.copy(worlds), copy.copy(worlds)
    one.questions = [(rare, 1.0), (often, 3.0)]
    assert [one._in_turn(turn) is rare for turn in range(8)].count(True) == 2


def test_a_run_without_any_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="not all 0"):
        TaskWeights(ssl=0, geometry=0, caption=0)
