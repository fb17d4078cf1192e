# SPDX-License-Identifier: Apache-2.0
"""Configurations: saved and read back they are equal; what is wrong in them is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from omnistream.errors import ConfigError
from omnistream_training.budget import fit_to
from omnistream_training.config import Stage, TrainConfig
from omnistream_training.config_file import config_to_dict, load_config, merge, save_config
from omnistream_training.presets import PRESETS, TOY, preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_file(name: str, tmp_path: Path) -> None:
    save_config(preset(name), tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml", TrainConfig()) == preset(name)


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lr: 1e-4}\nstages: [{steps: 5, clips: 1, frames: 2, size: [32, 48]}]\n")
    config = load_config(path, TOY)
    assert config.optim == dataclasses.replace(TOY.optim, lr=1e-4)
    assert config.stages == (Stage(steps=5, clips=1, frames=2, size=(32, 48)),)
    assert config.augment == TOY.augment


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"optimiser": {}}, r"config has unknown field\(s\) optimiser; known: augment"),
        ({"optim": {"lr": "fast"}}, "config.optim.lr is 'fast'; expected a number"),
        ({"optim": {"lr": -1.0}}, r"optim\.lr -1\.0"),
        ({"optim": 3}, "config.optim is 3; expected a mapping"),
        ({"seed": 1.5}, "config.seed is 1.5; expected int"),
        ({"compile": "yes"}, "config.compile is 'yes'; expected bool"),
        ({"precision": "float16"}, "config.precision is 'float16'; expected one of 'float32', 'bfloat16'"),
        ({"stages": []}, "stages is empty"),
        ({"stages": [{"steps": 1}]}, r"config\.stages\[0\].*missing \['clips', 'frames'\]"),
        ({"stages": [{"steps": 1, "clips": 1, "frames": 1, "size": [1]}]}, r"size is \[1\]; expected 2 values"),
        ({"stages": [{"steps": 1, "clips": 1, "frames": 1, "stride": [4, 2]}]}, r"stride is \(4, 2\)"),
        ({"model": {"preset": "huge"}}, "model.preset is 'huge'; expected one of nano"),
        ({"loss": {"rays": 0}}, "points need depth and rays"),
        ({"data": {"live": None}}, "data has no source"),
        ({"data": {"live_options": {"a": 1}}}, "config.data.live_options.a is 1; expected str"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merge(TrainConfig(), data)


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match=r"bad\.yaml cannot be read"):
        load_config(tmp_path / "bad.yaml", TOY)


def test_stages_follow_each_other_and_the_last_goes_on() -> None:
    assert [TOY.stage_at(step)[0] for step in (0, 5, 6, 9, 100)] == [0, 0, 1, 1, 1]
    assert TOY.steps == 10


def test_no_preset_is_unknown_to_itself() -> None:
    with pytest.raises(ConfigError, match="preset 'x' is unknown; expected one of default-cpu"):
        preset("x")


def test_a_budget_scales_all_stages_alike() -> None:
    config = dataclasses.replace(TOY, stages=tuple(dataclasses.replace(s, steps=1000) for s in TOY.stages))
    fitted = fit_to(config, minutes=10, seconds=[0.1, 1.1])  # 1200 s as it stands, 600 s wanted, 8 % kept back
    assert [s.steps for s in fitted.stages] == [460, 460]
    assert fitted.optim.warmup == 1 and fitted.save_every == 1
    with pytest.raises(ConfigError, match="too short for a step"):
        fit_to(config, minutes=0.001, seconds=[1, 1])


def test_a_longer_budget_trains_longer_with_the_same_warm_up() -> None:
    fitted = fit_to(TOY, minutes=100, seconds=[1, 1])
    assert fitted.steps > TOY.steps and fitted.optim == TOY.optim


def test_plain_data_only_in_the_dict() -> None:
    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        return all(map(plain, value)) if isinstance(value, list) else isinstance(value, (str, int, float, type(None)))

    assert plain(config_to_dict(TOY))
