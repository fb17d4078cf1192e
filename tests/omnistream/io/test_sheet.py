# SPDX-License-Identifier: Apache-2.0
"""Colours and the contact sheet: what is near looks near, colours mean the same in every row, memory stays bounded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnistream.errors import InputError
from omnistream.geometry import rigid
from omnistream.io.colours import DEPTH, NO_VALUE, FeatureColours, colour_depth, depth_range
from omnistream.io.frames import Frame
from omnistream.io.page import BOX, FOOTER, GAP, GREY, HEADER, MARGIN, plain
from omnistream.io.sheet import ContactSheet
from omnistream.stream.result import StepResult


def result(number: int, depth: float | None = 2.0, size: tuple[int, int] = (48, 64)) -> StepResult:
    rng = np.random.default_rng(number)
    pose = np.eye(4)
    pose[:3, 3] = [0.1 * number, 0, 0.2 * number]
    return StepResult(
        index=number,
        stamp=number / 10,
        time=float(number),
        network_size=size,
        depth=None if depth is None else np.full(size, depth, np.float32),
        depth_confidence=None,
        rays=None,
        ray_confidence=None,
        T_world_camera=pose,
        K=None,
        features=rng.normal(size=(3, 4, 16)).astype(np.float32),
        cls=np.zeros(16, np.float32),
        scale="metric",
    )


def frame(number: int, image: np.ndarray | None = None, reference: float | None = None) -> Frame:
    image = np.full((96, 128, 3), number % 256, np.uint8) if image is None else image
    depth = None if reference is None else np.full((30, 40), reference, np.float32)
    return Frame(image=image, stamp=number / 10, index=number, name=str(number), depth=depth)


def cell(picture: Image.Image, row: int, column: int, height: int = 216) -> np.ndarray:
    """The middle of a cell, [.., .., 3]."""
    x, y = MARGIN + column * (BOX[0] + GAP), HEADER + row * (height + GAP)
    return np.asarray(picture.crop((x + 100, y + 60, x + BOX[0] - 100, y + height - 60)))


def test_depth_colours_run_from_near_to_far() -> None:
    near_far = colour_depth(np.array([[1.0, 4.0, np.nan, 0.0, -1.0, 0.5, 9.0]]), 1.0, 4.0)[0]
    np.testing.assert_array_equal(near_far[0], DEPTH[-1])
    np.testing.assert_array_equal(near_far[1], DEPTH[0])
    for missing in near_far[2:5]:
        np.testing.assert_array_equal(missing, NO_VALUE)
    np.testing.assert_array_equal(near_far[5], near_far[0])  # beyond the ends: the ends
    np.testing.assert_array_equal(near_far[6], near_far[1])
    half = colour_depth(np.array([[2.0]]), 1.0, 4.0)[0, 0]  # the middle is the geometric mean
    np.testing.assert_array_equal(half, DEPTH[128])
    steps = np.abs(np.diff(DEPTH.astype(int), axis=0)).max()
    assert steps <= 8 and len(np.unique(DEPTH, axis=0)) == 256  # smooth, and no colour twice


def test_depth_range_is_robust() -> None:
    depth = np.concatenate([np.linspace(1, 3, 1000), [0, -5, np.nan, np.inf, 1000.0]])
    near, far = depth_range([depth])
    assert 1 < near < 1.1 and 2.9 < far < 3
    assert depth_range([]) == (1.0, 2.0) and depth_range([np.full(3, np.nan)]) == (1.0, 2.0)
    near, far = depth_range([np.full(10, 2.0)])
    assert near < 2 < far


def test_feature_colours_are_stable_and_shared() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 8)) * [9, 5, 3, 1, 0.5, 0.1, 0.1, 0.1]
    colours = FeatureColours.fit([base[:20], base[20:]])
    again = FeatureColours.fit([base[::-1]])
    np.testing.assert_allclose(colours.directions, again.directions, atol=1e-9)
    np.testing.assert_allclose(colours.directions @ colours.directions.T, np.eye(3), atol=1e-9)
    assert (np.take_along_axis(colours.directions, np.abs(colours.directions).argmax(1)[:, None], 1) > 0).all()
    grid = base[:12].reshape(3, 4, 8)
    np.testing.assert_array_equal(colours(grid)[1], colours(grid[1:2])[0])  # depends on the patch alone
    flat = FeatureColours.fit([np.ones((2, 3, 8))])(np.ones((2, 3, 8)))
    assert flat.shape == (2, 3, 3) and len(np.unique(flat.reshape(-1, 3), axis=0)) == 1


def test_columns_and_cells(tmp_path: Path) -> None:
    sheet = ContactSheet("A title", "metric model", "metric", rows=3, expected=5)
    for number in range(5):
        sheet.add(frame(number * 10, reference=3.0), result(number, depth=1.0 + number / 2))
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as opened:
        picture = opened.convert("RGB")
    assert picture.width == 2 * MARGIN + 5 * (BOX[0] + GAP) - GAP  # image, reference, depth, error, features
    for row, number in enumerate((0, 2, 4)):  # evenly spaced, the last one included
        assert np.abs(cell(picture, row, 0).astype(int) - number * 10).max() <= 1
    near, far = depth_range([np.array([1.0] * 9 + [2.0] * 9 + [3.0] * 36)])
    np.testing.assert_array_equal(cell(picture, 0, 2)[0, 0], colour_depth(np.array([[1.0]]), near, far)[0, 0])
    np.testing.assert_array_equal(cell(picture, 2, 1), cell(picture, 2, 2))  # the same depth has the same colour
    assert cell(picture, 2, 3).max() < cell(picture, 0, 3).max()  # no error is dark


def test_relative_depth_is_brought_to_the_reference_by_one_factor() -> None:
    sheet = ContactSheet("t", "s", "relative", rows=2)
    for number, depth in enumerate((1.0, 2.0)):
        sheet.add(frame(number, reference=3 * depth), result(number, depth=depth))
    picture = sheet.render()
    for row in range(2):
        np.testing.assert_array_equal(cell(picture, row, 1), cell(picture, row, 2))


def test_untrained_depth_is_not_compared() -> None:
    sheet = ContactSheet("t", "random weights", "none")
    sheet.add(frame(0, reference=3.0), result(0))
    assert sheet.render().width == 2 * MARGIN + 4 * (BOX[0] + GAP) - GAP


@pytest.mark.parametrize(("scale", "size"), [("metric", 1.0), ("relative", 20.0)])
def test_both_paths_lie_on_each_other_when_they_are_the_same(scale: str, size: float) -> None:
    """In another world, and in another unit where that is open."""
    turn = rigid.from_translation_quaternion([5, -3, 2, 0.1, 0.7, 0.2, 0.68])
    pictures = []
    for off in (0.0, 0.4):
        sheet = ContactSheet("t", "s", scale)
        for number in range(9):
            way = np.eye(4)
            way[:3, 3] = [np.sin(number / 3), 0.1 * number, number / 9]
            own = way.copy()
            own[:3, 3] *= size
            own[0, 3] += size * off * (number > 4)
            true = dataclasses.replace(frame(number), T_world_camera=turn @ way)
            sheet.add(true, dataclasses.replace(result(number), T_world_camera=own))
        image = sheet.render()
        pictures.append(np.asarray(image)[-FOOTER : -FOOTER + 110, MARGIN : MARGIN + BOX[0]].astype(int))
    grey = [int((np.abs(picture - GREY).max(axis=-1) < 12).sum()) for picture in pictures]
    assert grey[0] < 40 < grey[1], "the reference is hidden behind the same path, and shows beside another"


def test_features_alone_and_other_sizes() -> None:
    sheet = ContactSheet("\N{SNOWMAN} title " * 30, "s", "none")  # too long, and not in the font
    only = dataclasses.replace(result(0, depth=None), T_world_camera=None)
    sheet.add(frame(0, np.zeros((300, 100, 3), np.uint8)), only)
    sheet.add(frame(1, np.zeros((20, 300, 3), np.uint8)), only)
    assert sheet.render().width == 2 * MARGIN + 2 * (BOX[0] + GAP) - GAP
    assert plain("a → b × \N{SNOWMAN}") == "a -> b x ?"


@pytest.mark.parametrize("expected", [None, 1000])
def test_memory_is_bounded_and_rows_span_the_stream(expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    small = np.zeros((12, 16, 3), np.uint8)
    sheet = ContactSheet("t", "s", "metric", rows=4, expected=expected)
    for number in range(1000):
        sheet.add(frame(number, small), result(number, size=(6, 8)))
        assert len(sheet._moments) <= 16
    labels = [int(moment.label.split()[0][1:]) for moment in sheet._choose()]
    assert labels[0] == 0 and labels[-1] == 999 and len(labels) == 4
    assert max(np.diff(labels)) <= 2 * min(np.diff(labels))
    for _ in range(8000):
        sheet._add_to_path(np.eye(4), None)
    assert len(sheet._path) < 4000


def test_a_sheet_without_frames_is_an_error() -> None:
    with pytest.raises(InputError, match="no frames"):
        ContactSheet("t", "s", "metric").render()


def test_rows_of_a_short_stream_are_its_frames() -> None:
    sheet = ContactSheet("t", "s", "metric", rows=6, expected=3)
    for number in range(3):
        sheet.add(frame(number), result(number))
    assert [moment.label.split()[0] for moment in sheet._choose()] == ["#0", "#1", "#2"]
