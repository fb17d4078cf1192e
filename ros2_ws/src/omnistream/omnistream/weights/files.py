# SPDX-License-Identifier: Apache-2.0
"""File operations that checkpoints need: strict JSON, digests, a directory that appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from omnistream.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises `CheckpointError` when it is missing, not JSON, or not an object."""

    def refuse_constant(text: str) -> None:
        raise ValueError(f"{text} is not a JSON value")

    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a JSON {type(data).__name__}; expected an object")
    return data


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, for whom a new file is: the library's own are readable by their owner only, and a robot's
    nodes seldom run as who trained."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata={"format": "pt"})
    path.chmod(mode)


def home_expanded(path: str | Path) -> Path:
    """`path` with ~ and ~user replaced; `CheckpointError` for a user without a home here."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not exist: {error}") from error


def check_replaceable(target: Path, overwrite: bool, described_by: str, format: str, what: str) -> None:
    """Refuse (`CheckpointError`) to write to `target` where something is, unless it is empty or, with `overwrite`, one
    of ours: a directory whose JSON file `described_by` states that `format`. what: its name for people."""
    if not target.exists():
        return
    if not target.is_dir():
        raise CheckpointError(f"{target} exists and is not a directory")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(f"{target} exists already; choose another name or allow overwriting")
    try:
        ours = read_json(target / described_by).get("format") == format
    except CheckpointError:
        ours = False
    if not ours:
        raise CheckpointError(f"{target} is not {what}; it is not overwritten")


@contextmanager
def new_directory(target: Path, *, replace: bool) -> Iterator[Path]:
    """Yields an empty directory beside `target` that takes its name when the block ends, and vanishes when it raises.

    A reader sees the old directory or the new one, never a mixture. With `replace` an existing `target` is moved aside
    before the rename and removed after it; the caller decides whether `target` may be replaced.
    """
    target = Path(os.path.abspath(home_expanded(target)))
    target = target.resolve() if target.is_symlink() else target
    target.parent.mkdir(parents=True, exist_ok=True)
    token = f"{os.getpid()}-{secrets.token_hex(4)}"
    partial, old = (target.parent / f".{target.name}.{kind}-{token}" for kind in ("partial", "old"))
    partial.mkdir()
    try:
        yield partial
        for path in [*partial.iterdir(), partial]:
            _flush_to_disk(path)
        if replace and target.exists():
            target.rename(old)
        try:
            partial.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        _flush_to_disk(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _flush_to_disk(path: Path) -> None:
    # Without it a power cut after the rename can leave the new name with empty files (a robot is switched off hard).
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
