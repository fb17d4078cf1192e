# SPDX-License-Identifier: Apache-2.0
"""The shipped recording: depth, poses and calibration agree, and the command that made it still makes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import omnistream
from omnistream.geometry import pinhole, rigid
from omnistream.io import open_source

SHIPPED = Path(omnistream.__file__).parent / "assets" / "recording_room"


@pytest.fixture(scope="module")
def frames():
    return list(open_source(SHIPPED))


def test_it_is_what_the_demo_promises(frames):
    assert len(frames) >= 90
    assert all(f.image.shape == (480, 640, 3) for f in frames)
    assert all(f.depth is not None and f.T_world_camera is not None and f.K is not None for f in frames)
    np.testing.assert_allclose(np.diff([f.stamp for f in frames]), 1 / 30, atol=1e-5)
    np.testing.assert_allclose(frames[0].T_world_camera, np.eye(4), atol=1e-9)
    path = np.array([f.T_world_camera[:3, 3] for f in frames])
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).sum() > 2.0


@pytest.mark.parametrize(("i", "j"), [(0, 20), (0, 60), (40, 119), (119, 90)])
def test_depth_carried_by_the_poses_lands_on_depth(frames, i, j):
    """Median relative error < 0.5 %: millimetre PNGs and poses are one geometry."""
    a, b = frames[i], frames[j]
    points = pinhole.unproject(a.depth, a.K).reshape(-1, 3)
    seen = rigid.apply(rigid.inverse(b.T_world_camera) @ a.T_world_camera, points)
    with np.errstate(invalid="ignore", divide="ignore"):
        u, v = (np.round((seen @ b.K.T)[:, k] / seen[:, 2]) for k in (0, 1))
    inside = (seen[:, 2] > 0) & (u >= 0) & (u < 640) & (v >= 0) & (v < 480)
    assert inside.mean() > 0.4
    there = b.depth[v[inside].astype(int), u[inside].astype(int)]
    assert np.nanmedian(np.abs(there - seen[inside, 2]) / seen[inside, 2]) < 0.005


@pytest.mark.slow
def test_the_command_makes_it_again(tmp_path):
    from omnistream_sim.cli import main

    assert main(["recording", str(tmp_path / "room"), "--frames", "1"]) == 0
    again, shipped = next(iter(open_source(tmp_path / "room"))), next(iter(open_source(SHIPPED)))
    assert np.abs(again.image.astype(int) - shipped.image.astype(int)).mean() < 2
    np.testing.assert_allclose(again.depth, shipped.depth, atol=0.0021)
    np.testing.assert_allclose(again.K, shipped.K, atol=1e-4)
