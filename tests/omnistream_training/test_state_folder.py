# SPDX-License-Identifier: Apache-2.0
"""States of a run on disk: whole or not there, kept as long as told, and set aside where they are damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from omnistream.errors import CheckpointError
from omnistream_training.distributed import Processes, join
from omnistream_training.state_folder import StateFolder, read_state


def states(folder: Path, **keep: int) -> StateFolder:
    return StateFolder(folder / "state", Processes(), **keep)


def save(folder: StateFolder, step: int) -> None:
    folder.save(step, {"a.weight": torch.full((3, 2), float(step)), "count": torch.tensor(step)}, {"step": step})


def load(folder: StateFolder) -> tuple[Any, dict[str, torch.Tensor]]:
    """Plain data and tensors of the newest state."""
    seen: dict[str, Any] = {}

    def accept(plain: Any, sizes: Any) -> dict[str, torch.Tensor]:
        tensors = {name: torch.zeros(size, dtype=dtype) for name, (size, dtype) in sizes.items()}
        seen.update(plain=plain, tensors=tensors)
        return tensors

    assert folder.load(accept)
    return seen["plain"], seen["tensors"]


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    folder = states(tmp_path)
    assert not folder.load(lambda plain, sizes: {})
    save(folder, 7)
    plain, tensors = load(folder)
    assert plain["step"] == 7 and tensors["count"] == 7 and tensors["count"].dtype == torch.int64
    assert tensors["a.weight"].shape == (3, 2) and bool((tensors["a.weight"] == 7).all())
    assert read_state(folder.path(7))[0] == plain


def test_the_last_and_every_so_many_are_kept(tmp_path: Path) -> None:
    folder = states(tmp_path, keep_last=2, keep_every=4)
    for step in range(1, 8):
        save(folder, step)
    assert folder.steps() == [4, 6, 7]


def test_a_state_that_was_not_finished_is_none(tmp_path: Path) -> None:
    folder = states(tmp_path)
    save(folder, 1)
    shutil.copytree(folder.path(1), tmp_path / "state" / "step_00000002.partial")  # killed before the renaming
    assert folder.steps() == [1] and load(folder)[0]["step"] == 1
    save(folder, 2)
    assert folder.steps() == [1, 2] and not list((tmp_path / "state").glob("*.partial"))


@pytest.mark.parametrize("victim", [".metadata", "__0_0.distcp", "run.json"])
def test_a_damaged_state_is_set_aside_for_the_one_before(tmp_path: Path, victim: str, capsys: Any) -> None:
    folder = states(tmp_path)
    save(folder, 1)
    save(folder, 2)
    file = folder.path(2) / victim
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert load(folder)[0]["step"] == 1
    assert "step_00000002 is damaged" in capsys.readouterr().err
    assert folder.steps() == [1] and (tmp_path / "state" / "step_00000002.damaged").exists()
    (folder.path(1) / victim).unlink()
    assert not folder.none_yet()
    with pytest.raises(CheckpointError, match="no usable training state: .*step_00000001 is damaged"):
        load(folder)
    with pytest.raises(CheckpointError, match="only step_00000001.damaged, step_00000002.damaged; remove them"):
        folder.none_yet()  # the next start does not train from nothing as if there had been no run


@pytest.mark.parametrize("victim", [".metadata", "__0_0.distcp", "run.json"])
def test_a_state_that_cannot_be_read_now_is_no_damaged_one(tmp_path: Path, victim: str) -> None:
    """A file server that is away, a lack of permission or memory: the newest state must not be lost to the run."""
    folder = states(tmp_path)
    save(folder, 1)
    save(folder, 2)
    file, kept = folder.path(2) / victim, tmp_path / "kept"
    file.rename(kept)
    file.symlink_to(file)  # opening it is an OSError: too many levels of symbolic links
    with pytest.raises(CheckpointError, match="step_00000002 cannot be read now .*it may be whole, and stays"):
        load(folder)
    assert folder.steps() == [1, 2]
    kept.rename(file)
    assert load(folder)[0]["step"] == 2


def test_reading_one_that_is_damaged(tmp_path: Path) -> None:
    folder = states(tmp_path)
    save(folder, 1)
    (folder.path(1) / ".metadata").unlink()
    with pytest.raises(CheckpointError, match="step_00000001 cannot be read"):
        read_state(folder.path(1))


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    alone = join("cpu")
    assert alone.first and alone.world == 1 and alone.any(True) and not alone.any(False)
    assert float(alone.mean(torch.tensor(3.0))) == 3
    alone.wait()
    alone.leave(3)  # does nothing
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="torchrun's variables are .* expected numbers in all of RANK"):
        join("cpu")
