# SPDX-License-Identifier: Apache-2.0
"""Folders of a cache that several processes may make at once."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A new empty folder beside `folder` that becomes it, whole, when the block ends well, and else vanishes.

    No other process writes to it. Where another was faster, what it made stays: both made the same.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.partial{secrets.token_hex(6)}")  # process ids repeat across machines
    partial.mkdir()
    try:
        yield partial
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
