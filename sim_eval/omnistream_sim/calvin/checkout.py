# SPDX-License-Identifier: Apache-2.0
"""Where CALVIN lies on this machine: a checkout of mees/calvin with calvin_env in it, used as it is."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from omnistream.errors import InputError

VARIABLE = "OMNISTREAM_CALVIN"
INSTALL = "omnistream-sim install calvin --run"
PINNED = "fa03f01f19c65920e18cf37398a9ce859274af76"
"""The commit of mees/calvin whose instructions and protocol these are."""
PINNED_ENV = "1431a46bd36bde5903fb6345e68b5ccc30def666"
"""The commit of calvin_env that mees/calvin pins and published numbers come from."""


class NoCalvin(InputError):
    """CALVIN is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Checkout:
    """The folder of a checkout."""

    root: Path

    @property
    def environment(self) -> Path:
        """calvin_env's own checkout: package, conf and data."""
        return self.root / "calvin_env"

    @property
    def instructions_file(self) -> Path:
        """The unseen sentences of the evaluation."""
        return self.root / "calvin_models/conf/annotations/new_playtable_validation.yaml"

    @property
    def sentences_file(self) -> Path:
        """The sentences of the training data."""
        return self.root / "calvin_models/conf/annotations/new_playtable.yaml"

    @property
    def tasks_file(self) -> Path:
        """The oracle's table."""
        return self.environment / "conf/tasks/new_playtable_tasks.yaml"

    def missing(self) -> list[Path]:
        """Files without which nothing works."""
        needed = (
            self.instructions_file,
            self.tasks_file,
            self.environment / "calvin_env/envs/play_table_env.py",
            self.environment / "conf/config_data_collection.yaml",
            self.environment / "data/calvin_table_D/urdf/calvin_table_D.urdf",
            self.environment / "data/franka_panda/panda_longer_finger.urdf",
        )
        return [path for path in needed if not path.exists()]

    def instructions(self) -> dict[str, str]:
        """Task to sentence: the first of each task, as the protocol takes it."""
        return {task: sentences[0] for task, sentences in _sentences(self.instructions_file).items()}

    def sentences(self) -> dict[str, list[str]]:
        """Task to the sentences that the training data has for it; none of them is in `instructions`."""
        return _sentences(self.sentences_file)

    def commits(self) -> dict[str, str]:
        """Of calvin and calvin_env; "unknown" where there is no git checkout."""
        return {"calvin": _commit(self.root), "calvin_env": _commit(self.environment)}


def default_root() -> Path:
    """Where `install` puts it, if nothing else is said."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "omnistream" / "calvin"


def find_checkout(root: Path | None = None) -> Checkout:
    """The checkout at `root`, else where OMNISTREAM_CALVIN says, else at the default place.

    Raises:
        NoCalvin: it is not there, or not whole.
    """
    named = os.environ.get(VARIABLE)
    folder = root or (Path(named).expanduser() if named else default_root())
    if missing := Checkout(folder).missing():
        raise NoCalvin(f"no CALVIN at {folder} ({missing[0]} is missing): {INSTALL}, or set {VARIABLE} to a checkout")
    return Checkout(folder.resolve())


def _sentences(path: Path) -> dict[str, list[str]]:
    try:
        table: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = {task: [str(sentence) for sentence in sentences] for task, sentences in table.items()}
    except (OSError, yaml.YAMLError, AttributeError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}; expected task: [sentence]") from error
    if empty := [task for task, sentences in found.items() if not sentences]:
        raise InputError(f"{path}: {empty[0]} has no sentence; expected task: [sentence]")
    return found


def _commit(folder: Path) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "--show-toplevel", "HEAD"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    top, commit = done.stdout.split()
    return commit if Path(top).resolve() == folder.resolve() else "unknown"
