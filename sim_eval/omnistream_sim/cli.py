# SPDX-License-Identifier: Apache-2.0
"""`omnistream-sim`: what the simulators make, from the command line.

omnistream-sim recording OUT            the shipped recording (a rendered room), or another length and size of it
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Command = Callable[[argparse.Namespace], int]


def _progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{done}/{total}", end=end, file=sys.stderr, flush=True)


def _recording(arguments: argparse.Namespace) -> int:
    from .worlds.recording import RecordingOptions, shipped_recording

    options = RecordingOptions(frames=arguments.frames, width=arguments.width, height=arguments.height)
    shipped_recording(arguments.out, options, _progress)
    size = sum(f.stat().st_size for f in arguments.out.rglob("*") if f.is_file())
    print(f"{arguments.out}: {options.frames} frames, {size / 2**20:.1f} MiB")
    return 0


def _add_recording(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    parser = commands.add_parser("recording", help="render the furnished room as a recording folder")
    parser.add_argument("out", type=Path, help="folder to write; a stopped run continues")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.set_defaults(run=_recording)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(prog="omnistream-sim", description="Endless labelled camera streams.")
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    _add_recording(commands)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; errors the user can fix come out as one line."""
    parsed = parser().parse_args(arguments)
    try:
        command: Command = parsed.run
        return command(parsed)
    except (ValueError, OSError) as error:
        print(f"omnistream-sim: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
