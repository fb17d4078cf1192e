# SPDX-License-Identifier: Apache-2.0
"""Free memory, and refusing what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omnistream.errors import EngineError
from omnistream.stream import memory


def test_what_does_not_fit_is_refused_with_both_numbers():
    memory.check_fits(1000, "a kilobyte", "cpu")
    with pytest.raises(EngineError, match="all of it takes .* MiB, free are"):
        memory.check_fits(1 << 60, "all of it", "cpu")


def test_free_memory_is_known_here_and_obeys_the_container(tmp_path: Path) -> None:
    free = memory.available_bytes(torch.device("cpu"))
    assert free is not None and 1e6 < free < 1e14
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("700000000\n")
    (tmp_path / "memory.stat").write_text("anon 500000000\nfile 200000000\n")
    assert memory._container(tmp_path) == 500_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._container(tmp_path) is None
