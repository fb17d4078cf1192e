# SPDX-License-Identifier: Apache-2.0
"""Pictures, videos and texts from folders and shards, written here in the formats that people have."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnistream.errors import InputError
from omnistream_training.caption.config import CaptionConfig
from omnistream_training.corpus import sampling, store
from omnistream_training.corpus.pictures import PictureSource
from omnistream_training.corpus.store import Store
from omnistream_training.corpus.texts import TextSource, question_of
from omnistream_training.corpus.videos import VideoClipSource
from omnistream_training.data.source import HELD_OUT, ClipRequest

SIZE = (32, 32)
RED = (200, 0, 0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def jpeg(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (48, 40)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "JPEG", quality=95)
    return data.getvalue()


def shard(path: Path, samples: list[dict[str, Any]]) -> Path:
    """A WebDataset shard: members of a sample one after the other, KEY.EXTENSION."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, sample in enumerate(samples):
            for extension, value in sample.items():
                data = (
                    value if isinstance(value, bytes) else (value if extension == "txt" else json.dumps(value)).encode()
                )
                member = tarfile.TarInfo(f"{number:06d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def picture_shards(root: Path) -> Path:
    for number in range(3):
        samples = [{"jpg": jpeg((10 * i, 80 * number, 0)), "json": {"caption": f"picture {i}"}} for i in range(6)]
        shard(root / f"{number:06d}.tar", samples)
    return root


def request(numbers: range, frames: int = 1, stride: int = 1) -> ClipRequest:
    return ClipRequest(numbers=numbers, frames=frames, size=SIZE, stride=stride)


def video(path: Path, frames: int = 40, rate: int = 10) -> Path:
    """Frame i is grey of level 6 i."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.gop_size, stream.bit_rate = 64, 48, 8, 4_000_000
        for number in range(frames):
            picture = np.full((48, 64, 3), 6 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_pictures_of_shards_are_a_function_of_their_number(tmp_path: Path) -> None:
    source = PictureSource(str(picture_shards(tmp_path / "shards")))
    assert source.description.startswith("pictures: 3 shards")
    batch = source.read(request(range(4)))
    assert batch.images.shape == (4, 1, 3, 32, 32) and bool(batch.depth.isnan().all())
    again = PictureSource(str(tmp_path / "shards")).read(request(range(4)))
    assert bool((batch.images == again.images).all())
    seen = {
        tuple(source.read(request(range(n, n + 1))).images[0, 0, :2, 16, 16].mul(25.5).round().tolist())
        for n in range(60)
    }
    assert len(seen) > 10  # of 15 for training
    held = [source.read(request(range(HELD_OUT + n, HELD_OUT + n + 1))).images[0, 0, 0, 16, 16] for n in range(20)]
    assert max(abs(float(level) * 255 - 50) for level in held) < 4  # the last sample of every shard


def test_members_are_listed_once_and_read_where_they_lie(tmp_path: Path) -> None:
    path = shard(tmp_path / "one.tar", [{"jpg": jpeg(), "txt": "red"}, {"seg.png": b"x", "txt": "no picture"}])
    found = Store(path, ("jpg",))
    (sample,) = found.samples(0)
    assert sorted(sample.parts) == ["jpg", "txt"] and sample.parts["txt"].read() == b"red"
    digest = found.digest()
    shard(path, [{"jpg": jpeg(), "txt": "another"}] * 9)
    assert Store(path, ("jpg",)).digest() != digest


def test_a_damaged_sample_is_named_and_another_taken(tmp_path: Path, capsys: Any) -> None:
    samples: list[dict[str, Any]] = [{"jpg": jpeg()} for _ in range(4)] + [{"jpg": b"no jpeg"}] * 4 + [{"jpg": jpeg()}]
    path = shard(tmp_path / "000.tar", samples)
    source = PictureSource(str(path))
    assert source.read(request(range(24))).images.shape[0] == 24
    assert 0 < len(source.sampler.damaged) <= 4
    assert "000.tar: 000005.jpg: cannot be read as an image" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"000\.tar: 00000\d\.jpg: cannot be read"):
        PictureSource(str(path), "raise").read(request(range(24)))


def test_damaged_samples_beyond_those_named_are_counted(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "NAMED", 2)
    samples: list[dict[str, Any]] = [{"jpg": b"no jpeg"}] * 6 + [{"jpg": jpeg()}] * 3
    source = PictureSource(str(shard(tmp_path / "000.tar", samples)))
    source.read(request(range(60)))
    assert len(source.sampler.damaged) == 6 and capsys.readouterr().err.count("skipped") == 2


@pytest.mark.parametrize("cached", ["no folder", "damaged"])
def test_a_list_of_members_that_cannot_be_kept_costs_nothing_else(tmp_path: Path, cached: str) -> None:
    path = picture_shards(tmp_path / "shards") / "000000.tar"
    before = store._members(path, "1")
    (index,) = (tmp_path / "cache").rglob("shards/*")
    if cached == "damaged":
        index.write_bytes(b'[["a", 1')
    else:
        shutil.rmtree(tmp_path / "cache")
        (tmp_path / "cache").write_text("")  # where a folder should be: nothing can be written
    assert store._members(path, "1") == before
    assert cached == "no folder" or json.loads(index.read_bytes())


def test_a_shard_cut_short_and_one_that_is_none(tmp_path: Path) -> None:
    path = picture_shards(tmp_path) / "000000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    source = PictureSource(str(tmp_path))
    assert len(source.read(request(range(3))).images) == 3
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "000001.tar").write_bytes(b"\x1f\x8b" + b"0" * 600)
    (tmp_path / "bad" / "000002.tar").write_bytes(b"?" * 600)
    with pytest.raises(InputError, match="50 samples in a row cannot be used; .* uncompressed tar"):
        PictureSource(str(tmp_path / "bad")).read(request(range(1)))
    with pytest.raises(InputError, match="no file that ends with jpg"):
        PictureSource(str(tmp_path / "cache"))
    with pytest.raises(InputError, match="nowhere does not exist"):
        PictureSource(str(tmp_path / "nowhere"))


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    for name in ("n01440764/a.JPEG", "n01440764/b.jpeg", "n01443537/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg())
    source = PictureSource(str(tmp_path))
    assert "3 samples" in source.description
    assert float(source.read(request(range(1))).images[0, 0, 0].mean()) == pytest.approx(200 / 255, abs=0.02)
    with pytest.raises(InputError, match="clips of 4 frames were asked for"):
        source.read(request(range(1), frames=4))


@pytest.mark.parametrize("packed", [False, True], ids=["files", "shards"])
def test_clips_of_videos(tmp_path: Path, packed: bool) -> None:
    path = video(tmp_path / "videos" / "a.mp4")
    if packed:
        shard(tmp_path / "shards" / "000.tar", [{"mp4": path.read_bytes()}] * 3)
    source = VideoClipSource(str(tmp_path / ("shards" if packed else "videos")), 30.0)
    batch = source.read(request(range(6), frames=4, stride=6))  # 0.2 s: every other frame
    assert batch.images.shape == (6, 4, 3, 32, 32)
    np.testing.assert_allclose(batch.times.numpy(), np.tile([0.0, 6, 12, 18], (6, 1)), atol=0.1)
    levels = batch.images[:, :, 0, 16, 16].numpy() * 255 / 6
    np.testing.assert_allclose(np.diff(levels), 2, atol=0.5)
    assert len(set(levels[:, 0].round().tolist())) > 2  # begins anywhere
    slow = source.read(request(range(2), frames=8, stride=600))  # longer than the video: slower steps
    assert float(slow.times[0, -1]) <= 3.95 * 30 and bool((slow.times.diff() > 0).all())


def test_a_video_that_is_too_short_or_none(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4", frames=3)
    with pytest.raises(InputError, match=r"a\.mp4: 0\.30 s at 10 Hz; a clip takes 8 frames"):
        VideoClipSource(str(tmp_path), 30.0, "raise").read(request(range(1), frames=8))
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.mp4: cannot be read as video"):
        VideoClipSource(str(tmp_path), 30.0, "raise").read(request(range(1), frames=2))


def llava(root: Path) -> Path:
    (root / "coco").mkdir(parents=True)
    (root / "coco" / "1.jpg").write_bytes(jpeg())
    turns = [("human", "<image>\nWhat colour is it?"), ("gpt", "Red."), ("human", "Sure?"), ("gpt", "Yes.")]
    entries: list[dict[str, Any]] = [
        {"id": "a", "image": "coco/1.jpg", "conversations": [{"from": f, "value": v} for f, v in turns]},
        {"id": "b", "conversations": []},
    ]
    (root / "data.json").write_text(json.dumps(entries))
    return root / "data.json"


def test_conversations_as_llava_has_them(tmp_path: Path, capsys: Any) -> None:
    source = TextSource(str(llava(tmp_path)), CaptionConfig(size=SIZE))
    assert "1 entries without an image are left out" in capsys.readouterr().err
    asked = source.read(range(12), 0, "cpu")
    assert asked.images.shape == (12, 1, 3, 32, 32)
    assert {(q.ask, q.answer) for q in asked.questions} == {("What colour is it?", "Red."), ("Sure?", "Yes.")}
    (tmp_path / "data.json").write_text('[{"image": "coco/1.jpg", "conversations": [{"from": "gpt"}]}]')
    with pytest.raises(InputError, match=r"data\.json: entry 0: "):
        TextSource(str(tmp_path / "data.json"), CaptionConfig(size=SIZE), "raise").read(range(1), 0, "cpu")
    (tmp_path / "data.json").write_text('{"image": 1}')
    with pytest.raises(InputError, match="expected a list of objects"):
        TextSource(str(tmp_path / "data.json"), CaptionConfig(size=SIZE))


def test_questions_on_one_picture_are_on_one_side_of_the_held_out_border(tmp_path: Path) -> None:
    """LLaVA's files ask several times about a picture, not always in a row."""
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(jpeg())
    entries = [
        {"image": picture, "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": picture}]}
        for picture in ("a.jpg", "b.jpg", "c.jpg", "a.jpg", "./c.jpg", "b.jpg")
    ]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    source = TextSource(str(tmp_path / "data.json"), CaptionConfig(size=SIZE))
    trained = {question.answer for question in source.read(range(40), 0, "cpu").questions}
    kept = {question.answer for question in source.read(range(HELD_OUT, HELD_OUT + 40), 0, "cpu").questions}
    assert trained == {"a.jpg", "b.jpg"} and kept == {"c.jpg", "./c.jpg"}


@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 1), (1, 4)], ids=str)
def test_a_shard_of_one_sample_is_on_one_side_of_the_held_out_border(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    for number, size in enumerate(sizes):
        texts = [{"jpg": jpeg(), "txt": f"shard {number} picture {i}"} for i in range(size)]
        shard(tmp_path / f"{number}.tar", texts)
    source = TextSource(str(tmp_path), CaptionConfig(size=SIZE))
    trained, kept = (
        {source.read([first + n], 0, "cpu").questions[0].answer for n in range(60)} for first in (0, HELD_OUT)
    )
    assert trained and kept and not trained & kept
    assert len(trained | kept) == sum(sizes)


def test_one_sample_alone_is_trained_on_and_evaluated_and_that_is_said(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "x.jpg").write_bytes(jpeg())
    source = PictureSource(str(tmp_path))
    for first in (0, HELD_OUT):
        source.read(request(range(first, first + 3)))
    assert capsys.readouterr().err.count("evaluations see what was trained on") == 1


def test_captions_and_boxes_beside_pictures(tmp_path: Path) -> None:
    boxes = [[0, 9, 0.1, 0.2, 0.5, 1.0, 0.9]]
    samples = [{"jpg": jpeg(), "json": {"caption": "A red cup on the table", "ref_exps": boxes}}] * 3
    shard(tmp_path / "000.tar", samples)  # GRIT, as img2dataset writes it
    asked = TextSource(str(tmp_path), CaptionConfig(size=SIZE)).read(range(20), 0, "cpu").questions
    assert {q.answer for q in asked} == {"A red cup on the table", "100 200 500 999"}
    assert {q.ask for q in asked} == {"Describe the picture.", "Where is the red cup?"}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.jpg").write_bytes(jpeg())
    (tmp_path / "folder" / "x.txt").write_text("a red plane\n")
    (question,) = TextSource(str(tmp_path / "folder"), CaptionConfig(size=SIZE)).read(range(1), 0, "cpu").questions
    assert (question.kind, question.answer) == ("describe", "a red plane")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ('{"text": "x"}', 'neither "conversations" nor a "caption"'),
        ('{"caption": "x", "ref_exps": [[0, 1, 0.5, 0.2, 0.4, 1]]}', "phrase 'x' at .* a box in 0 .. 1"),
        ('{"caption": "x", "ref_exps": [[0, 1]]}', "ref_exps is not"),
    ],
)
def test_texts_that_say_nothing(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    (tmp_path / "x.jpg").write_bytes(jpeg())
    (sample,) = Store(tmp_path, ("json",)).samples(0)
    draw = random.Random(0)
    with pytest.raises(InputError, match=message):
        for _ in range(20):  # a box is asked for every other time
            question_of(sample, draw)


def test_shards_that_webdataset_writes(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "000.tar")) as sink:
        for number in range(4):
            sink.write({"__key__": f"a/{number:06d}", "jpg": jpeg(), "json": {"caption": "red"}, "txt": "red"})
    store = Store(tmp_path, ("jpg",))
    assert [sample.name for sample in store.samples(0)] == [f"a/{number:06d}" for number in range(4)]
    assert set(store.samples(0)[0].parts) == {"jpg", "json", "txt"}
    asked = TextSource(str(tmp_path), CaptionConfig(size=SIZE)).read(range(3), 0, "cpu")
    assert {question.answer for question in asked.questions} == {"red"}
