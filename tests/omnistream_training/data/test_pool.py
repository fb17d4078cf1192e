# SPDX-License-Identifier: Apache-2.0
"""Pools: every clip rendered once, the same whatever the workers, whole after an interruption, drawn from by number."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnistream.errors import ConfigError
from omnistream_training.config import DataConfig, Stage, TrainConfig
from omnistream_training.data import pool
from omnistream_training.data.feed import Feed
from omnistream_training.data.live import open_live
from omnistream_training.data.pool import BLOCK, PoolConfig, PoolSource, render_blocks
from omnistream_training.data.source import HELD_OUT, ClipRequest

PLANES = "tests.omnistream_training.scenes:Planes"
SMALL = PoolConfig(live=PLANES, clips=40, frames=6, rate=7.5, size=(32, 32))


def request(*numbers: int, frames: int = 2, stride: int = 4, size: tuple[int, int] = (32, 32)) -> ClipRequest:
    return ClipRequest(numbers=numbers, frames=frames, size=size, stride=stride)


def test_clips_are_rendered_once_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = PoolSource(SMALL, 30.0, 0, tmp_path).read(request(1, 2, 3))
    monkeypatch.setattr(pool, "render_block", lambda *_: pytest.fail("rendered a second time"))
    again = PoolSource(SMALL, 30.0, 0, tmp_path).read(request(1, 2, 3))
    assert all(torch.equal(a, b) for a, b in zip(first.state().values(), again.state().values(), strict=True))


def test_a_clip_is_part_of_what_the_renderer_gives(tmp_path: Path) -> None:
    batch = PoolSource(SMALL, 30.0, 0, tmp_path).read(request(5, frames=6))
    rendered = open_live(PLANES, {}, 30.0)
    clips = [rendered.read(request(number, frames=6)) for number in range(2 * BLOCK)]
    same = [c for c in clips if torch.equal(c.images, batch.images)]
    assert len(same) == 1
    torch.testing.assert_close(batch.depth, same[0].depth, rtol=1e-3, atol=0, equal_nan=True)  # float16 on disk
    torch.testing.assert_close(batch.T_world_camera, same[0].T_world_camera)
    assert torch.equal(batch.times, same[0].times)


def test_strides_become_multiples_of_the_pool_s_period_and_times_say_so(tmp_path: Path) -> None:
    source = PoolSource(SMALL, 30.0, 0, tmp_path)
    for stride, step in ((1, 4), (4, 4), (9, 8), (20, 20), (60, 20)):  # 7.5 of 30 Hz; six frames allow steps of five
        assert source.read(request(0, stride=stride)).times.tolist() == [[0, step]]


def test_held_out_clips_are_others(tmp_path: Path) -> None:
    source = PoolSource(SMALL, 30.0, 0, tmp_path)

    def clips(start: int) -> set[bytes]:
        batch = source.read(request(*range(start, start + 300), frames=6))
        return {
            depth.numpy().tobytes() + images.numpy().tobytes()
            for depth, images in zip(batch.depth, batch.images, strict=True)
        }

    assert len(clips(0)) > 30
    assert not clips(0) & clips(HELD_OUT)


def test_an_interrupted_pool_is_completed_and_a_larger_one_reuses_it(tmp_path: Path) -> None:
    folder = SMALL.folder(tmp_path)
    render_blocks(SMALL, folder, [0], workers=0)
    before = (folder / "00000000" / "rgb.npy").stat().st_mtime_ns
    (folder / "00000001.partial123").mkdir()  # what a killed process leaves
    PoolSource(dataclasses.replace(SMALL, clips=70), 30.0, 0, tmp_path)
    assert {int(p.name) for p in folder.glob("????????") if p.name < "00000100"} == {0, 1, 2}
    assert (folder / "00000000" / "rgb.npy").stat().st_mtime_ns == before


def test_of_two_processes_that_render_a_block_one_is_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SMALL.folder(tmp_path)
    save = np.save

    def late(*arguments: Any) -> None:  # the other is there when this one begins to write
        monkeypatch.setattr(pool.np, "save", save)
        pool.render_block(SMALL, folder, 0)
        save(*arguments)

    monkeypatch.setattr(pool.np, "save", late)
    pool.render_block(SMALL, folder, 0)
    assert [path.name for path in folder.iterdir()] == ["00000000"]
    assert len(list((folder / "00000000").iterdir())) == 4


def test_smaller_pictures_and_what_cannot_be(tmp_path: Path) -> None:
    source = PoolSource(SMALL, 30.0, 0, tmp_path)
    assert source.read(request(0, size=(16, 16))).images.shape == (1, 2, 3, 16, 16)
    with pytest.raises(ConfigError, match=r"clips of 7 frames .* have 6"):
        source.read(request(0, frames=7))
    with pytest.raises(ConfigError, match="clips 0"):
        PoolConfig(clips=0)


def test_a_run_draws_from_renderer_and_pool_by_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = DataConfig(live=PLANES, live_weight=1.0, pools=(dataclasses.replace(SMALL, weight=3.0),), workers=0)
    config = TrainConfig(data=data, stages=(Stage(steps=60, clips=1, frames=2, size=(32, 32), stride=(1, 1)),))
    feed = Feed(config, "cpu")
    from_pool = sum(float(feed.batch(step).times[0, 1]) == 4 for step in range(60))
    assert 35 <= from_pool <= 55
    assert "pool of 64 clips" in feed.description
