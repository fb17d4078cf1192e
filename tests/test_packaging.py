# SPDX-License-Identifier: Apache-2.0
"""What makes a package of ours installable: versions, package.xml, dependencies, entry points, licence lines."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from catkin_pkg.package import parse_package

ROOT = Path(__file__).resolve().parent.parent
ROS_SOURCES = ROOT / "ros2_ws" / "src"
PACKAGES = sorted(path.parent for path in ROS_SOURCES.glob("*/package.xml"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

ROSDEP_KEYS = {"numpy": "python3-numpy", "PIL": "python3-pil", "yaml": "python3-yaml"}
# These have no key that the ROS build farm accepts; they come by pip, and only where a user wants them.
BY_PIP = {"av", "jaxtyping", "mcap", "onnxruntime", "peft", "rerun", "rosbags", "safetensors", "tensorrt", "torch"}
BY_PIP |= {"transformers", "tyro"}
# Used where a ROS 2 installation has them, done without elsewhere.
OPTIONAL = {"cv_bridge", "message_filters", "tf2_ros", "launch", "launch_ros"}


def python_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).is_file()]


def imports(folder: Path) -> set[str]:
    """Top-level names of everything that the Python files under `folder` import, setup.py left out."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        if path.name == "setup.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {folder.name, "__future__"}


def entry_points(setup: Path) -> dict[str, str]:
    """The console scripts of a setup.py: name to "module:function"."""
    return dict(re.findall(r'"([\w-]+) = ([\w.]+:\w+)"', setup.read_text()))


def test_versions_agree() -> None:
    found = {"pyproject.toml": PYPROJECT["project"]["version"]}
    for package in PACKAGES:
        found[f"{package.name}/package.xml"] = ElementTree.parse(package / "package.xml").getroot().findtext("version")
        if (package / "setup.py").exists():
            match = re.search(r'^    version="([^"]+)"', (package / "setup.py").read_text(), re.MULTILINE)
            found[f"{package.name}/setup.py"] = match and match[1]
    init = ROS_SOURCES / "omnistream" / "omnistream" / "__init__.py"
    if match := re.search(r'^__version__ = "([^"]+)"', init.read_text(), re.MULTILINE):
        found["omnistream.__version__"] = match[1]
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_package_xml_is_valid(package: Path) -> None:
    warnings: list[str] = []
    parsed = parse_package(str(package), warnings=warnings)
    parsed.validate(warnings=warnings)
    assert not warnings
    assert parsed.package_format == 3
    assert parsed.name == package.name
    assert parsed.licenses == ["Apache-2.0"]
    assert next(e.content for e in parsed.exports if e.tagname == "build_type") in ("ament_python", "ament_cmake")


@pytest.mark.parametrize(
    "package", [path for path in PACKAGES if (path / "setup.py").exists()], ids=lambda path: path.name
)
def test_every_import_is_a_depend_and_every_depend_is_used(package: Path) -> None:
    parsed = parse_package(str(package))
    declared = {dependency.name for dependency in parsed.exec_depends}
    imported = {ROSDEP_KEYS.get(name, name) for name in imports(package)} - BY_PIP
    # Launch files start executables of other packages by name, Node(package="omnistream_perception", ...).
    launched = set(re.findall(r'package="(\w+)"', "".join(p.read_text() for p in package.glob("launch/*.py"))))
    needed = imported | (launched - {package.name})
    assert not needed - declared - OPTIONAL, "imported but not in package.xml"
    assert not declared - needed, "in package.xml but never imported"


@pytest.mark.parametrize(
    "package", [path for path in PACKAGES if (path / "setup.py").exists()], ids=lambda path: path.name
)
def test_ament_python_conventions(package: Path) -> None:
    assert (package / "resource" / package.name).exists()
    setup_cfg = (package / "setup.cfg").read_text()
    assert f"script_dir=$base/lib/{package.name}" in setup_cfg
    assert f"install_scripts=$base/lib/{package.name}" in setup_cfg
    setup = (package / "setup.py").read_text()
    assert "share/ament_index/resource_index/packages" in setup
    assert '["package.xml"]' in setup


def test_message_package_lists_all_its_files() -> None:
    package = ROS_SOURCES / "omnistream_msgs"
    in_cmake = set(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (package / "CMakeLists.txt").read_text()))
    on_disk = {str(p.relative_to(package)) for kind in ("msg", "srv", "action") for p in package.glob(f"{kind}/*")}
    assert in_cmake == on_disk


def test_entry_points_exist() -> None:
    points = dict(PYPROJECT["project"]["scripts"])
    for package in PACKAGES:
        if (package / "setup.py").exists():
            points |= entry_points(package / "setup.py")
    missing = []
    for name, target in points.items():
        module, function = target.split(":")
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or f"def {function}(" not in Path(spec.origin).read_text():
            missing.append(f"{name} = {target}")
    assert not missing, f"no such module or function: {missing}"


def test_root_and_colcon_scripts_agree() -> None:
    root = PYPROJECT["project"]["scripts"]
    for package in PACKAGES:
        if (package / "setup.py").exists():
            for name, target in entry_points(package / "setup.py").items():
                assert root.get(name, target) == target, (
                    f"{name} of {package.name}/setup.py differs from pyproject.toml"
                )


def test_what_the_makefile_runs_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    modules = set(re.findall(r"python -m ([\w.]+)", makefile)) - {"pip", "pytest", "venv"}
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    missing += [path for path in re.findall(r"\b(?:tools|tests)/[\w./]+", makefile) if not (ROOT / path).exists()]
    assert not missing


def test_root_installs_every_python_package() -> None:
    where = {ROOT / folder for folder in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["where"]}
    roots = {path.parent.parent for path in python_files() if path.name == "__init__.py"}
    top_level = {root for root in roots if not (root / "__init__.py").exists() and "tests" not in root.parts}
    assert top_level == where


def test_every_extra_is_pinned() -> None:
    pins = {
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [
        *PYPROJECT["project"]["dependencies"],
        *(name for key in ("ros", "io", "viz", "sim", "test", "dev") for name in extras[key]),
    ]
    names = {re.split(r"[\[<>=;~! ]", requirement)[0].lower() for requirement in wanted}
    assert not names - {pin.lower() for pin in pins}, "run tools/update_constraints.py"
    assert not [name for name in pins if name.startswith(("nvidia", "cuda", "triton"))]


def test_python_files_start_with_the_licence() -> None:
    without = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if path.stat().st_size and "SPDX-License-Identifier: Apache-2.0" not in "".join(path.open().readlines()[:2])
    ]
    assert not without


def test_no_paths_of_one_machine() -> None:
    """A path under somebody's home, or a temporary one, works on one machine only."""
    pattern = r"/(home|Users|root|work)/[A-Za-z0-9_.-]+|/tmp/[A-Za-z0-9_]+/"
    result = subprocess.run(["git", "grep", "-nEI", pattern, "--", ".", ":!tests/test_packaging.py"], cwd=ROOT,
                            capture_output=True, text=True)  # fmt: skip
    assert not result.stdout
