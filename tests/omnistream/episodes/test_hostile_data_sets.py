# SPDX-License-Identifier: Apache-2.0
"""Damaged, half-written and hostile LeRobot folders are refused by name."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from omnistream.contract import Action, Camera, Contract, Dimension
from omnistream.episodes import EpisodeWriter, open_dataset
from omnistream.errors import InputError, OmniStreamError

CONTRACT = Contract(
    rate=10.0, cameras=(Camera("front", 16, 16),), state=(Dimension("x", "m"),), action=Action((Dimension("dx", "m"),))
)
DATA = "data/chunk-000/file-000.parquet"


@pytest.fixture(params=["image"])
def root(tmp_path, request):
    generator = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "set", CONTRACT, storage=request.param) as writer:
        for _ in range(2):
            writer.begin("x")
            for t in range(8):
                writer.add([t], [t], {"front": generator.integers(0, 255, (16, 16, 3), np.uint8)})
            writer.end()
    return tmp_path / "set"


def read_all(root):
    for episode in open_dataset(root):
        for camera in episode.cameras:
            list(episode.frames(camera))


def change_info(root, **changes):
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_half_written(root):
    (root / "meta/info.json").unlink()
    with pytest.raises(InputError, match=r"meta/info.json is missing \(a writer that was stopped"):
        open_dataset(root)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_table(root, share):
    path = root / DATA
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"file-000\.parquet: cannot be read as parquet"):
        read_all(root)


def test_wrong_bytes_anywhere_are_errors_of_ours(root):
    """Flips bytes all over the file: it is read, or refused by name; no other exception, no crash."""
    path = root / DATA
    whole = path.read_bytes()
    generator = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(whole)
        for at in generator.integers(0, len(whole), 3):
            damaged[at] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_all(root)
        except OmniStreamError as error:
            assert "file-000.parquet" in str(error) or "episode" in str(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, "codebase_version is 'v1.6'; supported: v3.0, v2.1"),
        ({"fps": 0}, "fps is 0; expected Hz above 0"),
        ({"fps": "30"}, "fps is '30'"),
        ({"features": []}, "features is list; expected a mapping"),
        ({"features": {"action": {"dtype": "float32", "shape": ["7"]}}}, r"shape \['7'\]"),
        ({"features": {}}, "no feature 'action'"),
        ({"data_path": "/etc/passwd"}, "leads out of the data set"),
        ({"data_path": "../other/{chunk_index:03d}"}, "leads out of the data set"),
        ({"data_path": "data/{secret}"}, "asks for 'secret'"),
        ({"data_path": "data/{chunk_index.__class__}"}, "no episode can be read"),
    ],
)
def test_hostile_metadata(root, changes, message):
    (root / "meta/omnistream_contract.yaml").unlink()
    change_info(root, **changes)
    with pytest.raises(InputError, match=message):
        read_all(root)


def rewrite(root, column, values):
    path = root / DATA
    table = parquet.read_table(path)
    parquet.write_table(table.set_column(table.column_names.index(column), column, values), path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("action", pa.array([[1.0, 2.0]] * 16), "column 'action': not every row has 1 numbers"),
        ("action", pa.array([[1.0]] * 15 + [None]), "column 'action': not every row has 1 numbers"),
        ("action", pa.array([[1.0]] * 14 + [[], [1.0, 2.0]]), "column 'action': not every row has 1 numbers"),
        ("action", pa.array(["far"] * 16), "column 'action' holds string"),
        ("action", pa.array([[float("nan")]] * 16), "column 'action' has 8 rows with NaN"),
        ("stamp", pa.array([1.0] * 16), "stamps are not 8 increasing"),
        ("episode_index", pa.array([0, 1] * 8), "rows of episode 0 lie in more than one place"),
        ("episode_index", pa.array([0] * 9 + [1] * 7), "episode 0 has 9 rows; its metadata says 8"),
        ("episode_index", pa.array([5] * 16), "no rows of episode 0"),
        (
            "observation.images.front",
            pa.array([b"no picture"] * 16),
            "picture 0: compressed image .* cannot be decoded",
        ),
        ("observation.images.front", pa.array([1] * 16), "holds int64; expected encoded pictures"),
        (
            "observation.images.front",
            pa.array([{"bytes": None, "path": "/etc/passwd"}] * 16),
            "picture 0: no bytes; expected a PNG or JPEG",
        ),
    ],
)
def test_tables_of_the_wrong_shape(root, column, values, message):
    rewrite(root, column, values)
    with pytest.raises(InputError, match=message):
        read_all(root)


def test_a_missing_column_is_named(root):
    table = parquet.read_table(root / DATA).drop_columns(["observation.state"])
    parquet.write_table(table, root / DATA)
    with pytest.raises(InputError, match="no column 'observation.state'; there are action"):
        read_all(root)


@pytest.mark.parametrize("root", ["video"], indirect=True)
def test_damaged_videos(root):
    (video,) = (root / "videos/observation.images.front/chunk-000").glob("file-000.mp4")
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"file-000\.mp4: cannot be read as video"):
        read_all(root)
    video.write_bytes(b"")
    with pytest.raises(InputError, match=r"file-000\.mp4"):
        read_all(root)
    (other,) = (root / "videos/observation.images.front/chunk-000").glob("file-001.mp4")
    other.unlink()
    assert "file-001.mp4 is missing" in open_dataset(root).lost[0]


def test_asking_for_what_is_not_there(root):
    episode = open_dataset(root)[0]
    with pytest.raises(InputError, match="no camera 'rear'; there are \\['front'\\]"):
        episode.frames("rear")
    with pytest.raises(InputError, match="frames 3 to 9 asked for; it has 8"):
        episode.frames("front", 3, 9)
    with pytest.raises(IndexError, match="episode 2"):
        open_dataset(root)[2]
