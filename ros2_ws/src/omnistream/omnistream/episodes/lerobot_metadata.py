# SPDX-License-Identifier: Apache-2.0
"""What lies in meta/ of a LeRobot v3 data set, and our contract beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Contract, save_contract
from omnistream.episodes.lerobot_layout import (
    CONTRACT,
    DATA_PATH,
    EPISODES_PATH,
    FILES_PER_CHUNK,
    INFO,
    PICTURES,
    VIDEO_PATH,
)
from omnistream.io.extras import need

Arrays = dict[str, dict[str, NDArray[np.float64]]]


def write_metadata(
    root: Path,
    contract: Contract,
    features: dict[str, dict[str, Any]],
    rows: list[dict[str, Any]],
    tasks: list[str],
    totals: Arrays,
    *,
    robot: str,
) -> None:
    """Write all of meta/; info.json, without which there is no data set, comes last.

    rows: one per episode, with its statistics under "stats"; totals: statistics of the set, by feature.
    """
    (root / "meta").mkdir(exist_ok=True)
    _write_episodes(root, rows)
    _write_tasks(root, tasks)
    _write_json(root / "meta/stats.json", {name: _nested(name, arrays) for name, arrays in totals.items()})
    save_contract(root / CONTRACT, contract)
    rate = contract.rate
    listed = {
        name: feature | ({"info": _video_info(feature, rate)} if feature["dtype"] == "video" else {})
        for name, feature in features.items()
    }
    info = {
        "codebase_version": "v3.0",
        "robot_type": robot,
        "total_episodes": len(rows),
        "total_frames": sum(row["length"] for row in rows),
        "total_tasks": len(tasks),
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(rate) if float(rate).is_integer() else rate,
        "splits": {"train": f"0:{len(rows)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if any(f["dtype"] == "video" for f in features.values()) else None,
        "features": listed,
    }
    _write_json(root / INFO, info)


def _video_info(feature: dict[str, Any], rate: float) -> dict[str, Any]:
    height, width, channels = feature["shape"]
    return {
        "video.height": height,
        "video.width": width,
        "video.channels": channels,
        "video.pix_fmt": "yuv420p",
        "video.fps": rate,
        "video.is_depth_map": False,
        "has_audio": False,
    }


def _write_episodes(root: Path, rows: list[dict[str, Any]]) -> None:
    pa, parquet = _arrow()
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0] if name != "stats"}
    for feature, arrays in rows[0]["stats"].items():
        for name in arrays:
            columns[f"stats/{feature}/{name}"] = [_nested(feature, row["stats"][feature])[name] for row in rows]
    columns |= {"meta/episodes/chunk_index": [0] * len(rows), "meta/episodes/file_index": [0] * len(rows)}
    arrays = {name: pa.array(values) for name, values in columns.items() if name != "success"}
    arrays["success"] = pa.array(columns["success"], pa.bool_())
    path = root / EPISODES_PATH.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True)
    parquet.write_table(pa.table(arrays), str(path))


def _write_tasks(root: Path, tasks: list[str]) -> None:
    """A pandas table whose index is the instruction, which is how LeRobot looks it up."""
    pa, parquet = _arrow()
    column = {"metadata": None, "numpy_type": "int64", "pandas_type": "int64"}
    text = {"metadata": None, "numpy_type": "object", "pandas_type": "unicode"}
    names = [column | {"name": "task_index", "field_name": "task_index"}, text | {"name": "task", "field_name": "task"}]
    index = text | {"name": None, "field_name": None, "metadata": {"encoding": "UTF-8"}}
    pandas = {"index_columns": ["task"], "column_indexes": [index], "columns": names, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), str(root / "meta/tasks.parquet"))


def _nested(feature: str, arrays: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Lists; numbers of pictures are [3, 1, 1], as LeRobot broadcasts them."""
    picture = feature.startswith(PICTURES)
    return {
        name: (values.astype(np.int64) if name == "count" else values.reshape(-1, 1, 1) if picture else values).tolist()
        for name, values in arrays.items()
    }


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=4, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _arrow() -> tuple[Any, Any]:
    return need("pyarrow", "io", "writing data sets"), need("pyarrow.parquet", "io", "writing data sets")
