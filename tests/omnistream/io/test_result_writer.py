# SPDX-License-Identifier: Apache-2.0
"""The result writer on a real session: what is asked for is there, what the checkpoint lacks is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omnistream import StreamSession
from omnistream.errors import ConfigError, InputError
from omnistream.geometry import rigid
from omnistream.io.frames import Frame
from omnistream.io.results_folder import PRODUCTS, existing_results, remove_results
from omnistream.io.trajectory import read_tum
from omnistream.io.writers import ResultWriter
from omnistream.stream.result import StepResult

FILES = [product for product in PRODUCTS if product != "rrd"]


def stream(
    model: object, folder: Path, products: list[str], frames: int = 4, reset_at: int | None = None
) -> tuple[ResultWriter, list[StepResult]]:
    session = StreamSession(model, dtype="float32", num_threads=1)  # type: ignore[arg-type]
    writer = ResultWriter(
        folder, products, outputs=session.outputs, scale=session.scale, title="title", subtitle="subtitle"
    )
    results = []
    with writer:
        for index in range(frames):
            if index == reset_at:
                session.reset()
                writer.reset("requested")
            image = np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)
            results.append(session.step(image, index / 10, want=writer.wanted))
            writer.add(Frame(image=image, stamp=index / 10, index=index, name=str(index)), results[-1])
    return writer, results


def test_everything_of_a_metric_model(make_model: Callable, tmp_path: Path, read_ply: Callable) -> None:
    writer, results = stream(make_model("metric"), tmp_path, FILES, reset_at=2)
    assert writer.notes == []
    for index, result in enumerate(results):
        assert result.depth is not None
        np.testing.assert_array_equal(np.load(tmp_path / "depth" / f"{index:06d}.npy"), result.depth)
        assert (tmp_path / "depth" / f"{index:06d}.png").is_file()
        np.testing.assert_array_equal(np.load(tmp_path / "features" / f"{index:06d}.npy"), result.features)
        np.testing.assert_array_equal(np.load(tmp_path / "features" / f"{index:06d}_cls.npy"), result.cls)
    stamps, poses = read_tum(tmp_path / "poses.txt")
    np.testing.assert_allclose(stamps, np.arange(4) / 10)
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-8)
    np.testing.assert_allclose(poses[2], poses[1], atol=1e-8)  # the new segment goes on from the last pose
    assert "# reset (requested), segment 1\n" in (tmp_path / "poses.txt").read_text()
    # Points are in the same world as poses, also after the reset: seen from the camera they are what the model said.
    for index in (1, 3):
        result = results[index]
        assert result.T_world_camera is not None
        points, _ = read_ply(tmp_path / "points" / f"{index:06d}.ply")
        seen = rigid.apply(rigid.inverse(poses[index]), points)
        expected = rigid.apply(rigid.inverse(result.T_world_camera), result.points())
        np.testing.assert_allclose(seen, expected, atol=1e-4 * np.abs(expected).max())
    assert existing_results(tmp_path) == [
        "depth/ (8 files)",
        "features/ (8 files)",
        "points/ (4 files)",
        "poses.txt",
        "sheet.png",
    ]
    assert not list(tmp_path.rglob(".*"))  # nothing temporary is left
    (tmp_path / "depth" / "mine.png").write_bytes(b"keep")
    (tmp_path / "notes.txt").write_text("keep")
    remove_results(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["mine.png", "notes.txt"]


@pytest.mark.parametrize("scale", ["relative", "none"])
def test_other_scales_get_no_millimetres_and_it_is_said(make_model: Callable, tmp_path: Path, scale: str) -> None:
    writer, _ = stream(make_model(scale), tmp_path, ["depth"], frames=1)
    assert [path.name for path in (tmp_path / "depth").iterdir()] == ["000000.npy"]
    (note,) = writer.notes
    assert scale in note and "millimetres" in note


def test_only_the_heads_that_are_needed_are_wanted(tmp_path: Path) -> None:
    def wanted(*products: str) -> set[str]:
        every = ("features", "depth", "rays", "pose")
        return set(ResultWriter(tmp_path, products, outputs=every, scale="metric", title="", subtitle="").wanted)

    assert wanted("features") == {"features"}
    assert wanted("depth") == {"depth"} and wanted("poses") == {"pose"}
    assert wanted("points") == {"depth", "rays", "pose"} and wanted("sheet") == {"features", "depth", "pose"}


def test_what_a_checkpoint_lacks_is_told(tmp_path: Path) -> None:
    def make(*products: str) -> ResultWriter:
        return ResultWriter(tmp_path, products, outputs=["features"], scale="none", title="", subtitle="")

    writer = make("depth", "points", "features", "sheet")
    assert writer.notes == [
        "depth: left out, this checkpoint has no depth.",
        "points: left out, this checkpoint has no depth, pose, rays.",
    ]
    with pytest.raises(ConfigError, match="nothing is left to save: depth: left out"):
        make("depth")
    with pytest.raises(ConfigError, match="cannot save video; expected some of depth"):
        make("video")


def test_an_exception_leaves_no_half_written_files(make_model: Callable, tmp_path: Path) -> None:
    session = StreamSession(make_model("metric"), dtype="float32", num_threads=1)
    writer = ResultWriter(tmp_path, ["poses", "sheet"], outputs=session.outputs, scale="metric", title="", subtitle="")
    with pytest.raises(RuntimeError), writer:
        raise RuntimeError
    assert list(tmp_path.rglob("*")) == []


def test_rerun_recording_is_whole(make_model: Callable, tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    stream(make_model("metric"), tmp_path, ["rrd"], frames=3)
    assert existing_results(tmp_path) == ["stream.rrd"]
    command = [sys.executable, "-m", "rerun", "rrd", "print", str(tmp_path / "stream.rrd")]
    environment = {"HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=True)
    for name in ("/world/camera", "/world/camera/image", "/depth", "/world/points", "/world/path"):
        assert name in done.stdout


def test_missing_rerun_is_named_with_the_install_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(InputError, match=r'needs the package rerun: pip install "omnistream\[viz\]"'):
        ResultWriter(tmp_path, ["poses", "rrd"], outputs=["pose", "features"], scale="none", title="", subtitle="")
    assert list(tmp_path.rglob("*")) == []
