#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds ROS 2 interface packages (msg, srv, action) into a virtual environment that has rclpy from PyPI.

    .venv/bin/python tools/build_messages.py ros2_ws/src/omnistream_msgs [MORE...]

Target is the environment of the interpreter that runs this file; about ten seconds for each package, nothing when its
sources have not changed. What ament_cmake does with a ROS 2 installation is done here by hand:

1. rosidl translates each interface to IDL and generates C and Python sources from it,
2. the compiler makes the type support libraries that Fast DDS loads by name, and the Python extension modules,
3. all of it goes where the wheels keep theirs: lib/, include/, share/ and site-packages of the environment.

Where a ROS 2 installation is sourced nothing is built: two copies of one message type in one process do not work.
Needs gcc, g++ and the Python headers. Exit codes: 0 built, up to date or skipped; 1 build failed; 2 something missing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import inspect
import io
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

KINDS = ("msg", "srv", "action")
TYPE_SUPPORTS = ("c", "fastrtps_c", "introspection_c")
# Every service has a hidden event message and every action hidden services; these packages define their parts.
IMPLICIT_DEPENDENCIES = ("builtin_interfaces", "service_msgs", "action_msgs", "unique_identifier_msgs")
RUNTIME_LIBRARIES = (
    "rosidl_runtime_c",
    "rosidl_typesupport_c",
    "rosidl_typesupport_fastrtps_c",
    "rosidl_typesupport_fastrtps_cpp",
    "rosidl_typesupport_introspection_c",
    "fastcdr",
    "rmw",
    "rcutils",
)


class Missing(RuntimeError):
    """Something the build needs is not on this machine."""


class BuildFailed(RuntimeError):
    """A compiler or generator refused its input."""


@dataclass(frozen=True)
class Interfaces:
    """An interface package as it lies in the source tree."""

    folder: Path
    name: str
    dependencies: tuple[str, ...]
    files: tuple[str, ...]  # relative to the folder, for example "msg/FeatureMap.msg"

    @classmethod
    def read(cls, folder: Path) -> Interfaces:
        """Reads package.xml and lists the interfaces; raises Missing when either is not there."""
        if not (folder / "package.xml").is_file():
            raise Missing(f"{folder}: no package.xml, so this is not an interface package")
        root = ElementTree.parse(folder / "package.xml").getroot()
        tags = ("depend", "build_depend", "exec_depend")
        dependencies = {(node.text or "").strip() for tag in tags for node in root.findall(tag)}
        files = sorted(str(path.relative_to(folder)) for kind in KINDS for path in (folder / kind).glob(f"*.{kind}"))
        if not files:
            raise Missing(f"{folder}: no interfaces under {', '.join(f'{kind}/' for kind in KINDS)}")
        name = (root.findtext("name") or "").strip()
        return cls(folder, name, tuple(sorted(dependencies)), tuple(files))

    def digest(self) -> str:
        """Hash of everything that the built files depend on."""
        total = hashlib.sha256(Path(__file__).read_bytes())
        total.update(f"{sys.version_info[:2]} {version('numpy')} {version('ros-rosidl-generator-py')}".encode())
        for file in ("package.xml", *self.files):
            total.update(file.encode() + b"\0" + (self.folder / file).read_bytes() + b"\0")
        return total.hexdigest()


@dataclass(frozen=True)
class Environment:
    """Folders of the virtual environment that is built into."""

    prefix: Path
    site_packages: Path
    python_include: Path
    extension_suffix: str

    @classmethod
    def current(cls) -> Environment:
        paths = sysconfig.get_paths()
        return cls(
            Path(sys.prefix), Path(paths["purelib"]), Path(paths["include"]), sysconfig.get_config_var("EXT_SUFFIX")
        )

    @property
    def lib(self) -> Path:
        return self.prefix / "lib"

    def share(self, package: str) -> Path:
        return self.prefix / "share" / package

    def check(self) -> None:
        """Raises Missing with the remedy for the first thing that is not here."""
        try:
            version("ros-rosidl-cli")
        except PackageNotFoundError:
            raise Missing(f"{self.prefix} has no ROS 2 wheels; install them with: pip install -e '.[ros]'") from None
        for compiler in (c_compiler(), cpp_compiler()):
            if shutil.which(compiler) is None:
                raise Missing(f"no compiler {compiler!r}; on Debian and Ubuntu: sudo apt install g++")
        if not (self.python_include / "Python.h").is_file():
            dev = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
            raise Missing(f"no Python.h in {self.python_include}; on Debian and Ubuntu: sudo apt install {dev}")

    def include_flags(self) -> list[str]:
        import numpy

        # The wheels nest their headers, include/std_msgs/std_msgs/msg/header.h, as the distributions do.
        folders = [self.prefix / "include", self.python_include, Path(numpy.get_include())]
        folders += sorted(path for path in (self.prefix / "include").iterdir() if path.is_dir())
        return [f"-I{folder}" for folder in folders]


def c_compiler() -> str:
    return os.environ.get("CC", "gcc")


def cpp_compiler() -> str:
    return os.environ.get("CXX", "g++")


def sourced_ros() -> str | None:
    """Name of the ROS 2 installation whose setup file was sourced, or None. An overlay alone, ours too, is none."""
    if distribution := os.environ.get("ROS_DISTRO"):
        return distribution
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    others = [Path(prefix) for prefix in prefixes if prefix and Path(prefix).resolve() != Path(sys.prefix).resolve()]
    return next((str(prefix) for prefix in others if (prefix / "share" / "rclpy").is_dir()), None)


def generate(package: Interfaces, environment: Environment, out: Path) -> None:
    """Writes IDL to out/idl and sources to out/<generator>/<package>/.

    The extensions are loaded by their entry points here because `rosidl generate` stops at the duplicates that the
    wheels bring (a dist-info and an egg-info for the same package). Each generator has its own root: two of them use
    the same file names.
    """
    os.environ["AMENT_PREFIX_PATH"] = str(environment.prefix)
    logging.getLogger("rosidl_cli").setLevel(logging.ERROR)  # one warning for each duplicate otherwise
    from rosidl_cli.command.translate.api import translate

    include_paths = [str(environment.prefix / "share")]
    idl = translate(
        package_name=package.name,
        interface_files=[f"{package.folder}:{file}" for file in package.files],
        include_paths=include_paths,
        output_format="idl",
        output_path=out / "idl",
    )
    for group, wanted in (("type", ("c", "py")), ("typesupport", TYPE_SUPPORTS)):
        found = {point.name: point for point in entry_points(group=f"rosidl_cli.command.generate.{group}_extensions")}
        for name in wanted:
            # "c" names both the message structs and the type support that dispatches to the other two.
            root = out / (f"typesupport_{name}" if group == "typesupport" else name)
            generator = found[name].load()(name)
            extra = {}
            if "type_description_files" in inspect.signature(generator.generate).parameters:
                extra["type_description_files"] = None
            (root / package.name).mkdir(parents=True)
            generator.generate(package.name, list(idl), include_paths, output_path=root / package.name, **extra)


def compile_shared(compiler: str, sources: Iterable[Path], target: Path, flags: list[str]) -> None:
    """Compiles and links one shared library; raises BuildFailed with the compiler's own words."""
    command = [compiler, "-shared", "-fPIC", "-O1", *map(str, sorted(sources)), "-o", str(target), *flags]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildFailed(f"{target.name}: {compiler} failed with status {result.returncode}\n{result.stderr.strip()}")


def build_libraries(package: Interfaces, environment: Environment, out: Path) -> dict[str, list[Path]]:
    """Compiles everything; returns the libraries for lib/ and the extension modules for site-packages.

    Three rounds, each in parallel, since a later round links what an earlier one made.
    """
    stage = out / "lib"
    stage.mkdir()
    generated = [out / root for root in ("c", *(f"typesupport_{name}" for name in TYPE_SUPPORTS))]
    includes = [f"-I{root}" for root in generated] + environment.include_flags()
    available = {path.name for path in environment.lib.glob("lib*.so")}
    wanted = list(RUNTIME_LIBRARIES)
    for other in sorted({*package.dependencies, *IMPLICIT_DEPENDENCIES} - {package.name}):
        wanted += [f"{other}__rosidl_generator_c", f"{other}__rosidl_generator_py"]
        wanted += [f"{other}__rosidl_typesupport_{name}" for name in TYPE_SUPPORTS]
    links = [f"-L{stage}", f"-L{environment.lib}", *(f"-l{name}" for name in wanted if f"lib{name}.so" in available)]

    def library(name: str, compiler: str, root: str, pattern: str, own: tuple[str, ...] = ()) -> Path:
        target = stage / f"lib{package.name}__rosidl_{name}.so"
        sources = [path for path in (out / root).rglob(pattern) if ".ep." not in path.name]
        own_links = [f"-l{package.name}__rosidl_{other}" for other in own]
        if root != "py":  # found here rather than at the first import; only Python's own symbols come later
            own_links.append("-Wl,--no-undefined")
        compile_shared(compiler, sources, target, [*includes, *links[:1], *own_links, *links[1:]])
        return target

    def extension(name: str) -> Path:
        target = stage / f"{package.name}_s__rosidl_typesupport_{name}{environment.extension_suffix}"
        source = out / "py" / package.name / f"_{package.name}_s.ep.rosidl_typesupport_{name}.c"
        own_links = [f"-l{package.name}__rosidl_{other}" for other in ("generator_py", f"typesupport_{name}")]
        compile_shared(c_compiler(), [source], target, [*includes, *links[:1], *own_links, *links[1:]])
        return target

    c, cpp, structs = c_compiler(), cpp_compiler(), ("generator_c",)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        libraries = [library("generator_c", c, "c", "*.c")]
        second = [
            pool.submit(library, "typesupport_fastrtps_c", cpp, "typesupport_fastrtps_c", "*.cpp", structs),
            pool.submit(library, "typesupport_introspection_c", c, "typesupport_introspection_c", "*.c", structs),
            pool.submit(library, "generator_py", c, "py", "*.c", structs),
        ]
        libraries += [job.result() for job in second]
        dispatched = (*structs, "typesupport_fastrtps_c", "typesupport_introspection_c")
        libraries.append(library("typesupport_c", cpp, "typesupport_c", "*.cpp", dispatched))
        extensions = list(pool.map(extension, TYPE_SUPPORTS))
    return {"lib": libraries, "extensions": extensions}


def install(package: Interfaces, environment: Environment, out: Path, built: dict[str, list[Path]]) -> None:
    """Copies the built package to where the wheels' packages lie, replacing an earlier build of it."""
    module = environment.site_packages / package.name
    headers = environment.prefix / "include" / package.name / package.name
    share = environment.share(package.name)
    for folder in (module, headers.parent, share):
        shutil.rmtree(folder, ignore_errors=True)

    for kind in {Path(file).parts[0] for file in package.files}:
        shutil.copytree(
            out / "py" / package.name / kind, module / kind, ignore=shutil.ignore_patterns("*.c", "__pycache__")
        )
        shutil.copytree(out / "idl" / kind, share / kind)
        shutil.copytree(package.folder / kind, share / kind, dirs_exist_ok=True)
        for root in ("c", *(f"typesupport_{name}" for name in TYPE_SUPPORTS)):
            if (out / root / package.name / kind).is_dir():
                only_headers = shutil.ignore_patterns("*.c", "*.cpp", "*.json")
                source = out / root / package.name / kind
                shutil.copytree(source, headers / kind, ignore=only_headers, dirs_exist_ok=True)
    (module / "__init__.py").touch()
    for path in built["extensions"]:
        _replace(path, module / path.name)
    for path in built["lib"]:
        _replace(path, environment.lib / path.name)

    shutil.copy2(package.folder / "package.xml", share / "package.xml")
    index = environment.prefix / "share" / "ament_index" / "resource_index"
    for resource, content in (("packages", ""), ("rosidl_interfaces", "\n".join(package.files))):
        (index / resource).mkdir(parents=True, exist_ok=True)
        (index / resource / package.name).write_text(content)
    (share / "build_digest").write_text(package.digest())  # last, so that an interrupted install is done again


def _replace(source: Path, target: Path) -> None:
    """Copies in one step: a node that runs keeps the library it has loaded, where writing into it would crash it."""
    fresh = target.with_name(f".{target.name}.new")
    shutil.copy2(source, fresh)
    os.replace(fresh, target)


def is_current(package: Interfaces, environment: Environment) -> bool:
    digest = environment.share(package.name) / "build_digest"
    return digest.is_file() and digest.read_text() == package.digest()


def build(folder: Path, environment: Environment, force: bool = False) -> bool:
    """Builds and installs the package in `folder`; returns False when it was up to date."""
    package = Interfaces.read(folder.resolve())
    if not force and is_current(package, environment):
        return False
    with tempfile.TemporaryDirectory(prefix=f"{package.name}_") as temporary:
        out = Path(temporary)
        generate(package, environment, out)
        install(package, environment, out, build_libraries(package, environment, out))
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Build ROS 2 interface packages into this interpreter's environment.",
        epilog="Exit codes: 0 built, up to date or skipped; 1 build failed; 2 something is missing.",
    )
    parser.add_argument("packages", nargs="+", type=Path, metavar="FOLDER", help="folder with a package.xml")
    parser.add_argument("--force", action="store_true", help="build even where nothing has changed")
    options = parser.parse_args(arguments)

    if ros := sourced_ros():
        print(f"ROS 2 ({ros}) is sourced: its own build makes the messages (cd ros2_ws && colcon build); nothing done")
        return 0
    environment = Environment.current()
    try:
        environment.check()
        terminal = sys.stdout
        with contextlib.redirect_stdout(io.StringIO()):  # rosidl names every file that it reads and writes
            for folder in options.packages:
                done = build(folder, environment, options.force)
                print(f"{folder.name}: {f'built into {environment.prefix}' if done else 'up to date'}", file=terminal)
    except Missing as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BuildFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
