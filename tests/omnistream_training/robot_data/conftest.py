# SPDX-License-Identifier: Apache-2.0
"""Small bags and data sets of the invented arm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from omnistream.sync import Mapping, load_mapping_file
from omnistream_training.robot_data.sample_bag import SampleBag, write_sample_bag


@pytest.fixture
def make_bag(tmp_path: Path) -> Callable[..., tuple[Path, Mapping]]:
    """make_bag(**fields of SampleBag) -> (bag, mapping); small pictures, two episodes of two seconds."""

    def make(name: str = "bag", **options) -> tuple[Path, Mapping]:
        sample = SampleBag(**({"seconds": 2.0, "height": 48, "width": 64} | options))
        path = tmp_path / f"{name}.yaml"
        path.write_text(sample.mapping())
        return write_sample_bag(tmp_path / name, sample), load_mapping_file(path)

    return make
