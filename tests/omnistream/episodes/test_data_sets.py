# SPDX-License-Identifier: Apache-2.0
"""What is written is read back; the layout is LeRobot's; a writer that stops leaves nothing behind."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pyarrow.parquet as parquet
import pytest

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper
from omnistream.episodes import EpisodeWriter, open_dataset, write_episode
from omnistream.episodes import lerobot_tables as tables
from omnistream.episodes.statistics import RunningStatistics
from omnistream.errors import ConfigError, ContractError, InputError

CONTRACT = Contract(
    rate=10.0,
    cameras=(Camera("front", 32, 48), Camera("wrist", 16, 16)),
    state=(Dimension("x", "m"), Dimension("y", "m")),
    action=Action((Dimension("dx", "m"), Dimension("gripper", "1")), "delta", "base_link", (Gripper(1, 1.0, -1.0),)),
)


def pictures(episode: int, t: int) -> dict[str, np.ndarray]:
    rows, columns = np.mgrid[:32, :48]
    front = np.stack([rows * 3 + t, columns * 4, rows + columns + 20 * episode], -1).astype(np.uint8)
    return {"front": front, "wrist": np.full((16, 16, 3), 10 * episode + t, np.uint8)}


def write(folder, storage="image", lengths=(5, 70, 3), contract=CONTRACT, **options):
    with EpisodeWriter(folder, contract, storage=storage, **options) as writer:
        for e, length in enumerate(lengths):
            writer.begin(f"task {e % 2}", source=f"source {e}")
            for t in range(length):
                writer.add([t, e], [0.1 * t, 1 - 2 * (t % 2)], pictures(e, t), stamp=100 + e + 0.1 * t)
            writer.end(success=(None, True, False)[e % 3])
    return open_dataset(folder)


@pytest.mark.parametrize("storage", ["image", "jpeg", "video"])
def test_what_is_written_is_read(tmp_path, storage):
    dataset = write(tmp_path / "set", storage)
    assert [(i.length, i.instruction, i.success, i.source) for i in dataset.infos] == [
        (5, "task 0", None, "source 0"),
        (70, "task 1", True, "source 1"),
        (3, "task 0", False, "source 2"),
    ]
    dataset = pickle.loads(pickle.dumps(dataset))  # as a loader's workers get it
    for e, episode in enumerate(dataset):
        n = len(episode)
        assert episode.state.tolist() == [[t, e] for t in range(n)]
        assert episode.action[:, 0].tolist() == np.float32([0.1 * t for t in range(n)]).tolist()
        np.testing.assert_allclose(episode.stamps, 100 + e + 0.1 * np.arange(n), atol=1e-12)
        for camera in ("front", "wrist"):
            for t, image in enumerate(episode.frames(camera)):
                error = np.abs(image.astype(int) - pictures(e, t)[camera])
                assert error.max() == 0 if storage == "image" else error.mean() < 3
            assert t == n - 1
        alone = episode.frame("front", n - 1)
        np.testing.assert_array_equal(alone, list(episode.frames("front", n - 2))[-1])
    assert dataset.contract.action_statistics.count == 78
    assert replace(dataset.contract, state_statistics=None, action_statistics=None) == CONTRACT


def test_odd_sizes_are_no_video(tmp_path):
    with pytest.raises(ConfigError, match="expected even sides"):
        write(tmp_path / "set", "video", contract=replace(CONTRACT, cameras=(Camera("front", 31, 48),)))
    assert list(tmp_path.iterdir()) == []


def test_the_layout_is_lerobots(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FILE_BYTES", 20_000)
    root = tmp_path / "set"
    write(root)
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 10, 3, 78)
    assert info["features"]["observation.images.front"] == {
        "dtype": "image",
        "shape": [32, 48, 3],
        "names": ["height", "width", "channels"],
    }
    files = sorted((root / "data/chunk-000").glob("*.parquet"))
    assert [file.name for file in files] == ["file-000.parquet", "file-001.parquet"]
    rows = [row for file in files for row in parquet.read_table(file).to_pylist()]
    assert [row["index"] for row in rows] == list(range(78))
    assert {tuple(row) for row in rows} == {tuple(info["features"])}
    assert rows[6]["timestamp"] == np.float32(0.1) and rows[6]["frame_index"] == 1 and rows[6]["task_index"] == 1
    assert rows[6]["observation.images.front"]["bytes"].startswith(b"\x89PNG")
    episodes = parquet.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    spans = [(e["data/file_index"], e["dataset_from_index"], e["dataset_to_index"]) for e in episodes]
    assert spans == [(0, 0, 5), (0, 5, 75), (1, 75, 78)]
    assert episodes[1]["tasks"] == ["task 1"] and episodes[1]["stats/observation.state/max"] == [69.0, 1.0]
    tasks = parquet.read_table(root / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["task 0", "task 1"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    stats = json.loads((root / "meta/stats.json").read_text())
    assert stats["action"]["min"][1] == -1.0 and np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1)
    assert set(stats["action"]) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}


def test_an_episode_can_be_discarded(tmp_path):
    for storage in ("image", "video"):
        root = tmp_path / storage
        with EpisodeWriter(root, CONTRACT, storage=storage) as writer:
            for keep in (False, True, False):
                writer.begin("again")
                writer.add([0, 0], [float(keep), 0], pictures(int(keep), 0))
                writer.add([0, 0], [float(keep), 0], pictures(int(keep), 1))
                writer.end() if keep else writer.discard()
        (episode,) = open_dataset(root)
        assert episode.action[0, 0] == 1 and len(list(root.rglob("*.mp4"))) == (2 if storage == "video" else 0)
        assert len(list(episode.frames("wrist"))) == 2


def test_a_writer_that_stops_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), EpisodeWriter(tmp_path / "set", CONTRACT) as writer:
        writer.begin("x")
        writer.add([0, 0], [0, 0], pictures(0, 0))
        writer.end()
        raise RuntimeError("stopped")
    with pytest.raises(ConfigError, match="no episode was written"), EpisodeWriter(tmp_path / "set", CONTRACT):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": [0.0]}, r"step 0: state is \[0.0\]; expected 2 finite numbers"),
        ({"action": [0.0, np.nan]}, "step 0: action is"),
        ({"images": {}}, "pictures of .*; the contract has \\['front', 'wrist'\\]"),
        (
            {"images": pictures(0, 0) | {"front": np.zeros((8, 8, 3), np.uint8)}},
            r"uint8 \[8, 8, 3\]; the contract says",
        ),
        ({"stamp": float("nan")}, "stamp is nan"),
    ],
)
def test_what_does_not_fit_the_contract_is_named(tmp_path, change, message):
    step = {"state": [0.0, 0.0], "action": [0.0, 0.0], "images": pictures(0, 0), "stamp": 0.0}
    with EpisodeWriter(tmp_path / "set", CONTRACT) as writer:
        writer.begin("x")
        with pytest.raises(InputError, match=message):
            writer.add(**(step | change))
        writer.add(**step)
        with pytest.raises(InputError, match="stamp is 0.0 s; expected more than 0.0"):
            writer.add(**step)
        writer.end()
    with pytest.raises(ConfigError, match="exists already"):
        EpisodeWriter(tmp_path / "set", CONTRACT)


def test_no_state_and_no_camera(tmp_path):
    contract = replace(CONTRACT, state=(), cameras=())
    with EpisodeWriter(tmp_path / "set", contract) as writer:
        writer.begin("x")
        writer.add([], [1, 2], {})
        writer.end()
    (episode,) = open_dataset(tmp_path / "set")
    assert episode.state.shape == (1, 0) and episode.cameras == ()


def test_copying_an_episode(tmp_path):
    first = write(tmp_path / "a", lengths=(4,))
    with EpisodeWriter(tmp_path / "b", first.contract) as writer:
        write_episode(writer, first[0])
    second = open_dataset(tmp_path / "b")
    assert second.infos == first.infos
    for a, b in zip(first[0].frames("front"), second[0].frames("front"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_contract_that_does_not_fit_its_data_is_refused(tmp_path):
    write(tmp_path / "set")
    path = tmp_path / "set/meta/omnistream_contract.yaml"
    path.write_text(path.read_text().replace("rate: 10.0", "rate: 30.0"))
    with pytest.raises(ContractError, match=r"rate is 30.0, but meta/info.json says 10.0"):
        open_dataset(tmp_path / "set")


def v2(root, lengths=(4, 6)):
    """As lerobot 0.1 wrote it: a file per episode, lines of JSON, pictures in cells."""
    source = write(root / "v3", lengths=lengths)
    (root / "v2/meta").mkdir(parents=True)
    (root / "v2/data/chunk-000").mkdir(parents=True)
    info = json.loads((root / "v3/meta/info.json").read_text())
    info |= {"codebase_version": "v2.1"}
    del info["data_path"], info["video_path"]
    info["features"]["action"]["names"] = {"motors": ["a", "b"]}
    (root / "v2/meta/info.json").write_text(json.dumps(info))
    lines = []
    for e, episode in enumerate(source.infos):
        table = parquet.read_table(root / "v3/data/chunk-000/file-000.parquet", filters=[("episode_index", "=", e)])
        parquet.write_table(table, root / f"v2/data/chunk-000/episode_{e:06d}.parquet")
        lines.append(json.dumps({"episode_index": e, "length": episode.length, "tasks": [episode.instruction]}))
    (root / "v2/meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    return source, root / "v2"


def test_v2_is_read(tmp_path):
    source, root = v2(tmp_path)
    dataset = open_dataset(root)
    assert dataset.contract.action_names == ("a", "b") and "action.mode" in dataset.contract.unspecified
    for a, b in zip(source, dataset, strict=True):
        np.testing.assert_array_equal(a.action, b.action)
        np.testing.assert_array_equal(a.frame("wrist", 2), b.frame("wrist", 2))
    (root / "data/chunk-000/episode_000000.parquet").unlink()
    left = open_dataset(root)
    assert len(left) == 1 and left.lost == ("episode 0: data/chunk-000/episode_000000.parquet is missing",)
    assert left[0].info.source == "episode 1" and left[0].info.index == 0
    told = open_dataset(root, contract=replace(CONTRACT, rate=10.0))
    assert told.contract.unspecified == ()
    with pytest.raises(InputError, match="the contract given says rate 5.0; the data set says 10.0"):
        open_dataset(root, contract=replace(CONTRACT, rate=5.0))


@pytest.mark.parametrize("storage", ["image", "video"])
def test_an_episode_with_several_instructions_is_read_as_one_for_each(tmp_path, storage):
    """As others record: the instruction changes in the middle, and task_index says where."""
    source = write(tmp_path / "set", storage=storage, lengths=(4, 9, 6))
    data, meta = (
        tmp_path / "set" / name
        for name in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet")
    )
    frames, episodes = parquet.read_table(data), parquet.read_table(meta)
    told = frames.column("task_index").to_pylist()
    told[4:13] = [1] * 3 + [0] * 4 + [1] * 2

    def with_column(table, name, values):
        number = table.column_names.index(name)
        return table.set_column(number, table.schema.field(name), [values])

    parquet.write_table(with_column(frames, "task_index", told), data)
    tasks = [["task 0"], ["task 1", "task 0"], ["task 0"]]
    parquet.write_table(with_column(episodes, "tasks", tasks), meta)
    dataset = open_dataset(tmp_path / "set")
    assert [(i.instruction, i.length, i.success) for i in dataset.infos] == [
        ("task 0", 4, None), ("task 1", 3, None), ("task 0", 4, None), ("task 1", 2, True), ("task 0", 6, False),
    ]  # fmt: skip
    assert dataset.infos[2].source == "source 1, frames 3 to 6" and dataset.infos[4].number == 2
    whole, part = source[1], dataset[2]
    np.testing.assert_array_equal(part.action, whole.action[3:7])
    np.testing.assert_array_equal(part.stamps, whole.stamps[3:7])
    found = list(part.frames("wrist", 1))
    np.testing.assert_array_equal(found, list(whole.frames("wrist", 4, 7)))
    parquet.write_table(with_column(frames, "task_index", [7] * len(told)), data)
    assert open_dataset(tmp_path / "set").lost == (
        f"episode 1 has 2 instructions: {data}: task_index 7 is not among the tasks in meta",
    )


def test_an_action_of_one_number_may_be_stored_as_that(tmp_path):
    dimension = Action((Dimension("dx", "m"),), "delta", "base_link")
    contract = replace(CONTRACT, action=dimension, state=())
    with EpisodeWriter(tmp_path / "set", contract, storage="image") as writer:
        writer.begin("go")
        for t in range(3):
            writer.add([], [0.1 * t], pictures(0, t))
        writer.end()
    data, info = tmp_path / "set/data/chunk-000/file-000.parquet", tmp_path / "set/meta/info.json"
    table = parquet.read_table(data)
    number = table.column_names.index("action")
    parquet.write_table(table.set_column(number, "action", [[0.0, 0.1, 0.2]]), data)
    text = json.loads(info.read_text())
    for shape in ([], [1]):
        text["features"]["action"]["shape"] = shape
        info.write_text(json.dumps(text))
        np.testing.assert_allclose(open_dataset(tmp_path / "set")[0].action[:, 0], [0, 0.1, 0.2], atol=1e-7)


def test_statistics_of_parts_are_those_of_the_whole():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(5000, 3)) * [1, 10, 0.1] + [0, 5, 1000]
    running = RunningStatistics(3)
    for part in np.split(rows, [7, 8, 2000]):
        running.add(part)
    found = running.arrays()
    for name, expected in {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        "q01": np.percentile(rows, 1, axis=0),
        "q99": np.percentile(rows, 99, axis=0),
    }.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-9)
