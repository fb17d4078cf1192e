# SPDX-License-Identifier: Apache-2.0
"""tools/install_torch.py against small package indexes on disk: no build with CUDA gets in unasked."""

from __future__ import annotations

import os
import subprocess
import venv
import zipfile
from pathlib import Path

import pip
import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "install_torch.py"


def wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
    """An empty wheel of a package."""
    folder.mkdir(exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        archive.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}"
        )
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")


def index(folder: Path, wheels: Path) -> str:
    """A package index (PEP 503) of the wheels in a folder; returns its URL."""
    for path in wheels.glob("*.whl"):
        page = folder / path.name.split("-")[0].replace("_", "-")
        page.mkdir(parents=True, exist_ok=True)
        with (page / "index.html").open("a") as file:
            file.write(f'<a href="{path.as_uri()}">{path.name}</a>\n')
    return folder.as_uri()


class Machine:
    """A virtual environment whose pip sees nothing but the wheels in `default`."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "venv" / "bin" / "python"
        venv.create(folder / "venv", symlinks=True)
        self.constraints = folder / "constraints.txt"
        self.constraints.write_text("torch==2.13.0\n")
        self.default = folder / "default"
        self.default.mkdir()
        # This environment's pip, alone: beside it on the path lies the real torch.
        self.pip = folder / "pip"
        self.pip.mkdir()
        (self.pip / "pip").symlink_to(Path(pip.__file__).parent, target_is_directory=True)

    def environment(self, torch_index: str) -> dict[str, str]:
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "_ROS_"))}
        return ours | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "0",
            "PIP_INDEX_URL": "file:///nonexistent",
            "PIP_FIND_LINKS": str(self.default),
            "PYTHONPATH": str(self.pip),
            "TORCH_INDEX_URL": torch_index,
        }

    def install(self, torch_index: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python), str(TOOL), str(self.constraints)],
            env=self.environment(torch_index),
            capture_output=True,
            text=True,
        )

    def packages(self) -> set[str]:
        site = next((self.python.parent.parent / "lib").glob("python*/site-packages"))
        return {path.name.rpartition(".")[0] for path in site.glob("*.dist-info")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def cuda_build(machine: Machine) -> None:
    wheel(machine.default, "torch", "2.13.0", ("nvidia-cublas==13.0; platform_system == 'Linux'",))
    wheel(machine.default, "nvidia-cublas", "13.0")


def test_a_cpu_build_that_pip_finds_is_taken(machine: Machine) -> None:
    wheel(machine.default, "torch", "2.13.0+cpu")
    result = machine.install("file:///unreachable")
    assert result.returncode == 0, result.stderr
    assert machine.packages() == {"torch-2.13.0+cpu"}


def test_the_cpu_index_is_taken_where_pip_would_bring_cuda(machine: Machine, tmp_path: Path) -> None:
    cuda_build(machine)
    wheel(tmp_path / "cpu", "torch", "2.13.0+cpu")
    result = machine.install(index(tmp_path / "index", tmp_path / "cpu"))
    assert result.returncode == 0, result.stderr
    assert machine.packages() == {"torch-2.13.0+cpu"}


@pytest.mark.parametrize("reachable", [False, True])
def test_nothing_is_installed_where_only_cuda_is_to_be_had(machine: Machine, tmp_path: Path, reachable: bool) -> None:
    """An index that cannot be reached, and one that has no such version while pip's own still offers CUDA."""
    cuda_build(machine)
    (tmp_path / "empty").mkdir()
    url = index(tmp_path / "index", tmp_path / "empty") if reachable else "file:///unreachable"
    result = machine.install(url)
    assert result.returncode == 1
    assert machine.packages() == set()


def test_default_takes_what_pip_finds(machine: Machine) -> None:
    cuda_build(machine)
    result = machine.install("default")
    assert result.returncode == 0, result.stderr
    assert machine.packages() == {"torch-2.13.0", "nvidia_cublas-13.0"}


def test_a_second_run_does_nothing(machine: Machine) -> None:
    wheel(machine.default, "torch", "2.13.0+cpu")
    machine.install("file:///unreachable")
    assert "torch 2.13.0+cpu is installed" in machine.install("file:///unreachable").stdout


def test_a_missing_pin_is_named(machine: Machine) -> None:
    machine.constraints.write_text("numpy==2.4.6\n")
    result = machine.install("file:///unreachable")
    assert result.returncode == 1
    assert "has no line 'torch==VERSION'" in result.stderr
