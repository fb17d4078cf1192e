# SPDX-License-Identifier: Apache-2.0
"""How to get a benchmark's simulator: exact steps, run or printed, and a look at what is there."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .protocols import EvaluationError


@dataclass(frozen=True)
class Step:
    """One thing that must be there, and the commands that get it."""

    what: str
    is_there: Callable[[], bool]
    commands: tuple[tuple[str, ...], ...] = ()
    """Empty: a person has to see to it; `note` says how."""
    note: str = ""
    optional: bool = False


def install(steps: Sequence[Step], *, run: bool) -> bool:
    """Print what is there and what to do; with `run`, do it. True if everything is there at the end.

    Raises:
        EvaluationError: a command failed; it is named, and what was done before it stays.
    """
    complete = True
    for step in steps:
        if step.is_there():
            print("[there]".ljust(10) + step.what)
            continue
        print(
            f"[{'absent' if step.optional else 'missing'}]".ljust(10)
            + step.what
            + (f": {step.note}" if step.note else "")
        )
        for command in step.commands:
            print(f"    {shlex.join(command)}", flush=True)
            if run:
                _run(command)
        complete = complete and (step.optional or (run and bool(step.commands) and step.is_there()))
    return complete


def installed(*modules: str) -> Callable[[], bool]:
    """Whether all of them can be imported, without importing them."""

    def there() -> bool:
        importlib.invalidate_caches()
        return all(importlib.util.find_spec(module) is not None for module in modules)

    return there


def pip(*requirements: str) -> tuple[str, ...]:
    """Install into the environment that runs this."""
    return (sys.executable, "-m", "pip", "install", *requirements)


def clone(url: str, folder: Path, commit: str) -> tuple[tuple[str, ...], ...]:
    """Check out one commit, with its history, so that the commit can be named in reports."""
    return ("git", "clone", url, str(folder)), ("git", "-C", str(folder), "checkout", "--quiet", commit)


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise EvaluationError(f"{shlex.join(command)} failed ({error}); mend it, then run the same again") from error
