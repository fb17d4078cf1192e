# SPDX-License-Identifier: Apache-2.0
"""The furnished room: the command makes a recording, and the one that is shipped keeps its promises."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from omnistream.io import Frame, open_source
from omnistream_sim import cli

SHIPPED = Path(str(files("omnistream"))) / "assets" / "recording_room"


def _error(a: Frame, b: Frame) -> tuple[float, float]:
    """Median relative depth error of the points of a seen in b, and the share of them that falls into b."""
    assert a.depth is not None and b.depth is not None and a.K is not None
    assert a.T_world_camera is not None and b.T_world_camera is not None
    k: NDArray[np.float64] = a.K
    v, u = np.mgrid[0 : a.depth.shape[0], 0 : a.depth.shape[1]]
    z = a.depth.astype(np.float64)
    p = np.stack([(u - k[0, 2]) / k[0, 0] * z, (v - k[1, 2]) / k[1, 1] * z, z, np.ones_like(z)], -1)
    q = p @ (np.linalg.inv(b.T_world_camera) @ a.T_world_camera).T
    column, row = (
        (k[0, 0] * q[..., 0] / q[..., 2] + k[0, 2]).round(),
        (k[1, 1] * q[..., 1] / q[..., 2] + k[1, 2]).round(),
    )
    inside = (q[..., 2] > 0.1) & (column >= 0) & (column < z.shape[1]) & (row >= 0) & (row < z.shape[0])
    found = b.depth[row[inside].astype(int), column[inside].astype(int)]
    return float(np.nanmedian(np.abs(found - q[..., 2][inside]) / q[..., 2][inside])), float(inside.mean())


def test_the_shipped_recording_is_consistent() -> None:
    source = open_source(SHIPPED)
    assert len(source) == 120 and source.rate == 30.0
    frames = {f.index: f for f in source if f.index in (0, 20, 60, 119)}
    assert frames[0].image.shape == (480, 640, 3)
    assert np.array_equal(frames[0].T_world_camera, np.eye(4))
    for first, second in ((0, 20), (20, 60), (60, 119)):
        error, seen = _error(frames[first], frames[second])
        assert error < 0.005 and seen > 0.3


def test_the_shipped_path_has_parallax() -> None:
    rows = np.loadtxt(SHIPPED / "poses.txt")
    path = np.linalg.norm(np.diff(rows[:, 1:4], axis=0), axis=1)
    assert path.sum() >= 2.0 and path.max() < 0.05
    assert np.linalg.norm(rows[-1, 1:4]) > 1.5


def test_the_command_renders_the_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--frames", "3", "--width", "64", "--height", "48", "--quality", "fast"]
    assert cli.main(["recording", str(tmp_path / "room"), *arguments]) == 0
    frames = list(open_source(tmp_path / "room"))
    assert len(frames) == 3 and frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.std() > 30  # there is something to see
    error, seen = _error(frames[0], frames[1])
    assert error < 0.02 and seen > 0.3
    capsys.readouterr()
    assert cli.main(["recording", str(tmp_path / "room"), *arguments]) == 1
    assert "already holds a recording" in capsys.readouterr().err
