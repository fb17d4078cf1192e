# SPDX-License-Identifier: Apache-2.0
"""TensorRT plans of a directory of graphs, and `plans.json` beside them: whether a plan may be run here, and why not.

`omnistream-export tensorrt GRAPHS` writes `GRAPHS/tensorrt/`, on the robot. A plan is machine code for one TensorRT
version and one GPU, made from one graph: whoever loads it executes it. So it is loaded only if all of that is as when
it was built, its bytes too, and if nobody but the user who runs it could have written it.

plans.json
    format, format_version   "omnistream-plans", 1; a reader refuses another
    tensorrt, gpu            version and name of the device for which they were built; both must match
    model_hash               of the weights
    plans                    by role (see `graphs`): {file, sha256, made_from: {graph or weights file: sha256}}
    tf32                     whether float32 products were allowed to be rounded to 10 bits
    made_by                  the command
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from omnistream.engines.graphs import GraphSet, Role
from omnistream.errors import CheckpointError, EngineError
from omnistream.weights.files import read_json

FORMAT = "omnistream-plans"
FORMAT_VERSION = 1
FOLDER = "tensorrt"
SIDECAR = "plans.json"

FIELDS: dict[str, type] = {
    "format": str,
    "format_version": int,
    "tensorrt": str,
    "gpu": str,
    "model_hash": str,
    "plans": dict,
    "tf32": bool,
    "made_by": str,
}


@dataclass(frozen=True)
class PlanSpec:
    """One plan: its file, the digest of its bytes, and the digests of what it was built from."""

    file: str
    sha256: str
    made_from: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class PlanSet:
    """A sidecar, read. `graphs` is the set that it lies in."""

    graphs: GraphSet
    tensorrt: str
    gpu: str
    model_hash: str
    plans: dict[Role, PlanSpec]
    tf32: bool
    made_by: str

    @property
    def directory(self) -> Path:
        return self.graphs.directory / FOLDER

    @property
    def command(self) -> str:
        """What builds these plans again."""
        return build_command(self.graphs.directory, self.tf32)

    def check(self, tensorrt: str, gpu: str) -> None:
        """EngineError if any plan is stale: of another TensorRT, GPU, or export than now."""
        for what, built, here in (("TensorRT", self.tensorrt, tensorrt), ("GPU", self.gpu, gpu)):
            if built != here:
                self._stale(f"was built for {what} {built!r}, here is {here!r}")
        if self.model_hash != self.graphs.model_hash:
            self._stale(f"is of model {self.model_hash}, the graphs beside it of model {self.graphs.model_hash}")
        for role, plan in self.plans.items():
            if plan.made_from != made_from(self.graphs, role):
                self._stale(f"has a {role!r} plan of another export than the graphs beside it")

    def read(self, role: Role) -> bytes:
        """The bytes of a plan that `check` has passed; EngineError if they are not those that were built."""
        if role not in self.plans:
            raise EngineError(
                f"{self.directory / SIDECAR} lists no {role!r} plan; found {', '.join(self.plans)}. "
                f"Build: {self.command}"
            )
        path = self.directory / self.plans[role].file
        data = read_owned(path)
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.plans[role].sha256:
            raise EngineError(
                f"{path} has sha256 {digest[:16]}..., {SIDECAR} says {self.plans[role].sha256[:16]}...: the file is "
                f"damaged, truncated or of another build. Build again: {self.command}"
            )
        return data

    def to_json(self) -> str:
        """The text of the sidecar."""
        data: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
        data |= {name: getattr(self, name) for name in FIELDS if name not in data}
        data["plans"] = {role: asdict(plan) for role, plan in self.plans.items()}
        return json.dumps(data, indent=1) + "\n"

    def _stale(self, reason: str) -> None:
        raise EngineError(f"{self.directory} {reason}. Build again: {self.command}")


def build_command(graphs: Path | str, tf32: bool = False) -> str:
    """What builds the plans of that directory of graphs."""
    return f"omnistream-export tensorrt {graphs}{' --tf32' if tf32 else ''} --build-only"


def made_from(graphs: GraphSet, role: Role) -> dict[str, str]:
    """Digests of the files that the plan of `role` is built from, by name."""
    spec = graphs.graphs[role]
    return {name: graphs.sha256[name] for name in (spec.file, spec.weights)}


def has_plans(graphs: GraphSet) -> bool:
    """Whether a sidecar lies there, good or bad."""
    return (graphs.directory / FOLDER / SIDECAR).exists()


def read_plans(graphs: GraphSet) -> PlanSet:
    """Read and check the sidecar in `graphs.directory`. Reads no plan. Raises EngineError with the reason."""
    path = graphs.directory / FOLDER / SIDECAR
    again = f"Build: {build_command(graphs.directory)}"
    if not has_plans(graphs):
        raise EngineError(f"{graphs.directory} has no TensorRT plans. {again}")
    try:
        data = read_json(path)
    except CheckpointError as error:
        raise EngineError(f"{error}. {again}") from error
    if data.get("format") != FORMAT or data.get("format_version") != FORMAT_VERSION:
        found = f"{data.get('format')!r} version {data.get('format_version')!r}"
        raise EngineError(f"{path} has format {found}; expected {FORMAT!r} version {FORMAT_VERSION}. {again}")
    if set(data) != set(FIELDS):
        raise EngineError(f"{path} has fields {sorted(data)}; expected {sorted(FIELDS)}. {again}")
    for name, kind in FIELDS.items():
        if not isinstance(data[name], kind):
            raise EngineError(f"{path}: {name} is {data[name]!r}; expected {kind.__name__}. {again}")
    plans = {role: _plan(path, graphs, role, value) for role, value in data["plans"].items()}
    plain = {name: data[name] for name in ("tensorrt", "gpu", "model_hash", "tf32", "made_by")}
    return PlanSet(graphs=graphs, plans=plans, **plain)


def read_owned(path: Path) -> bytes:
    """The bytes of a file that only the user who runs this could have written; EngineError otherwise.

    Checked on the open file, so that it cannot be exchanged in between.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise EngineError(f"{path} is no regular file")
            if status.st_uid != os.geteuid():
                raise EngineError(
                    f"{path} belongs to user {status.st_uid}, this is user {os.geteuid()}: loading a plan executes it, "
                    "so only your own are loaded. Build it yourself"
                )
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise EngineError(
                    f"{path} may be written by others (mode {stat.filemode(status.st_mode)}): loading a plan executes "
                    "it, so it must be yours alone. Build it again"
                )
            return file.read()
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}. Build it again") from error


def _plan(path: Path, graphs: GraphSet, role: str, data: Any) -> PlanSpec:
    if role not in get_args(Role) or role not in graphs.graphs:
        raise EngineError(f"{path} lists a plan {role!r}; the graphs beside it are {', '.join(graphs.graphs)}")
    try:
        file, digest = data["file"], data["sha256"]
        sources = {str(name): str(value) for name, value in data["made_from"].items()}
        if not isinstance(file, str) or not file or file != Path(file).name:
            raise EngineError(f"{path} names the file {file!r}; expected a plain name in the same directory")
        return PlanSpec(file, str(digest), sources)
    except (KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{path}: plan {role!r} is not described as expected ({error!r})") from error
