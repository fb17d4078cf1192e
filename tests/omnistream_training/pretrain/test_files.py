# SPDX-License-Identifier: Apache-2.0
"""A pre-training run on files alone: pictures, videos, texts and recordings; and on files that change under it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omnistream.errors import ConfigError
from omnistream_training.ablation.plan import readout_config
from omnistream_training.caption.config import CaptionConfig
from omnistream_training.config import DataConfig, ModelChoice
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.feed import PretrainFeed
from omnistream_training.pretrain.trainer import PretrainTrainer
from omnistream_training.ssl.config import SslConfig
from tests.omnistream_training.data.test_layouts import tartanair
from tests.omnistream_training.pretrain.test_pretrain import TOY, same
from tests.omnistream_training.test_corpus import jpeg, picture_shards, shard, video

pytest.importorskip("transformers")


@pytest.fixture
def toy(micro: str) -> PretrainConfig:
    return dataclasses.replace(TOY, model=ModelChoice(preset=micro))


@pytest.fixture
def files(micro: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretrainConfig:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pictures = picture_shards(tmp_path / "pictures")
    video(tmp_path / "videos" / "a.mp4")
    stages = tuple(dataclasses.replace(stage, frames=2, size=(32, 32)) for stage in TOY.stages)
    return dataclasses.replace(
        TOY,
        model=ModelChoice(preset=micro),
        stages=stages,
        data=dataclasses.replace(TOY.data, live=None, folders=(str(tartanair(tmp_path / "tartanair")),)),
        recordings={str(tmp_path / "tartanair"): 3.0},
        ssl=dataclasses.replace(
            TOY.ssl, pictures={str(pictures): 1.0}, videos={str(tmp_path / "videos"): 1.0}, data_weight=0.0
        ),
        caption=dataclasses.replace(TOY.caption, live=None, data={str(pictures): 1.0}),
        weights=dataclasses.replace(TOY.weights, geometry=1.0),
        eval_every=0,
        eval_clips=1,
        eval_frames=1,
        save_every=1,
    )


def test_every_task_draws_from_its_files(files: PretrainConfig) -> None:
    feed = PretrainFeed(files, "cpu", 16)
    for words in ("1 recordings", "pictures: 3 shards", "videos: 1 samples", "texts: 3 shards"):
        assert words in feed.description
    batch = feed.batch(3)
    assert batch.depth.isfinite().any() and batch.asked is not None
    assert {question.answer.split()[0] for question in batch.asked.questions} == {"picture"}
    stills, clips = batch.views
    assert stills.times.shape == (3, 1) and clips.times.shape == (2, 2)
    again = PretrainFeed(files, "cpu", 16).batch(3)
    assert same(batch.state(), again.state()) and again.asked is not None
    assert batch.asked.questions == again.asked.questions
    (only,) = list(feed.iterate(3, 4))  # read ahead, in threads
    assert same(only.state(), batch.state())


def test_parts_of_a_step_are_different_and_shared_out(files: PretrainConfig) -> None:
    from omnistream_training.distributed import Processes

    four = dataclasses.replace(files, micro_batches=4)
    second = PretrainFeed(four, "cpu", 16, Processes(rank=1, world=2))
    assert list(second.parts) == [1, 3]
    assert not same(second.batch(0, 1).state(), second.batch(0, 3).state())
    with pytest.raises(ConfigError, match="micro_batches is 4 and there are 3 processes; .* --micro-batches 6"):
        PretrainFeed(four, "cpu", 16, Processes(rank=0, world=3))
    with pytest.raises(ConfigError, match="1024 clips a step at most"):
        PretrainFeed(dataclasses.replace(files, micro_batches=1024), "cpu", 16)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SslConfig(data_weight=0, pictures={"a": 0.0}, videos={"b": 1.0}), "data_weight and pictures are"),
        (lambda: SslConfig(videos={"b": -1.0}), "data_weight and videos are"),
        (lambda: CaptionConfig(live_weight=0), "live_weight 0, data {}: expected weights of 0 or more, not all 0"),
        (lambda: CaptionConfig(live=None, data={"a": 0.0}), "not all 0"),
        (lambda: PretrainConfig(recordings={"a": -1.0}), "recordings are"),
    ],
)
def test_weights_that_nothing_can_be_drawn_by(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()
    CaptionConfig(live=None, live_weight=0, data={"a": 1.0})


def test_files_that_change_and_break_are_in_the_journal(files: PretrainConfig, tmp_path: Path) -> None:
    PretrainTrainer(files, tmp_path / "run").train(1)
    for path in sorted((tmp_path / "pictures").glob("*.tar")):
        shard(path, [{"jpg": jpeg(), "json": {"caption": "picture"}}, {"jpg": b"none", "json": {"caption": "x"}}] * 15)
    depth = sorted((tmp_path / "tartanair").rglob("*.npy"))[0]
    np.save(depth, np.load(depth).astype(np.float64))
    PretrainTrainer(files, tmp_path / "run").train(3)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    by_kind = {line["kind"]: line for line in lines}
    changed = by_kind["data_changed"]
    assert changed["step"] == 1
    recorded = [f"data.folders {tmp_path / 'tartanair'}", f"recordings {tmp_path / 'tartanair'}"]
    pictures = [f"{option} {tmp_path / 'pictures'}" for option in ("ssl.pictures", "caption.data")]
    assert changed["sources"] == [*recorded, *pictures]
    assert by_kind["damaged"]["samples"] >= 1


def test_recordings_alone_are_data(files: PretrainConfig, tmp_path: Path) -> None:
    alone = dataclasses.replace(files, data=DataConfig(live=None))
    assert PretrainFeed(alone, "cpu", 16).batch(0).depth.isfinite().any()
    assert readout_config(alone, tmp_path, 2, 0).data.folders == tuple(alone.recordings)
    with pytest.raises(ConfigError, match="data has no source"):
        dataclasses.replace(alone, recordings={})
    with pytest.raises(ConfigError, match="data has no source"):
        dataclasses.replace(alone, recordings={"a": 0.0})


def test_without_geometry_no_clips_are_drawn(files: PretrainConfig, toy: PretrainConfig) -> None:
    without = dataclasses.replace(files.weights, geometry=0.0)
    alone = dataclasses.replace(files, weights=without, data=DataConfig(live=None), recordings={})
    feed = PretrainFeed(alone, "cpu", 16)
    batch = feed.batch(0)
    views = 4 * 3 + 4 * 2 * 2
    assert not feed.sources and batch.frames == views + 3
    drawn: list[int] = []
    feed = PretrainFeed(dataclasses.replace(toy, weights=without), "cpu", 16)
    read = feed.sources[0].read
    feed.sources[0].read = lambda request: drawn.append(len(request.numbers)) or read(request)  # type: ignore
    assert feed.batch(0).frames == views + 3 and drawn == [3, 2]  # self-supervision's pictures and clips, nothing else
