# SPDX-License-Identifier: Apache-2.0
"""The word `default` where a checkpoint is named: the weights that come with the package."""

from __future__ import annotations

from pathlib import Path

DEFAULT = "default"
DEFAULT_WEIGHTS = Path(__file__).resolve().parent.parent / "assets" / "default_weights"


def checkpoint_path(named: str | Path) -> str | Path:
    """The path that `named` means: the shipped weights' for the word `default`, else itself.

    A folder that has this very name is written ./default.
    """
    return DEFAULT_WEIGHTS if named == DEFAULT else named
