# SPDX-License-Identifier: Apache-2.0
"""CALVIN is read in SI; pickles that name anything but arrays and containers are refused, and nothing of them runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from omnistream.episodes import open_dataset
from omnistream.errors import InputError
from omnistream_training.robot_data.calvin_reader import ANNOTATIONS, open_calvin
from omnistream_training.robot_data.cli import main
from omnistream_training.robot_data.safe_numpy import read_npy, read_npz, read_pickled_npy


def annotations(windows):
    return {
        "language": {
            "ann": [f"push {i}" for i in range(len(windows))],
            "task": ["push"] * len(windows),
            "emb": np.zeros((len(windows), 1, 384), np.float32),
        },
        "info": {"indx": windows, "episodes": []},
    }


@pytest.fixture
def split(tmp_path):
    folder = tmp_path / "task_X/training"
    (folder / "lang_annotations").mkdir(parents=True)
    for t in range(100, 120):
        np.savez(
            folder / f"episode_{t:07d}.npz",
            rgb_static=np.full((20, 20, 3), t, np.uint8),
            rgb_gripper=np.full((8, 8, 3), t + 1, np.uint8),
            robot_obs=np.arange(15.0) + t,
            rel_actions=np.array([1, 0, -1, 0.5, 0, 0, -1.0]),
        )
    np.save(folder / ANNOTATIONS, np.array(annotations([(100, 109), (105, 119), (115, 130)]), dtype=object))
    return folder


def test_windows_are_episodes_in_si_units(split, tmp_path):
    dataset = open_calvin(split)
    assert [(i.length, i.instruction, i.source) for i in dataset.infos] == [
        (10, "push 0", "push, frames 100 to 109"),
        (15, "push 1", "push, frames 105 to 119"),
    ]
    assert dataset.lost == ("window 115 to 130 (push 2): episode_0000120.npz is missing",)
    episode = dataset[1]
    np.testing.assert_allclose(episode.action[0], [0.02, 0, -0.02, 0.025, 0, 0, -1])
    assert episode.state[3].tolist() == (np.arange(15) + 108).tolist()
    assert [int(image[0, 0, 0]) for image in episode.frames("gripper", 2, 4)] == [108, 109]
    assert main(["convert", str(split), "--out", str(tmp_path / "set")]) == 1  # a window was lost
    assert open_dataset(tmp_path / "set")[1].frame("static", 0)[0, 0].tolist() == [105] * 3


def test_a_window_over_the_end_of_a_recording_is_no_episode(split):
    """Frames are numbered on from one recording to the next: no file is missing, and the arm leaps."""
    np.save(split / "ep_start_end_ids.npy", np.array([[90, 107], [108, 119]]))
    np.save(split / ANNOTATIONS, np.array(annotations([(100, 107), (100, 109), (108, 119), (110, 115)]), dtype=object))
    dataset = open_calvin(split)
    frames = ("100 to 107", "108 to 119", "110 to 115")
    assert [info.source for info in dataset.infos] == [f"push, frames {a}" for a in frames]
    assert dataset.lost == ("window 100 to 109 (push 1): goes beyond the recording 90 to 107 of ep_start_end_ids.npy",)
    np.save(split / "ep_start_end_ids.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"ep_start_end_ids.npy: float64 \[3\]; expected integers"):
        open_calvin(split)


class Runs:
    """What a hostile pickle does when it is opened without care."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(folder, value, protocol=2):
    """A .npy of objects around any pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": ()})
    pickle.dump(value, buffer, protocol=protocol)
    path = folder / "hostile.npy"
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, eval, getattr, open, np.load, np.fromfile, __import__])
def test_nothing_is_executed(tmp_path, protocol, function):
    mark = tmp_path / "mark"
    arguments = {os.system: (f"touch {mark}",), eval: (f"open({str(mark)!r}, 'w')",), open: (str(mark), "w")}
    value = {"language": Runs(function, *arguments.get(function, ("os",)))}
    with pytest.raises(InputError, match="refused: the pickle names .*only arrays and builtin containers"):
        read_pickled_npy(hostile(tmp_path, value, protocol))
    assert not mark.exists()


def test_a_hostile_calvin_split_is_refused_by_name(split, tmp_path):
    np.save(split / ANNOTATIONS, np.array({"language": Runs(os.system, f"touch {tmp_path}/mark")}, dtype=object))
    with pytest.raises(InputError, match=r"auto_lang_ann\.npy: refused: the pickle names (posix|nt)\.system"):
        open_calvin(split)
    assert main(["convert", str(split), "--out", str(tmp_path / "set")]) == 3
    assert not (tmp_path / "mark").exists() and not (tmp_path / "set").exists()


def test_large_arrays_cannot_be_ordered_by_a_pickle(tmp_path):
    for value in (Runs(np.ndarray, (10**12,)), Runs(np.zeros, 10**12)):
        with pytest.raises(InputError, match="refused"):
            read_pickled_npy(hostile(tmp_path, value))
    data = b"\x80\x02]r\xff\xff\xff\x7f."  # "remember this as number 2147483647"
    path = hostile(tmp_path, None)
    path.write_bytes(path.read_bytes()[:128] + data)
    with pytest.raises(InputError):
        read_pickled_npy(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_numpy_itself_pickles_is_read(tmp_path, protocol):
    value = {
        "a": [1, (2.5, "three"), None, True, {"x"}],
        "array": np.arange(6.0).reshape(2, 3),
        "words": np.array(["push", "lift"]),
        "objects": np.array([{"deep": 1}, None], dtype=object),
        "number": np.float64(1.5),
        "bytes": b"\x00\xff",
    }
    array = np.empty((), object)
    array[()] = value
    found = read_pickled_npy(hostile(tmp_path, array, protocol))
    assert found["a"] == value["a"] and found["number"] == 1.5 and found["bytes"] == b"\x00\xff"
    np.testing.assert_array_equal(found["array"], value["array"])
    assert found["words"].tolist() == ["push", "lift"] and found["objects"][0] == {"deep": 1}


def test_truncated_pickles_and_arrays(tmp_path, split):
    path = split / ANNOTATIONS
    whole = path.read_bytes()
    for length in (0, 5, 60, 130, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"auto_lang_ann\.npy"):
            open_calvin(split)
    np.save(path, np.array({"language": 3}, dtype=object))
    with pytest.raises(InputError, match="no language/ann, language/task and info/indx"):
        open_calvin(split)
    np.save(path, np.array(annotations([(5, 3)]), dtype=object))
    with pytest.raises(InputError, match="a window goes from 5 to 3"):
        open_calvin(split)


def test_damaged_steps(split):
    step = split / "episode_0000107.npz"
    whole = step.read_bytes()
    step.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"episode_0000107\.npz: cannot be read"):
        open_calvin(split)[0]
    np.savez(step, rgb_static=np.zeros((20, 20, 3), np.uint8), robot_obs=np.zeros(3), rel_actions=np.zeros(7))
    with pytest.raises(InputError, match=r"robot_obs is float64 \[3\]; expected \[15\]"):
        open_calvin(split)[0]
    np.savez(step, robot_obs=np.zeros(15), rel_actions=np.array([None] * 7))
    with pytest.raises(InputError, match=r"episode_0000107\.npz: cannot be read: Object arrays"):
        open_calvin(split)[0]
    np.savez(step, robot_obs=np.zeros(15))
    with pytest.raises(InputError, match="no array 'rel_actions'; there are robot_obs"):
        open_calvin(split)[0]


def test_a_zip_that_unpacks_to_more_than_it_may(tmp_path, monkeypatch):
    monkeypatch.setattr("omnistream_training.robot_data.safe_numpy.LARGEST", 10_000)
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(100_000))
    with pytest.raises(InputError, match="array 'a' has 100000 bytes; expected at most 10000"):
        read_npz(path, ("a",))
    np.save(tmp_path / "a.npy", np.zeros(10_000))
    with pytest.raises(InputError, match="bytes; expected at most"):
        read_npy(tmp_path / "a.npy")
