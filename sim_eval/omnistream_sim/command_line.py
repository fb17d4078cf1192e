# SPDX-License-Identifier: Apache-2.0
"""What the commands of `omnistream-sim` have in common: OUT, a line of progress, a stop that says how to go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import tyro

Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
STOPPED = 130


def to_stderr(text: str) -> None:
    """As it is, at once: stdout is for results."""
    print(text, end="", file=sys.stderr, flush=True)


@contextmanager
def resumable() -> Iterator[None]:
    """Around a run that goes on where it was: Ctrl-C ends the command with exit code 130, and with how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        to_stderr("\nstopped; run the same command again to go on\n")
        raise SystemExit(STOPPED) from None
