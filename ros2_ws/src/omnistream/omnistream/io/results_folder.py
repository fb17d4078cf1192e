# SPDX-License-Identifier: Apache-2.0
"""Names of what a streamed recording can leave in a folder, and what is there already."""

from __future__ import annotations

import re
from pathlib import Path

PRODUCTS = ("depth", "poses", "features", "points", "sheet", "rrd")
"""What can be asked for."""

POSES, SHEET, RERUN, REPORT = "poses.txt", "sheet.png", "stream.rrd", "report.json"
RESULTS = ("depth", "features", "points", POSES, SHEET, RERUN)
"""The folders and files it becomes."""


def existing_results(folder: Path) -> list[str]:
    """Results that are in a folder, for people: "depth/ (24 files)", "sheet.png", ..."""
    found = []
    for name in RESULTS:
        path = folder / name
        if path.is_dir() and (count := sum(1 for _ in path.iterdir())):
            found.append(f"{name}/ ({count} files)")
        elif path.is_file():
            found.append(name)
    return found


def remove_results(folder: Path) -> None:
    """Remove the files that a `ResultWriter` writes, and folders that are empty then; nothing else."""
    for name in RESULTS:
        path = folder / name
        if path.is_dir():
            for file in path.iterdir():
                if re.fullmatch(r"\d{6,}(_cls)?\.(npy|png|ply)", file.name):
                    file.unlink()
            if not any(path.iterdir()):
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
