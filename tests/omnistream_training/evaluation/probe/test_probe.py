# SPDX-License-Identifier: Apache-2.0
"""The probe as a whole: features that hold the answers win, noise does not, and the command writes what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from omnistream_training.data.live import seed_of
from omnistream_training.data.source import HELD_OUT
from omnistream_training.evaluation.cli import main
from omnistream_training.evaluation.probe.inputs import Features, Pixels, PlaceOnly, network_features, untrained
from omnistream_training.evaluation.probe.measure import Split, difference, interval, probe
from omnistream_training.evaluation.probe.scenes import FIRST_NUMBER, ProbeScenes, render_scenes
from omnistream_training.evaluation.probe.tasks import make_tasks, shrink, stretch

COLOURS = {"red": (200, 40, 40), "blue": (40, 40, 200), "green": (40, 180, 40)}
ME = "tests.omnistream_training.evaluation.probe.test_probe"


class Squares:
    """A live source: one coloured square of known place on grey, which moves in every other scene."""

    def __init__(self, colour: str = "") -> None:
        self._colours = [colour] if colour else list(COLOURS)

    def clips(
        self,
        seeds: Sequence[int],
        *,
        frames: int,
        size: tuple[int, int],
        rate: float,
        device: str,
        want: Sequence[str] = (),
    ) -> SimpleNamespace:
        h, w = size
        b = len(seeds)
        rgb = torch.full((b, frames, h, w, 3), 90, dtype=torch.uint8)
        ids = torch.zeros(b, frames, h, w, dtype=torch.int32)
        depth = torch.full((b, frames, h, w), 4.0)
        things = []
        for i, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            side, z = 20, rng.uniform(1, 3)
            top, left = rng.integers(0, h - side), rng.integers(12, w - side)
            colour, moves = str(rng.choice(self._colours)), bool(rng.integers(2))
            for t in range(frames):
                shift = (frames - 1 - t) * 4 if moves else 0
                at = np.s_[i, t, top : top + side, left - shift : left - shift + side]
                rgb[at], ids[at], depth[at] = torch.tensor(COLOURS[colour], dtype=torch.uint8), 3, z
            things.append([SimpleNamespace(id=3, words=f"{colour} square", colour=colour, moves=moves)])
        K = torch.tensor([[w, 0, (w - 1) / 2], [0, w, (h - 1) / 2], [0, 0, 1.0]]).expand(b, 3, 3)
        poses = torch.eye(4).expand(b, frames, 4, 4)
        return SimpleNamespace(rgb=rgb, depth=depth, ids=ids, K=K, T_world_camera=poses, things=things)


def squares(colour: str = "") -> Squares:
    return Squares(colour)


@pytest.fixture(scope="module")
def scenes() -> ProbeScenes:
    return render_scenes(f"{ME}:squares", {}, scenes=160, frames=3, size=(64, 64), rate=10.0)


def test_answers_are_those_of_the_renderer(scenes: ProbeScenes) -> None:
    for number in range(20):
        (seen,) = scenes.seen[number]
        v, u = np.nonzero(scenes.ids[number] == 3)
        assert seen.centre == pytest.approx(((u.mean() + 0.5) / 64, (v.mean() + 0.5) / 64))
        x, y, z = seen.place
        assert (x / z, y / z) == pytest.approx(((u.mean() - 31.5) / 64, (v.mean() - 31.5) / 64))
        assert scenes.images[number, -1][v[0], u[0]].tolist() == list(COLOURS[str(seen.colour)])
        moved = (scenes.images[number, 0] != scenes.images[number, -1]).any()
        assert seen.moves == moved


def test_no_scene_is_one_of_training_or_of_its_held_out_clips() -> None:
    mine = {seed_of(FIRST_NUMBER + n) for n in range(2000)}
    assert FIRST_NUMBER > HELD_OUT
    assert not mine & {seed_of(n) for n in range(20000)}
    assert not mine & {seed_of(HELD_OUT + n) for n in range(2000)}


def test_features_that_hold_the_answers_win_over_noise(scenes: ProbeScenes) -> None:
    tasks = make_tasks(scenes, 16)
    assert [task.name for task in tasks] == [
        "where the largest thing is",
        "where the largest thing is, camera frame",
        "where the thing of a colour is",
        "where its thing's middle is",
        "where its thing is, camera frame",
        "which colour its thing has",
        "whether its thing moves",
    ]
    assert tasks[5].classes == ("blue", "green", "red")
    rng = np.random.default_rng(0)
    split = Split.of(160)
    for task in tasks:
        wide = np.atleast_2d(task.answers.T).T if not task.classes else np.eye(3)[task.answers.astype(int)]
        values = rng.normal(0, 0.01, (160, 16, 8)).astype(np.float32)
        for row, (scene, patch) in enumerate(zip(task.scene, np.maximum(task.patch, 0), strict=True)):
            values[scene, patch, : wide.shape[1]] += 3 * wide[row]
        knows = probe(task, Features("knows", values, (4, 4)), split)
        blind = [
            probe(task, Features("noise", rng.normal(size=values.shape).astype(np.float32), (4, 4)), split)
            for _ in range(2)
        ]
        gap = difference([knows], blind)
        assert gap.excludes_zero and np.sign(gap.value) == task.better, task.name
        inside = interval([knows])
        assert inside.low <= inside.value <= inside.high
        assert inside.value < 8 if task.better < 0 else inside.value > 95
        assert np.isfinite(probe(task, PlaceOnly(160, (4, 4)), split).value()).all()


def test_pixels_know_colour_and_place(scenes: ProbeScenes) -> None:
    tasks = {task.name: task for task in make_tasks(scenes, 16)}
    split = Split.of(160)
    for coarse in (None, 16):
        assert probe(tasks["which colour its thing has"], Pixels(scenes, 16, coarse), split).value()[0] > 90
    red = render_scenes(f"{ME}:squares", {"colour": "red"}, scenes=160, frames=1, size=(64, 64), rate=10.0)
    where = make_tasks(red, 16)[0]  # with three colours no linear answer to where: red ones cancel blue ones
    gap = difference([probe(where, Pixels(red, 16, 16), split)], [probe(where, PlaceOnly(160, (4, 4)), split)])
    assert gap.high < -5


def test_features_are_those_of_the_last_picture_after_a_stream(scenes: ProbeScenes, model) -> None:  # type: ignore[no-untyped-def]
    few = ProbeScenes(scenes.images[:3], scenes.ids[:3], scenes.seen[:3], scenes.times, "")
    full = network_features("a", model, few, "full").picture()
    alone = network_features("b", model, few, "window:1").picture()
    assert full.shape == (3, 16 * 32) and not np.allclose(full, alone, atol=1e-3)
    stream = model.backbone.stream(policy="window:3", camera_token=True)
    mean, std = (torch.tensor(v)[:, None, None] for v in (model.config.mean, model.config.std))
    for t, time in enumerate(scenes.times):
        x = (torch.from_numpy(few.images[:1, t]).movedim(-1, 1) / 255 - mean) / std
        with torch.inference_mode():
            out = stream.step(x, times=[time])
    np.testing.assert_allclose(out.patches.flatten().numpy(), full[0], atol=1e-4)
    one, two = (network_features("r", untrained(model, seed), few, "full").picture() for seed in (1, 2))
    assert not np.allclose(one, two, atol=1e-2)


def test_stretch_and_back() -> None:
    points = np.random.default_rng(0).normal(0, 10, (50, 3))
    np.testing.assert_allclose(shrink(stretch(points), np.inf), points, rtol=1e-9)
    assert np.linalg.norm(shrink(stretch(points), 1.0), axis=1).max() <= np.expm1(1.0) + 1e-9


def test_the_command(weights, tmp_path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "probe"
    arguments = ["probe", str(weights), "--out", str(out), "--live", f"{ME}:squares", "--scenes", "120", "--seeds", "2"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "which colour its thing has" in text and "random weights" in text and "clearly better than" in text
    report = json.loads((out / "results.json").read_text())
    assert report["format"] == "omnistream-probe" and len(report["tasks"]) >= 6
    for task in report["tasks"]:
        rows = task["rows"]
        assert list(rows) == ["these weights", "random weights", "pixels", "pixels, coarse", "no picture"]
        assert len(rows["random weights"]["by_seed"]) == 2
        assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())
        assert set(task["differences"]) == set(rows) - {"these weights"}
    with Image.open(out / "plots" / "examples.png") as picture:
        assert picture.width == 6 * 192


def test_wrong_use_is_named(weights, capsys) -> None:  # type: ignore[no-untyped-def]
    def fails(words: str, *more: str) -> None:
        assert main(["probe", str(weights), *more]) == 2
        assert words in capsys.readouterr().err

    fails("--scenes is 3", "--scenes", "3")
    fails("does not say what it shows", "--live", "tests.omnistream_training.scenes:Planes")
    fails("expected NAME=VALUE", "--live-options", "moving")
    fails("not installed", "--live", "nowhere")
