# SPDX-License-Identifier: Apache-2.0
"""Questions about a picture and their answers, from what its renderer knows. One picture, one question.

    describe   "Describe the picture."                  "In view: a red ball and a wooden floor. One object."
    list       "What is there, from left to right?"     "2: red ball, green box"
    ground     "Where is the red ball?"                 "120 305 480 999"
    read       "What is written?"                       "KD7 moss"

A box is left, top, right, bottom of the pixels that show a thing, in thousandths of the picture, 0 .. 999.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from omnistream_training.caption.config import KINDS, CaptionConfig

DESCRIBE, LIST = "Describe the picture.", "What is there, from left to right?"
GROUND, READ = "Where is the {words}?", "What is written?"
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ2346789"
"""Without those that look like another."""
WORDS = ("open", "close", "stop", "left", "right", "door", "press", "hot", "cold", "exit", "lift", "kitchen", "moss")


@dataclass(frozen=True)
class Question:
    """About one picture."""

    kind: str
    """One of `KINDS`."""
    ask: str
    answer: str


def question_for(
    kind: str, text: str, ids: Tensor, things: Sequence[Any], smallest: float, draw: torch.Generator
) -> Question:
    """The question of that kind; a picture without a thing to look for is described instead.

    text: the renderer's description. ids: [H, W] integers. things: with `id` and `words`.
    """
    if kind == "read":
        return Question(kind, READ, _inscription(draw))
    if kind == "ground":
        found = groundable(ids, things, smallest)
        if found:
            words, number = found[int(torch.randint(len(found), (1,), generator=draw))]
            return Question(kind, GROUND.format(words=words), box_text(ids == number))
    if kind == "list":
        return Question(kind, LIST, list_text(ids, things, smallest))
    return Question("describe", DESCRIBE, text)


def list_text(ids: Tensor, things: Sequence[Any], smallest: float) -> str:
    """How many things are seen, and their names by the middle of their pixels, leftmost first."""
    columns = torch.arange(ids.shape[1], dtype=torch.float64)
    found = []
    for thing in things:
        shown = (ids == thing.id).sum(0)
        if int(shown.sum()) >= smallest * ids.numel():
            found.append((float((shown * columns).sum() / shown.sum()), thing.words))
    names = [words for _, words in sorted(found)]
    return f"{len(names)}: {', '.join(names)}" if names else "0"


def groundable(ids: Tensor, things: Sequence[Any], smallest: float) -> list[tuple[str, int]]:
    """(words, id) of what is large enough and has a name of its own, so that the question has one answer.

    Two red balls are two answers, even if only one of them is large enough.
    """
    pixels = Counter(ids.flatten().tolist())
    seen = [thing for thing in things if pixels[thing.id]]
    named = Counter(thing.words for thing in seen)
    return [(t.words, t.id) for t in seen if named[t.words] == 1 and pixels[t.id] >= smallest * ids.numel()]


def box_text(mask: Tensor) -> str:
    """Smallest box round the True pixels of [H, W], as text."""
    height, width = mask.shape
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    left, right = int(columns[0]) / width, (int(columns[-1]) + 1) / width
    top, bottom = int(rows[0]) / height, (int(rows[-1]) + 1) / height
    return " ".join(str(min(999, int(1000 * edge))) for edge in (left, top, right, bottom))


def write_on(picture: Tensor, text: str, draw: torch.Generator) -> Tensor:
    """[H, W, 3] uint8 with the text on a sign somewhere in it, as large as half the picture's width or more."""
    height, width = picture.shape[:2]
    u = torch.rand(6, generator=draw).tolist()
    image = Image.fromarray(picture.cpu().numpy())
    pen = ImageDraw.Draw(image)
    span = width * (0.5 + 0.45 * u[0])
    font = ImageFont.load_default(max(6.0, 10 * span / max(1.0, pen.textlength(text, ImageFont.load_default(10)))))
    box = pen.textbbox((0, 0), text, font)
    w, h = box[2] - box[0], box[3] - box[1]
    x, y = u[1] * max(0.0, width - w - 4) + 2, u[2] * max(0.0, height - h - 4) + 2
    shade = int(255 * u[3])
    ink, sign = (shade // 4, 255 - shade // 4) if u[4] < 0.5 else (255 - shade // 4, shade // 4)
    pen.rectangle((x - 2, y - 2, x + w + 2, y + h + 2), fill=(sign, sign, sign))
    pen.text((x - box[0], y - box[1]), text, font=font, fill=(ink, ink, ink))
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3).to(picture.device)


def draw_kinds(config: CaptionConfig, count: int, draw: torch.Generator) -> list[str]:
    """A kind per picture, by the configured shares."""
    shares = torch.tensor([getattr(config, kind) for kind in KINDS])
    return [KINDS[i] for i in torch.multinomial(shares, count, replacement=True, generator=draw).tolist()]


def _inscription(draw: torch.Generator) -> str:
    """One to three letters and digits, or a word, or both."""

    def pick(n: int) -> int:
        return int(torch.randint(n, (1,), generator=draw))

    code, word = "".join(LETTERS[pick(len(LETTERS))] for _ in range(1 + pick(3))), WORDS[pick(len(WORDS))]
    return (code, word, f"{code} {word}")[pick(3)]
