# SPDX-License-Identifier: Apache-2.0
"""A directory of exported graphs and its sidecar, `graphs.json`: what is in it, and whether it may be run.

`omnistream-export onnx` writes it, engines read it. Nothing here needs onnx or a runtime.

graphs.json
    format, format_version   "omnistream-graphs", 1; a reader refuses a newer one
    model                    ModelConfig as a mapping: normalisation, outputs and scale included
    model_hash               of the weights (`omnistream.weights.model_hash`)
    height, width, batch     what every graph is fixed to
    policy                   cache policy whose slots size the `static` backbone; `growing` takes any
    dtype                    of pixels, rotary tables, caches and backbone outputs: float32 or float16; int8 is float32
                             but for the backbone's linear layers, and has no `static` backbone
    opset                    of the ONNX operators
    graphs                   by role: {file, weights, inputs: [{name, dtype, shape}], outputs, aliases: {output: input}}
    sha256                   of every file by name; both backbones share one file of weights
    versions, made_by        what wrote it

Roles: `growing` (backbone; the length of its caches is open, named cache_tokens), `static` (backbone; everything fixed,
a key mask hides empty slots), and with heads `pose`, `depth`, `rays`, `depth_rays` (both, for less than each alone).
An alias is an output that must be bound to its input's memory.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from omnistream.errors import CheckpointError, ConfigError, EngineError
from omnistream.model.config import ModelConfig, config_from_dict, config_to_dict
from omnistream.stream.policy import CachePolicy, parse_policy
from omnistream.weights.files import read_json, sha256_of

FORMAT = "omnistream-graphs"
FORMAT_VERSION = 1
SIDECAR = "graphs.json"
CACHE_TOKENS = "cache_tokens"
FOLDER = "graphs"
"""Beside a checkpoint's files: where exports go and engines look unless told otherwise."""

Role = Literal["growing", "static", "pose", "depth", "rays", "depth_rays"]
GROWING: Role = "growing"
STATIC: Role = "static"
HEAD_OUTPUTS: dict[Role, tuple[str, ...]] = {
    "pose": ("camera",),
    "depth": ("log_depth", "depth_confidence"),
    "rays": ("rays", "ray_confidence"),
    "depth_rays": ("log_depth", "depth_confidence", "rays", "ray_confidence"),
}
"""Outputs of the heads' graphs: fields of `HeadOutputs`."""

FIELDS: dict[str, type] = {
    "format": str,
    "format_version": int,
    "model": dict,
    "model_hash": str,
    "height": int,
    "width": int,
    "batch": int,
    "policy": str,
    "dtype": str,
    "opset": int,
    "graphs": dict,
    "sha256": dict,
    "versions": dict,
    "made_by": str,
}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output; a side of `shape` is a number or the name of an open one."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One graph, its weights beside it. `aliases`: output name to the input whose memory it must be bound to."""

    file: str
    weights: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GraphSet:
    """A sidecar, read. Fields as in the module's docstring."""

    directory: Path
    model: ModelConfig
    model_hash: str
    height: int
    width: int
    batch: int
    policy: CachePolicy
    dtype: str
    opset: int
    graphs: dict[Role, GraphSpec]
    sha256: dict[str, str]
    versions: dict[str, str]
    made_by: str

    @property
    def size(self) -> tuple[int, int, int]:
        """(batch, height, width)."""
        return self.batch, self.height, self.width

    def __str__(self) -> str:
        batch = f" x{self.batch}" if self.batch > 1 else ""
        return f"{self.directory} ({self.height}x{self.width}{batch} {self.dtype} {self.policy})"

    def path(self, role: Role) -> Path:
        """The graph's file; EngineError if there is none of this role."""
        if role not in self.graphs:
            raise EngineError(f"{self.directory / SIDECAR} lists no {role!r} graph; found {', '.join(self.graphs)}")
        return self.directory / self.graphs[role].file

    def check_files(self) -> None:
        """Check the bytes of all files (EngineError)."""
        for name, digest in self.sha256.items():
            self._check_file(name, digest)

    def check_model(self, model_hash: str) -> None:
        """EngineError unless these graphs are of that model."""
        if model_hash != self.model_hash:
            raise EngineError(
                f"{self.directory} holds graphs of model {self.model_hash}, the checkpoint is model {model_hash}; "
                f"export it again: {export_command(self.height, self.width, self.policy, self.dtype)}"
            )

    def to_json(self) -> str:
        """The text of the sidecar."""
        data: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
        data |= {name: getattr(self, name) for name in FIELDS if name not in data}
        data |= {
            "model": config_to_dict(self.model),
            "policy": str(self.policy),
            "graphs": {role: asdict(spec) for role, spec in self.graphs.items()},
        }
        return json.dumps(data, indent=1) + "\n"

    def _check_file(self, name: str, digest: str) -> None:
        path = self.directory / name
        if not path.is_file():
            raise EngineError(f"{path} is missing; {SIDECAR} lists it. Export again")
        found = sha256_of(path)
        if found != digest:
            raise EngineError(
                f"{path} has sha256 {found[:16]}..., {SIDECAR} says {digest[:16]}...: the file is damaged, "
                "truncated or of another export. Export again"
            )


def export_command(height: int, width: int, policy: CachePolicy | str, dtype: str = "float32") -> str:
    """What writes the graphs that are missing."""
    short = {"float32": "fp32", "float16": "fp16"}.get(dtype, dtype)
    return f"omnistream-export onnx --weights WEIGHTS --size {height}x{width} --policy {policy} --dtype {short} OUT"


def head_graphs(want: Collection[str]) -> list[Role]:
    """Which graphs give the heads in `want` (of depth, rays, pose), each output once."""
    roles: list[Role] = []
    if "depth" in want or "rays" in want:
        roles.append("depth_rays" if {"depth", "rays"} <= set(want) else "depth" if "depth" in want else "rays")
    return [*roles, "pose"] if "pose" in want else roles


def find_graphs(root: Path) -> list[GraphSet]:
    """The graph directories at `root`: itself, or those directly in it. None is no error; a bad sidecar is."""
    if (root / SIDECAR).exists():
        return [read_graphs(root)]
    return [read_graphs(path.parent) for path in sorted(root.glob(f"*/{SIDECAR}"))]


def read_graphs(directory: Path) -> GraphSet:
    """Read and check a sidecar. Reads no graph. Raises EngineError with the reason."""
    path = directory / SIDECAR
    try:
        data = read_json(path)
    except CheckpointError as error:
        raise EngineError(str(error)) from error
    if data.get("format") != FORMAT:
        raise EngineError(f"{path} has format {data.get('format')!r}; expected {FORMAT!r}")
    if data.get("format_version") != FORMAT_VERSION:
        raise EngineError(
            f"{path} has format_version {data.get('format_version')!r}; this omnistream reads {FORMAT_VERSION}. "
            "Export again"
        )
    if set(data) != set(FIELDS):
        raise EngineError(f"{path} has fields {sorted(data)}; expected {sorted(FIELDS)}")
    for name, kind in FIELDS.items():
        if not isinstance(data[name], kind):
            raise EngineError(f"{path}: {name} is {data[name]!r}; expected {kind.__name__}")
    try:
        config, policy = config_from_dict(data["model"]), parse_policy(data["policy"])
    except ConfigError as error:
        raise EngineError(f"{path}: {error}") from error
    graphs = {role: _graph(path, role, value) for role, value in data["graphs"].items()}
    sha256 = {_plain_name(path, name): str(digest) for name, digest in data["sha256"].items()}
    unlisted = sorted({name for spec in graphs.values() for name in (spec.file, spec.weights)} - set(sha256))
    if unlisted:
        raise EngineError(f"{path} gives no sha256 of {', '.join(unlisted)}")
    plain = {name: data[name] for name in ("model_hash", "height", "width", "batch", "dtype", "opset", "made_by")}
    versions = {str(name): str(version) for name, version in data["versions"].items()}
    return GraphSet(
        directory=directory, model=config, policy=policy, graphs=graphs, sha256=sha256, versions=versions, **plain
    )


def _graph(path: Path, role: str, data: Any) -> GraphSpec:
    if role not in get_args(Role):
        raise EngineError(f"{path} lists a graph {role!r}; expected any of {', '.join(get_args(Role))}")
    try:
        sides = {
            side: tuple(TensorSpec(str(t["name"]), str(t["dtype"]), tuple(t["shape"])) for t in data[side])
            for side in ("inputs", "outputs")
        }
        aliases = {str(output): str(source) for output, source in data["aliases"].items()}
        file, weights = (_plain_name(path, data[name]) for name in ("file", "weights"))
        return GraphSpec(file, weights, sides["inputs"], sides["outputs"], aliases)
    except (KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{path}: graph {role!r} is not described as expected ({error!r})") from error


def _plain_name(path: Path, name: Any) -> str:
    """A file of this directory and no other."""
    if not isinstance(name, str) or not name or name != Path(name).name:
        raise EngineError(f"{path} names the file {name!r}; expected a plain name in the same directory")
    return name
