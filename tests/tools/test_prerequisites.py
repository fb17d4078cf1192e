# SPDX-License-Identifier: Apache-2.0
"""tools/check_prerequisites.sh: finds a usable Python, and names exactly what apt has to install."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "check_prerequisites.sh"
TOOLS = ("git", "make", "g++")


class Machine:
    """A machine on which only the commands in `bin` exist; its Python is named by PYTHON."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("bash", "uname"):
            (self.bin / name).symlink_to(shutil.which(name) or name)
        for name in TOOLS:
            self.command(name, "exit 0")

    def command(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!{self.bin}/bash\n{text}\n")
        path.chmod(0o755)
        return path

    def python(self, version: str, header: bool = True, venv: bool = True) -> Path:
        """A Python that answers the script's question about itself."""
        words = [version, *("yes" if there else "no" for there in (header, venv)), str(self.bin / "python")]
        return self.command("python", f"echo {' '.join(words)}")

    def check(self, python: Path) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "PYTHON": str(python)}
        return subprocess.run([self.bin / "bash", str(SCRIPT)], capture_output=True, text=True, env=environment)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_a_complete_machine(machine: Machine, version: str) -> None:
    result = machine.check(machine.python(version))
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{machine.bin / 'python'}\n"


@pytest.mark.parametrize("missing", TOOLS)
def test_a_missing_command_is_named(machine: Machine, missing: str) -> None:
    (machine.bin / missing).unlink()
    result = machine.check(machine.python("3.11"))
    assert result.returncode == 1
    assert f"    sudo apt install {missing}\n" in result.stderr
    assert result.stdout == ""


def test_missing_parts_of_python_are_named_with_its_version(machine: Machine) -> None:
    result = machine.check(machine.python("3.12", header=False, venv=False))
    assert result.returncode == 1
    assert "    sudo apt install python3.12-dev python3.12-venv\n" in result.stderr


def test_everything_missing_is_one_line(machine: Machine) -> None:
    for name in TOOLS:
        (machine.bin / name).unlink()
    result = machine.check(machine.python("3.11", header=False))
    assert "    sudo apt install git make g++ python3.11-dev\n" in result.stderr


@pytest.mark.parametrize("version", ["3.10", "3.13"])
def test_another_python_is_refused(machine: Machine, version: str) -> None:
    result = machine.check(machine.python(version))
    assert result.returncode == 1
    assert "is not a Python 3.11 or 3.12 that runs" in result.stderr


def test_a_stand_in_that_does_not_run_is_refused(machine: Machine) -> None:
    """Version managers put such files on the PATH for interpreters that are not installed."""
    result = machine.check(machine.command("python3.12", "echo 'not installed' >&2; exit 127"))
    assert result.returncode == 1
    assert "is not a Python 3.11 or 3.12 that runs" in result.stderr


def test_this_machine_is_complete() -> None:
    """It runs these tests, so it was set up by `make setup`."""
    result = subprocess.run([str(SCRIPT)], capture_output=True, text=True, env=dict(os.environ))
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_file()
