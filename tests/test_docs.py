# SPDX-License-Identifier: Apache-2.0
"""Documentation that names tests, files and commands names those that exist; code in the README runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_COMMANDS = ("omnistream-venv", "omnistream-dataset", "omnistream-recording")  # a folder and two file formats
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    for command in re.findall(r"(?:`|^    )(omnistream-[a-z]+)\b", text, re.MULTILINE):
        assert command in scripts or command in NOT_COMMANDS, f"{page.name} names {command}"
    for target in re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, f"{page.name} names make {target}"


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    """As it stands there, on a video of four frames."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    _write_video(tmp_path / "video.mp4", frames=4)
    lines = _python(tmp_path, "-c", code).splitlines()
    assert lines[0].startswith("480x640 -> 112x144 pixels (height x width)")
    assert sum("(7, 9, 192)" in line for line in lines) == 4  # features
    assert sum("camera at" in line for line in lines) == 4


def _python(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _write_video(path: Path, frames: int) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height = 320, 240
        for number in range(frames):
            picture = np.full((240, 320, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
