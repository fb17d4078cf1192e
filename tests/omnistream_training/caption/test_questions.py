# SPDX-License-Identifier: Apache-2.0
"""Questions and answers agree with the pictures they are about."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from omnistream.errors import ConfigError
from omnistream_training.caption.config import CaptionConfig
from omnistream_training.caption.questions import box_text, groundable, list_text, question_for, write_on
from omnistream_training.caption.source import CaptionSource

WORLDS = CaptionConfig(pictures=8, size=(64, 96), smallest=0.01)


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def thing(number: int, words: str) -> SimpleNamespace:
    return SimpleNamespace(id=number, words=words)


def test_a_box_is_in_thousandths_of_the_picture() -> None:
    mask = torch.zeros(10, 20, dtype=torch.bool)
    mask[2:5, 5:10] = True
    assert box_text(mask) == "250 200 500 500"
    assert box_text(torch.ones(4, 4, dtype=torch.bool)) == "0 0 999 999"


def test_only_what_has_a_name_of_its_own_and_is_large_enough_is_asked_for() -> None:
    ids = torch.zeros(10, 10, dtype=torch.int32)
    ids[:3], ids[3:5], ids[5:8], ids[9, 9] = 1, 2, 3, 4
    things = [thing(1, "red ball"), thing(2, "red ball"), thing(3, "box"), thing(4, "cup"), thing(5, "chair")]
    assert groundable(ids, things, 0.05) == [("box", 3)]


def test_things_are_counted_and_named_from_left_to_right() -> None:
    ids = torch.zeros(10, 10, dtype=torch.int32)
    ids[:, 7:], ids[2:5, 1:3], ids[9, 5] = 1, 2, 3
    things = [thing(1, "red ball"), thing(2, "red ball"), thing(3, "cup"), thing(4, "box")]
    assert list_text(ids, things, 0.05) == "2: red ball, red ball"
    assert list_text(ids, things, 0.005) == "3: red ball, cup, red ball"
    assert list_text(ids, things, 0.9) == "0"


def test_a_picture_without_anything_to_find_is_described(draw: torch.Generator) -> None:
    asked = question_for("ground", "Nothing but sky.", torch.zeros(4, 4), [], 0.01, draw)
    assert (asked.kind, asked.ask, asked.answer) == ("describe", "Describe the picture.", "Nothing but sky.")


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (224, 224)])
def test_writing_changes_a_part_of_the_picture(size: tuple[int, int], draw: torch.Generator) -> None:
    picture = torch.full((*size, 3), 128, dtype=torch.uint8)
    written = write_on(picture, "KD7 press", draw)
    changed = (written != picture).any(-1).float().mean()
    assert written.shape == picture.shape and 0.02 < changed < 0.7 and bool((picture == 128).all())


def test_worlds_are_asked_about_and_answers_hold() -> None:
    source = CaptionSource(WORLDS)
    asked = source.read(range(16), 3, "cpu")
    assert asked.images.shape == (16, 1, 3, 64, 96) and asked.frames == 16
    kinds = {question.kind for question in asked.questions}
    assert kinds == {"describe", "list", "ground", "read"}
    again = source.read(range(16), 3, "cpu")
    assert torch.equal(again.images, asked.images) and again.questions == asked.questions
    for question in asked.questions:
        if question.kind == "ground":
            left, top, right, bottom = map(int, question.answer.split())
            assert 0 <= left < right <= 999 and 0 <= top < bottom <= 999
        elif question.kind == "describe":
            assert question.answer[0].isupper() and question.answer.endswith(".")


def test_boxes_are_where_the_renderer_says_the_thing_is() -> None:
    from omnistream_training.data.live import open_renderer, seed_of

    source = CaptionSource(dataclasses.replace(WORLDS, describe=0.0, read=0.0, list=0.0, ground=1.0))
    asked = source.read(range(6), 0, "cpu")
    clips = open_renderer("worlds", {}).clips(
        [seed_of(n) for n in range(6)], frames=1, size=(64, 96), rate=30.0, device="cpu", want=("ids", "things")
    )  # type: ignore[call-arg]
    found = 0
    for i, question in enumerate(asked.questions):
        if question.kind == "ground":
            words = question.ask.removeprefix("Where is the ").removesuffix("?")
            (number,) = {t.id for t in clips.things[i] if t.words == words and bool((clips.ids[i] == t.id).any())}
            assert question.answer == box_text(clips.ids[i, 0] == number)
            found += 1
    assert found >= 3


def test_the_tabletop_is_asked_about_too() -> None:
    pytest.importorskip("pybullet")
    asked = CaptionSource(dataclasses.replace(WORLDS, live="tabletop", read=0.0)).read(range(4), 0, "cpu")
    assert "read" not in {q.kind for q in asked.questions} and all(q.answer for q in asked.questions)


def test_a_renderer_that_knows_no_things_is_refused_by_name() -> None:
    config = dataclasses.replace(WORLDS, live="tests.omnistream_training.scenes:Planes")
    with pytest.raises(ConfigError, match="Planes.*cannot be asked"):
        CaptionSource(config).read(range(2), 0, "cpu")
