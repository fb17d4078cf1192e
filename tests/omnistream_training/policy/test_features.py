# SPDX-License-Identifier: Apache-2.0
"""Features on disk: those of the stream, computed once, kept apart by what they depend on, resumed after a kill."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from omnistream.episodes import open_dataset
from omnistream.errors import ConfigError, InputError
from omnistream.model.config import BackboneConfig, HeadConfig, ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.policy.config import VisionConfig
from omnistream.policy.vision import PixelEye, StreamEye
from omnistream.weights import random_model
from omnistream_training.policy import features
from omnistream_training.policy.features import FeatureCache, FeatureTable
from omnistream_training.policy.fingerprint import folder_hash
from tests.omnistream_training.policy.conftest import write_pushes

VISION = VisionConfig(image_size=40, stream="window:3")


Precision = Literal["float32", "bfloat16"]


def table(
    root: Path,
    pushes: Path,
    model: OmniStream | None,
    vision: VisionConfig = VISION,
    precision: Precision = "float32",
) -> FeatureTable:
    cache = FeatureCache(root, vision, model, precision=precision)
    found = cache.table(open_dataset(pushes), folder_hash(pushes), "front", say=lambda text: None)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def tapped() -> OmniStream:
    """With heads, which tap four blocks."""
    heads = HeadConfig(taps=(0, 1, 2, 3), projections=(8, 8, 8, 8), features=8)
    config = BackboneConfig(dim=32, depth=4, heads=2, layer_scale_init=1.0)
    return random_model(ModelConfig(backbone=config, heads=heads, camera_token=True), 0)


@pytest.mark.parametrize(
    ("source", "taps", "enlarge"),
    [("backbone", (), True), ("backbone", (0, 2), True), ("pixels", (), True), ("pixels", (), False)],
)
def test_they_are_what_a_session_sees(
    tmp_path: Path,
    pushes: Path,
    backbone: OmniStream,
    tapped: OmniStream,
    source: Literal["backbone", "pixels"],
    taps: tuple[int, ...],
    enlarge: bool,
) -> None:
    """Sixteen streams side by side against one alone, episode by episode."""
    vision = dataclasses.replace(VISION, source=source, taps=taps, enlarge=enlarge, image_size=40 if enlarge else 96)
    model = tapped if taps else backbone
    found = table(tmp_path, pushes, model, vision)
    eye = (
        PixelEye(vision)
        if source == "pixels"
        else StreamEye(model, vision, engine="torch", dtype="float32", device="cpu")
    )
    row = 0
    for episode in open_dataset(pushes):
        eye.reset()
        for image in episode.frames("front"):
            seen = eye.see(image)
            assert seen.shape == found.tokens[row].shape
            assert np.abs(found.tokens[row].astype(np.float32) - seen.astype(np.float32)).max() < 4e-3  # a float16 step
            row += 1
    assert row == len(found.tokens) and found.tokens.shape[1] == 1 + found.grid[0] * found.grid[1]


def test_the_second_time_nothing_is_computed(
    tmp_path: Path, pushes: Path, backbone: OmniStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = np.array(table(tmp_path, pushes, backbone).tokens)

    def never(*_: object) -> Iterator[None]:
        raise AssertionError("computed again")

    monkeypatch.setattr(FeatureCache, "_compute", never)
    assert np.array_equal(table(tmp_path, pushes, backbone).tokens, first)


def test_what_they_depend_on_keeps_them_apart(
    tmp_path: Path, pushes: Path, backbone: OmniStream, tapped: OmniStream
) -> None:
    table(tmp_path, pushes, backbone)
    table(tmp_path, pushes, random_model(backbone.config, 1))
    table(tmp_path, pushes, backbone, dataclasses.replace(VISION, stream="window:2"))
    table(tmp_path, pushes, backbone, dataclasses.replace(VISION, image_size=64))
    table(tmp_path, pushes, tapped)
    table(tmp_path, pushes, tapped, dataclasses.replace(VISION, taps=(0,)))
    table(tmp_path, write_pushes(tmp_path / "other", seed=1), backbone)
    assert len(list(tmp_path.glob("*/features.json"))) == 7


def test_the_same_weights_behind_another_normalisation_or_other_taps_are_apart(
    tmp_path: Path, pushes: Path, tapped: OmniStream
) -> None:
    vision = dataclasses.replace(VISION, taps=(0,))
    assert tapped.config.heads is not None
    deep = dataclasses.replace(tapped.config, backbone=dataclasses.replace(tapped.config.backbone, depth=5))
    backbone = random_model(deep, 0).backbone.state_dict()
    for config in (
        deep,
        dataclasses.replace(deep, mean=(0.5, 0.5, 0.5)),
        dataclasses.replace(deep, heads=dataclasses.replace(tapped.config.heads, taps=(1, 2, 3, 4))),
    ):
        model = random_model(config, 0)
        model.backbone.load_state_dict(backbone)
        table(tmp_path, pushes, model, vision)
    assert len(list(tmp_path.glob("*/features.json"))) == 3


def test_bfloat16_products_are_those_of_a_bfloat16_session(tmp_path: Path, pushes: Path, backbone: OmniStream) -> None:
    """And not float32's, under a key of their own; the caller's model stays as it is."""
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    wide = np.array(table(tmp_path, pushes, backbone).tokens, np.float32)
    narrow = np.array(table(tmp_path, pushes, backbone, precision="bfloat16").tokens, np.float32)
    assert len(list(tmp_path.glob("*/features.json"))) == 2
    assert all(value.dtype == torch.float32 for value in backbone.state_dict().values())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    error = np.sqrt(np.mean((narrow - wide) ** 2)) / wide.std()
    assert 0 < error < 0.02
    eye = StreamEye(backbone, VISION, engine="torch", dtype="bfloat16", device="cpu")
    episode = next(iter(open_dataset(pushes)))
    seen = np.stack([eye.see(image) for image in episode.frames("front")]).astype(np.float32)
    assert np.sqrt(np.mean((narrow[: len(seen)] - seen) ** 2)) / wide.std() < error


def test_taps_that_the_backbone_does_not_have_are_refused(tmp_path: Path, backbone: OmniStream) -> None:
    with pytest.raises(ConfigError, match=r"vision.taps is \(1,\); the backbone's checkpoint has 0 taps"):
        FeatureCache(tmp_path, dataclasses.replace(VISION, taps=(1,)), backbone)


def test_a_kill_in_the_middle_costs_the_episodes_at_work(
    tmp_path: Path, pushes: Path, backbone: OmniStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "EPISODES_AT_ONCE", 3)
    whole = np.array(table(tmp_path / "whole", pushes, backbone).tokens)
    compute, groups = FeatureCache._compute, []

    def dies(self: FeatureCache, dataset: object, group: list[int], camera: str) -> Iterator:
        groups.append(list(group))
        if len(groups) == 3:
            raise KeyboardInterrupt
        yield from compute(self, dataset, group, camera)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureCache, "_compute", dies)
    with pytest.raises(KeyboardInterrupt):
        table(tmp_path / "cut", pushes, backbone)
    (done,) = (tmp_path / "cut").glob("*/done.jsonl")
    done.write_text(done.read_text() + '{"episode": 1')  # half a line
    assert np.array_equal(table(tmp_path / "cut", pushes, backbone).tokens, whole)
    computed = [episode for group in groups[3:] for episode in group]
    assert len(computed) == 12 - 6 and not set(computed) & set(groups[0] + groups[1])
    groups.clear()
    table(tmp_path / "cut", pushes, backbone)
    assert groups == []


def test_damage_is_noticed_and_repaired(tmp_path: Path, pushes: Path, backbone: OmniStream) -> None:
    whole = np.array(table(tmp_path, pushes, backbone).tokens)
    (path,) = tmp_path.glob("*/tokens.npy")
    values = np.lib.format.open_memmap(path, "r+")
    values[9, 0, 0] += 1
    values.flush()
    del values
    assert np.array_equal(table(tmp_path, pushes, backbone).tokens, whole)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        table(tmp_path, pushes, backbone)


def test_a_full_disk_is_said_before_the_work(
    tmp_path: Path, pushes: Path, backbone: OmniStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "HEADROOM", 1 << 60)
    with pytest.raises(ConfigError, match=r"take .* GiB.*choose another --cache"):
        table(tmp_path, pushes, backbone)


def test_a_byte_more_is_another_data_set(tmp_path: Path) -> None:
    data = write_pushes(tmp_path / "set", episodes=2)
    before = folder_hash(data)
    (data / ".hidden").write_text("not counted")
    assert folder_hash(data) == before
    info = data / "meta" / "info.json"
    info.write_text(json.dumps(json.loads(info.read_text())) + " ")
    assert folder_hash(data) != before
    with pytest.raises(InputError, match="no files"):
        (tmp_path / "empty").mkdir()
        folder_hash(tmp_path / "empty")
