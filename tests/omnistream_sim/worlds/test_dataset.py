# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk: everything here can read them, stopped runs go on, equal options give equal files."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from omnistream.errors import ConfigError, InputError
from omnistream.io import open_source
from omnistream_sim import cli
from omnistream_sim.dataset import Progress, clip_folder, duration, generate, read_shard
from omnistream_sim.worlds.config import WorldConfig
from omnistream_sim.worlds.dataset import WorldsDataset

SMALL = WorldsDataset(clips=10, frames=3, size=(24, 32), rate=6.0, seed=2, worlds=WorldConfig(outdoor=0))


def _quiet(done: int, total: int) -> None:
    del done, total


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_every_clip_is_a_recording(tmp_path: Path) -> None:
    assert generate(tmp_path, SMALL, progress=_quiet) == 10
    source = open_source(clip_folder(tmp_path, 7))
    assert len(source) == 3 and source.rate == 6.0 and "In view" in source.description
    frames = list(source)
    assert frames[0].image.shape == (24, 32, 3) and frames[0].depth is not None and frames[0].K is not None
    assert frames[0].T_world_camera is not None and frames[2].T_world_camera is not None
    assert np.array_equal(frames[0].T_world_camera, np.eye(4))
    assert 0 < np.linalg.norm(frames[2].T_world_camera[:3, 3]) < 3
    assert [f.stamp for f in frames] == pytest.approx([0, 1 / 6, 2 / 6])
    assert 0.05 < np.nanmedian(frames[0].depth) < 10


def test_a_stopped_run_goes_on_and_gives_the_same_files(tmp_path: Path) -> None:
    generate(tmp_path / "whole", SMALL, progress=_quiet)

    def stop(done: int, total: int) -> None:
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "cut", SMALL, progress=stop)
    assert 0 < len(list((tmp_path / "cut" / "0000").glob("[0-9]*"))) <= 10
    removed = clip_folder(tmp_path / "cut", 4)
    if removed.exists():
        removed.rename(removed.with_name(".0000004.partial"))  # as if it had been killed while writing
    assert generate(tmp_path / "cut", SMALL, workers=2, progress=_quiet) >= 1
    assert _digest(tmp_path / "cut") == _digest(tmp_path / "whole")
    assert generate(tmp_path / "cut", SMALL, progress=_quiet) == 0


def test_another_data_set_is_not_mixed_in(tmp_path: Path) -> None:
    generate(tmp_path / "set", SMALL, progress=_quiet)
    other = WorldsDataset(clips=10, frames=3, size=(24, 32), rate=6.0, seed=3, worlds=WorldConfig(outdoor=0))
    with pytest.raises(InputError, match="another data set"):
        generate(tmp_path / "set", other, progress=_quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match=r"not empty and has no dataset\.yaml"):
        generate(tmp_path / "mine", SMALL, progress=_quiet)


def test_labels_lie_beside_the_recording(tmp_path: Path) -> None:
    options = WorldsDataset(clips=1, frames=2, size=(16, 16), labels=("ids", "normals", "flow", "scene_flow"))
    generate(tmp_path, options, progress=_quiet)
    with np.load(clip_folder(tmp_path, 0) / "labels.npz", allow_pickle=False) as labels:
        assert labels["ids"].shape == (2, 16, 16) and labels["ids"].dtype == np.uint8
        assert labels["flow"].shape == (2, 16, 16, 2) and labels["scene_flow"].shape == (2, 16, 16, 3)
        assert labels["normals"].shape == (2, 16, 16, 3)
        names = json.loads(str(labels["names"]))
    assert all(str(i) in names for i in np.unique(_ids(tmp_path)) if i)


def _ids(folder: Path) -> np.ndarray:
    with np.load(clip_folder(folder, 0) / "labels.npz", allow_pickle=False) as labels:
        return labels["ids"]


def test_shards_hold_the_clips_in_order_and_are_equal_bytes(tmp_path: Path) -> None:
    options = WorldsDataset(clips=5, frames=2, size=(16, 24), shards=2, seed=4, labels=("ids",))
    generate(tmp_path / "a", options, progress=_quiet)
    generate(tmp_path / "b", options, workers=2, progress=_quiet)
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b")
    shards = sorted((tmp_path / "a" / "shards").glob("*.tar"))
    assert [s.name for s in shards] == ["worlds-000000.tar", "worlds-000001.tar", "worlds-000002.tar"]
    samples = [sample for shard in shards for sample in read_shard(shard)]
    assert [key for key, _ in samples] == [f"{n:09d}" for n in range(5)]
    arrays = samples[0][1]
    assert arrays["rgb"].shape == (2, 16, 24, 3) and arrays["rgb"].dtype == np.uint8
    assert arrays["depth"].shape == (2, 16, 24) and arrays["depth"].dtype == np.float16
    assert (
        arrays["T_world_camera"].shape == (2, 4, 4)
        and arrays["K"].shape == (3, 3)
        and arrays["ids"].shape == (2, 16, 24)
    )
    assert isinstance(arrays["text"], str) and arrays["text"]


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    generate(tmp_path, WorldsDataset(clips=2, frames=1, size=(16, 16), shards=2), progress=_quiet)
    shard = tmp_path / "shards" / "worlds-000000.tar"
    shard.write_bytes(shard.read_bytes()[:1500])
    with pytest.raises(InputError, match=r"worlds-000000\.tar: not a complete shard"):
        list(read_shard(shard))
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w") as tar:
        info = tarfile.TarInfo("0.npz")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(InputError, match="not a complete shard"):
        list(read_shard(empty))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"clips": 0}, "clips is 0"), ({"labels": ("colour",)}, "label 'colour'"), ({"rate": 0.0}, "rate 0.0")],
)
def test_options_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WorldsDataset(**{"clips": 1, **change})  # type: ignore[arg-type]


def test_progress_says_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    said: list[str] = []
    progress = Progress(said.append, "clips", frames=8)
    progress(20, 100)  # 20 were there already
    clock[0] = 10.0
    progress(40, 100)
    assert said[-1].strip() == "40/100 clips, 16 frames/s, 30 s left"
    clock[0] = 40.0
    progress(100, 100)
    assert said[-1].strip() == "100/100 clips, 16 frames/s" and said[-1].endswith("\n")
    assert duration(3900) == "1 h 05 min" and duration(200) == "3 min 20 s"


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--clips", "2", "--frames", "2", "--size", "16", "--options", "tabletop=1", "room=0"]
    assert cli.main(["generate", "worlds", str(tmp_path / "set"), *arguments]) == 0
    assert "2 clips of 2 frames, 2 of them new" in capsys.readouterr().out
    assert cli.main(["generate", "worlds", str(tmp_path / "set"), "--clips", "3"]) == 1
    assert "another data set" in capsys.readouterr().err
    assert cli.main(["generate", "worlds", str(tmp_path / "x"), "--clips", "1", "--options", "tabletop"]) == 2
    assert "NAME=VALUE" in capsys.readouterr().err
    assert cli.main(["generate", "worlds", str(tmp_path / "x"), "--clips", "1", "--options", "chairs=1"]) == 2
    assert "unknown option 'chairs'" in capsys.readouterr().err
    sheet = ["--out", str(tmp_path / "sheet.png"), "--clips", "2", "--size", "32", "--quality", "flat"]
    assert cli.main(["view", "worlds", *sheet]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    small = ["--size", "16", "--frames", "1", "--clips", "2", "--repeats", "1"]
    assert cli.main(["bench", "worlds", "--out", str(tmp_path / "bench.json"), *small]) == 0
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["rows"]["rgb and depth, fast"]["frames_per_s"] > 0 and "environment" in report
