# SPDX-License-Identifier: Apache-2.0
"""plans.parquet: what is written is read, and what does not belong to the data set is refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "omnistream[io]"')

import pyarrow as pa
import pyarrow.parquet as pq

from omnistream.contract import Action, Contract, Dimension
from omnistream.episodes.plans import PLANS_FILE, Plans, joined, read_plans, write_plans
from omnistream.errors import InputError

CONTRACT = Contract(
    rate=10.0,
    cameras=(),
    state=(Dimension("x", "m"), Dimension("y", "m")),
    action=Action((Dimension("dx", "m"),), mode="delta", frame="base"),
)


def plans(rows: int = 3, episode: int = 0) -> Plans:
    draw = np.random.default_rng(episode)
    return Plans(
        goal=("y",),
        episode=np.full(rows, episode),
        frame=np.arange(rows),
        instruction=[f"go {i}" for i in range(rows)],
        keyframes=draw.random((rows, 2, 1), np.float32),
        actions=draw.random((rows, 4, 1), np.float32),
        steps=np.arange(rows),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_plans(tmp_path, CONTRACT) is None
    whole = joined([plans(3, 0), plans(2, 1)])
    write_plans(tmp_path, whole)
    found = read_plans(tmp_path, CONTRACT)
    assert found is not None and found.goal == ("y",) and found.instruction == whole.instruction
    for name in ("episode", "frame", "keyframes", "actions", "steps"):
        assert np.array_equal(getattr(found, name), getattr(whole, name)), name
    mine = found.rows(np.array([4, 1]))
    assert mine.instruction == ["go 1", "go 1"] and mine.episode.tolist() == [1, 0]


def test_none_at_all_is_read_as_none_at_all(tmp_path: Path) -> None:
    write_plans(tmp_path, plans(0))
    found = read_plans(tmp_path, CONTRACT)
    assert found is not None and len(found) == 0


def test_those_of_another_robot_or_damaged_are_refused(tmp_path: Path) -> None:
    write_plans(tmp_path, dataclasses.replace(plans(), goal=("elbow",)))
    with pytest.raises(InputError, match="keyframes in 'elbow'; the contract's state has no such dimension"):
        read_plans(tmp_path, CONTRACT)
    write_plans(tmp_path, dataclasses.replace(plans(), actions=np.zeros((3, 4, 2), np.float32)))
    with pytest.raises(InputError, match="column 'actions': not every row has 4 numbers"):
        read_plans(tmp_path, CONTRACT)
    bad = plans()
    bad.keyframes[1] = np.nan
    write_plans(tmp_path, bad)
    with pytest.raises(InputError, match="column 'keyframes' has 1 rows with NaN"):
        read_plans(tmp_path, CONTRACT)
    path = tmp_path / PLANS_FILE
    write_plans(tmp_path, plans())
    table = pq.read_table(path)
    for told in ({}, {"goal": ["y"], "keyframes": 2}, {"goal": "y", "keyframes": 2, "horizon": 4}):
        pq.write_table(table.replace_schema_metadata({"omnistream": json.dumps(told)}), path)
        with pytest.raises(InputError, match=PLANS_FILE):
            read_plans(tmp_path, CONTRACT)
    pq.write_table(table.set_column(5, "steps", pa.array([0, 1, 5], pa.int32())), path)
    with pytest.raises(InputError, match=f"{PLANS_FILE}: plans: steps are not within 0 to 4"):
        read_plans(tmp_path, CONTRACT)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as parquet"):
        read_plans(tmp_path, CONTRACT)


def test_columns_of_different_lengths_are_no_plans() -> None:
    with pytest.raises(InputError, match=r"plans: frame is \[2\] for 3 sentences"):
        dataclasses.replace(plans(), frame=np.zeros(2, int))
