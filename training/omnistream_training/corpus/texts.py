# SPDX-License-Identifier: Apache-2.0
"""Pictures with something said about them, from files.

    FILE.json          LLaVA's: a list of {"image": "coco/1.jpg", "conversations": [{"from": "human", "value": ...},
                       {"from": "gpt", "value": ...}, ...]}; one exchange is drawn. RefCOCO and OCR sets come in it too
    folder or shards   a picture beside NAME.json with such conversations, or with a "caption" and GRIT's "ref_exps"
                       ([start, end, left, top, right, bottom, score] of phrases of the caption), or beside NAME.txt

Pictures are squeezed into the configured shape whole, so that places in texts stay true. Of a caption with boxes, one
of its phrases is asked for as often as the caption (the authors' `grounding_ratio` 0.5).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream_training.caption.config import CaptionConfig
from omnistream_training.caption.questions import DESCRIBE, GROUND, Question
from omnistream_training.caption.source import AskedPictures
from omnistream_training.corpus.pictures import EXTENSIONS, read_picture
from omnistream_training.corpus.sampling import Sampler
from omnistream_training.corpus.store import FilePart, Sample, Samples, Store

GROUNDING = 0.5
PICTURE_MARK = "<image>"
"""Where LLaVA's questions put the picture; here it is always in front."""


class TextSource:
    """Questions and answers from files, drawn like those of `CaptionSource`."""

    def __init__(self, path: str, config: CaptionConfig, on_error: Literal["raise", "skip"] = "skip") -> None:
        """InputError if nothing can be read."""
        self._size = config.size
        where = Path(path).expanduser()
        store: Samples
        if where.suffix == ".json":
            store = _Conversations(where, None if config.images is None else Path(config.images).expanduser())
        else:
            store = Store(where, ("json", "txt"))
        self.store = store
        self.sampler = Sampler(store, on_error)
        self.description = f"texts: {store.description}"

    def read(self, numbers: Sequence[int], seed: int, device: str) -> AskedPictures:
        """Pictures of those numbers, each with one of its questions."""
        found = [self.sampler.draw(number, numbers[0], self._asked) for number in numbers]
        images = torch.from_numpy(np.stack([image for image, _ in found])).permute(0, 3, 1, 2)[:, None].float() / 255
        return AskedPictures(images=images.to(device), questions=tuple(question for _, question in found))

    def _asked(self, sample: Sample, draw: random.Random) -> tuple[NDArray[np.uint8], Question]:
        picture = sample.first(EXTENSIONS)
        if picture is None:
            raise InputError(f"{sample.name}: a text without a picture; expected NAME.{'|'.join(EXTENSIONS[:3])}")
        return read_picture(picture, self._size, squeeze=True), question_of(sample, draw)


def question_of(sample: Sample, draw: random.Random) -> Question:
    """One of the questions that a sample answers. InputError if it has none that can be read."""
    part = sample.parts.get("json")
    if part is None:
        text = _text(sample.parts["txt"].read(), sample.name).strip()
        if not text:
            raise InputError(f"{sample.name}: its text is empty")
        return Question("describe", DESCRIBE, text)
    try:
        data = json.loads(_text(part.read(), part.name))
    except ValueError as error:
        raise InputError(f"{part.name}: is no JSON: {error}") from error
    if isinstance(data, dict) and "conversations" in data:
        return _exchange(data["conversations"], part.name, draw)
    caption = data.get("caption") if isinstance(data, dict) else None
    if not isinstance(caption, str) or not caption.strip():
        raise InputError(f'{part.name}: has neither "conversations" nor a "caption"')
    boxes = data.get("ref_exps") or ()
    if boxes and draw.random() < GROUNDING:
        return _phrase(caption, boxes, part.name, draw)
    return Question("describe", DESCRIBE, caption.strip())


def _exchange(turns: Any, name: str, draw: random.Random) -> Question:
    """A question and its answer, any of those in a conversation."""
    try:
        pairs = [
            (str(a["value"]), str(b["value"]))
            for a, b in zip(turns[::2], turns[1::2], strict=False)
            if (a["from"], b["from"]) == ("human", "gpt")
        ]
    except (TypeError, KeyError) as error:
        raise InputError(f"{name}: a conversation is no list of from and value ({error!r})") from error
    if not pairs:
        raise InputError(f"{name}: no human turn that a gpt turn answers")
    ask, answer = draw.choice(pairs)
    return Question("ask", ask.replace(PICTURE_MARK, "").strip() or DESCRIBE, answer.strip())


def _phrase(caption: str, boxes: Any, name: str, draw: random.Random) -> Question:
    """Where a phrase of the caption is, in thousandths of the picture."""
    try:
        start, end, *box = (float(value) for value in draw.choice(boxes)[:6])
        left, top, right, bottom = box
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"{name}: ref_exps is not [start, end, left, top, right, bottom, ...]: {error}") from error
    words = caption[int(start) : int(end)].strip()
    if not words or not (0 <= left < right <= 1.001 and 0 <= top < bottom <= 1.001):
        raise InputError(f"{name}: phrase {words!r} at {box}; expected words, and a box in 0 .. 1")
    edges = (str(min(999, int(1000 * edge))) for edge in (left, top, right, bottom))
    return Question("ground", GROUND.format(words=re.sub("^(an?|the) ", "", words, flags=re.I)), " ".join(edges))


class _Conversations:
    """The entries of a LLaVA-style file, as one group of samples."""

    def __init__(self, path: Path, images: Path | None) -> None:
        """images: what pictures' names are relative to; default the file's folder, or images/ in it."""
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
            entries = json.loads(text)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{path}: is no JSON: {error}") from error
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{path}: expected a list of objects, as LLaVA's training files are")
        kept = [entry for entry in entries if isinstance(entry.get("image"), str)]
        if not kept:
            raise InputError(f"{path}: none of its {len(entries)} entries has an image")
        roots = (images,) if images is not None else (path.parent, path.parent / "images")
        root = next((root for root in roots if (root / kept[0]["image"]).exists()), roots[0])
        self._samples = [_entry(entry, number, path, root) for number, entry in enumerate(kept)]
        self._digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.description = f"{len(kept)} pictures in {path}"
        if len(kept) < len(entries):
            print(f"{path}: {len(entries) - len(kept)} entries without an image are left out", file=sys.stderr)

    def __len__(self) -> int:
        return 1

    def samples(self, group: int) -> Sequence[Sample]:
        return self._samples

    def digest(self) -> str:
        return self._digest


class _Inline:
    """A part that is in memory already."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self._data = name, data

    def read(self) -> bytes:
        return self._data


def _entry(entry: dict[str, Any], number: int, path: Path, root: Path) -> Sample:
    name = f"{path}: entry {entry.get('id', number)}"
    picture = root / entry["image"]
    return Sample(
        name,
        {
            picture.suffix.lower().lstrip(".") or "jpg": FilePart(picture),
            "json": _Inline(name, json.dumps(entry).encode()),
        },
        origin=str(picture),  # many questions, one picture
    )


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: is no UTF-8 text: {error}") from error
