# SPDX-License-Identifier: Apache-2.0
"""Writes a small RLDS set: one TFRecord file, pictures as PNG, and what TFDS wants beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from omnistream.contract import Contract, save_contract
from omnistream.episodes.dataset import Episode, EpisodeDataset
from omnistream.episodes.pictures import encode_png
from omnistream.errors import ConfigError
from omnistream.io.files import replacing
from omnistream_training.robot_data.example import Value, encode_example
from omnistream_training.robot_data.rlds_reader import CONTRACT
from omnistream_training.robot_data.tfrecord import write_record

VERSION = "1.0.0"


def write_rlds(folder: Path, dataset: EpisodeDataset, *, name: str = "omnistream") -> Path:
    """Write all episodes to folder/1.0.0; returns that. Stamps are lost: RLDS keeps none. ConfigError if it is taken.

    A whole episode is in memory while it is written, as whoever reads it has it.
    """
    out = folder / VERSION
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another name")
    out.mkdir(parents=True)
    path = out / f"{name}-train.tfrecord-00000-of-00001"
    with replacing(path) as temporary, temporary.open("wb") as file:
        for episode in dataset:
            write_record(file, encode_example(_features(episode)))
    save_contract(out / CONTRACT, dataset.contract)
    split = {
        "name": "train",
        "numBytes": str(path.stat().st_size),
        "shardLengths": [str(len(dataset))],
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {"name": name, "version": VERSION, "fileFormat": "tfrecord", "splits": [split]}
    (out / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n")
    (out / "features.json").write_text(json.dumps(_described(dataset.contract), indent=2) + "\n")
    return out


def _features(episode: Episode) -> dict[str, Value]:
    n = len(episode)
    first, last = np.zeros(n, np.int64), np.zeros(n, np.int64)
    first[0] = last[-1] = 1
    found: dict[str, Value] = {
        "steps/is_first": first,
        "steps/is_last": last,
        "steps/is_terminal": last,
        "steps/reward": (last * (episode.success is True)).astype(np.float32),
        "steps/discount": np.ones(n, np.float32),
        "steps/language_instruction": [episode.instruction.encode()] * n,
        "steps/action": episode.action.reshape(-1),
        "episode_metadata/file_path": [episode.info.source.encode()],
        "episode_metadata/success": np.array([-1 if episode.success is None else int(episode.success)]),
    }
    if episode.state.shape[1]:
        found["steps/observation/state"] = episode.state.reshape(-1)
    for camera in episode.cameras:
        found[f"steps/observation/{camera}"] = [encode_png(image) for image in episode.frames(camera)]
    return found


def _described(contract: Contract) -> dict[str, Any]:
    """features.json, as tensorflow_datasets writes it."""

    def tensor(dtype: str, *shape: int) -> dict[str, Any]:
        kind = "tensor_feature.Tensor" if shape else "scalar.Scalar"
        dimensions = {"dimensions": [str(n) for n in shape]} if shape else {}
        return _feature(kind, "tensor", {"shape": dimensions, "dtype": dtype, "encoding": "none"})

    seen = {
        camera.name: _feature(
            "image_feature.Image",
            "image",
            {
                "shape": {"dimensions": [str(camera.height), str(camera.width), "3"]},
                "dtype": "uint8",
                "encodingFormat": "png",
            },
        )
        for camera in contract.cameras
    }
    if contract.state:
        seen["state"] = tensor("float32", len(contract.state))
    step = {name: tensor("bool") for name in ("is_first", "is_last", "is_terminal")}
    step |= {name: tensor("float32") for name in ("reward", "discount")}
    step |= {
        "action": tensor("float32", len(contract.action.dimensions)),
        "language_instruction": _feature("text_feature.Text", "text", {}),
        "observation": _dictionary(seen),
    }
    metadata = {"file_path": _feature("text_feature.Text", "text", {}), "success": tensor("int64")}
    steps = _feature("dataset_feature.Dataset", "sequence", {"feature": _dictionary(step)})
    return _dictionary({"steps": steps, "episode_metadata": _dictionary(metadata)})


def _dictionary(features: dict[str, Any]) -> dict[str, Any]:
    return _feature("features_dict.FeaturesDict", "featuresDict", {"features": features})


def _feature(kind: str, key: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"pythonClassName": f"tensorflow_datasets.core.features.{kind}", key: content}
