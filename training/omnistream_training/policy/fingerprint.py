# SPDX-License-Identifier: Apache-2.0
"""One name for the bytes of a data set, so that features of another one, or of one that changed, are never used."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from omnistream.errors import InputError


def folder_hash(folder: str | Path, without: Collection[str] = ()) -> str:
    """16 hex digits of a SHA-256 over names and contents of all files below `folder`, without those that are hidden or
    named.

    Reads every byte once, at the disk's speed. InputError if it cannot be read or is empty.
    """
    root = Path(folder)
    digest = hashlib.sha256()
    try:
        files = sorted(
            path
            for path in root.rglob("*")
            if path.is_file()
            and path.name not in without
            and not any(part.startswith(".") for part in path.relative_to(root).parts)
        )
        for path in files:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    except OSError as error:
        raise InputError(f"{root} cannot be read: {error}") from error
    if not files:
        raise InputError(f"{root} holds no files; expected a data set")
    return digest.hexdigest()[:16]
