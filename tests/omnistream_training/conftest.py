# SPDX-License-Identifier: Apache-2.0
"""Tiny runs for tests of training: a few steps on the planes of `scenes.py`, in float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from omnistream.model.config import PRESETS, BackboneConfig, HeadConfig, ModelConfig
from omnistream_training.config import DataConfig, TrainConfig
from omnistream_training.presets import TOY

ROOT = Path(__file__).resolve().parents[2]

MICRO = ModelConfig(
    backbone=BackboneConfig(dim=32, depth=4, heads=2),
    heads=HeadConfig(taps=(0, 1, 2, 3), projections=(8, 8, 16, 16), features=16),
    camera_token=True,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads do not pay at this size, and on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a preset small enough for many steps in a test."""
    monkeypatch.setitem(PRESETS, "micro", MICRO)
    return "micro"


@pytest.fixture
def toy(micro: str) -> TrainConfig:
    """The `toy` run on planes, with the smallest model, float32."""
    return dataclasses.replace(
        TOY,
        model=dataclasses.replace(TOY.model, preset=micro),
        data=DataConfig(live="tests.omnistream_training.scenes:Planes"),
        precision="float32",
    )
