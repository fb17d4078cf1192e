# SPDX-License-Identifier: Apache-2.0
"""Two processes with half the weights and half the clips each learn what one process learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.omnistream_training.conftest import ROOT


def losses(folder: Path, world: int, steps: int, dtype: str) -> list[float]:
    """Of a run of `world` processes, as process 0 saw them."""
    folder.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-W", "ignore::UserWarning", "-m", "tests.omnistream_training.parallel_child"]
    children = []
    for rank in range(world):
        files = [str(folder / "rendezvous"), str(folder / f"{rank}.json")]
        arguments = [str(rank), str(world), str(steps), dtype, *files]
        children.append(subprocess.Popen([*command, *arguments], cwd=ROOT, env=environment, stderr=subprocess.PIPE))
    for child in children:
        said = child.communicate(timeout=280)[1].decode()
        assert child.returncode == 0, said
    found: list[float] = json.loads((folder / "0.json").read_text())
    return found


@pytest.mark.parametrize(
    ("steps", "dtype", "tolerance"),
    [(4, "float32", 1e-4), pytest.param(50, "float64", 1e-8, marks=pytest.mark.slow)],
)
def test_two_processes_equal_one(tmp_path: Path, steps: int, dtype: str, tolerance: float) -> None:
    # Rounding grows about a hundred thousand times over these 50 steps, at full learning rate from the first: in
    # float32 a difference of 1e-4 would be no fault. In float64 one that is left cannot be rounding.
    one, two = losses(tmp_path / "one", 1, steps, dtype), losses(tmp_path / "two", 2, steps, dtype)
    assert len(one) == steps and one[-1] != one[0]
    assert two == pytest.approx(one, rel=tolerance)
