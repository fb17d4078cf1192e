# SPDX-License-Identifier: Apache-2.0
"""Batches are pure functions of the step; live sources plug in by name."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint

import pytest
import torch

from omnistream.errors import ConfigError, InputError
from omnistream_training.config import DataConfig, Stage, TrainConfig
from omnistream_training.data import live
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.feed import Feed
from omnistream_training.data.source import HELD_OUT

PLANES = "tests.omnistream_training.scenes:Planes"


def config(**changes: object) -> TrainConfig:
    stages = (Stage(steps=3, clips=2, frames=2, size=(32, 32)), Stage(steps=2, clips=1, frames=3, size=(32, 48)))
    return dataclasses.replace(TrainConfig(data=DataConfig(live=PLANES), stages=stages), **changes)  # type: ignore[arg-type]


def equal(a: ClipBatch, b: ClipBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state().values(), b.state().values(), strict=True))


def test_a_batch_depends_on_the_step_and_on_nothing_before_it() -> None:
    feed = Feed(config(), "cpu")
    forwards = [feed.batch(step) for step in range(5)]
    backwards = [Feed(config(), "cpu").batch(step) for step in (4, 3, 2, 1, 0)][::-1]
    assert all(equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert all(equal(a, b) for a, b in zip(forwards[2:], feed.iterate(2, 5), strict=True))


def test_stages_change_the_shape_at_their_step() -> None:
    shapes = [tuple(Feed(config(), "cpu").batch(step).depth.shape) for step in range(5)]
    assert shapes == [(2, 2, 32, 32)] * 3 + [(1, 3, 32, 48)] * 2


def test_no_clip_comes_twice_and_seeds_do_not_share_clips() -> None:
    first, second = Feed(config(), "cpu"), Feed(config(seed=1), "cpu")
    batches = [feed.batch(step) for feed in (first, second) for step in range(5)]
    depths = [float(clip.flatten()[0]) for batch in batches for clip in batch.depth]
    assert len(set(depths)) == len(depths) == 16


def test_strides_are_drawn_from_the_whole_range_and_times_say_so() -> None:
    stage = Stage(steps=200, clips=1, frames=2, size=(16, 16), stride=(2, 5))
    feed = Feed(config(stages=(stage,)), "cpu")
    strides = {int(feed.batch(step).times[0, 1]) for step in range(60)}
    assert strides == {2, 3, 4, 5}


def test_held_out_clips_are_the_same_for_every_run() -> None:
    a, b = (Feed(config(seed=seed), "cpu").held_out(0, range(2), 3) for seed in (0, 9))
    assert equal(a, b)


def test_seeds_of_held_out_clips_differ_from_those_of_training_in_the_bits_that_torch_uses() -> None:
    train = {live.seed_of(n) & 0xFFFFFFFF for n in range(2000)}
    held = {live.seed_of(HELD_OUT + n) & 0xFFFFFFFF for n in range(200)}
    assert len(train) == 2000 and not train & held


def test_a_source_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("planes", PLANES, live.GROUP)
    monkeypatch.setattr(live, "entry_points", lambda group: [point] if group == live.GROUP else [])
    assert Feed(config(data=DataConfig(live="planes")), "cpu").batch(0).frames == 4
    with pytest.raises(ConfigError, match="'worlds' is not installed.*: planes"):
        live.open_live("worlds", {}, 30.0)


@pytest.mark.parametrize("name", ["no.such.module:source", "tests.omnistream_training.scenes:Nothing"])
def test_a_path_that_leads_nowhere_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        live.open_live(name, {}, 30.0)


def test_options_that_a_source_does_not_know_are_named() -> None:
    with pytest.raises(ConfigError, match="refused the options.*colour"):
        live.open_live(PLANES, {"colour": "red"}, 30.0)


def test_a_batch_with_a_wrong_shape_is_refused() -> None:
    batch = Feed(config(), "cpu").batch(0)
    with pytest.raises(InputError, match=r"ClipBatch\.depth is \(2, 2, 16, 32\); expected \(2, 2, 32, 32\)"):
        dataclasses.replace(batch, depth=batch.depth[..., ::2, :])
