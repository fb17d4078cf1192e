# SPDX-License-Identifier: Apache-2.0
"""Reading configuration files that others wrote: config.json fields by name and type, and preprocessor_config.json."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from omnistream.errors import CheckpointError, ConfigError
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.weights.files import read_json

_MISSING = object()


class Fields:
    """Typed access to a JSON object; every refusal names the file, the field, the value and what was expected."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = read_json(path)

    def integer(self, name: str, default: Any = _MISSING) -> int:
        """A positive integer."""
        value = self._get(name, default)
        if type(value) is not int or value < 1:
            raise self.refusal(name, "a positive integer")
        return value

    def count(self, name: str, default: Any = _MISSING) -> int:
        """An integer >= 0."""
        value = self._get(name, default)
        if type(value) is not int or value < 0:
            raise self.refusal(name, "an integer >= 0")
        return value

    def number(self, name: str, default: Any = _MISSING) -> float:
        """A positive number."""
        value = self._get(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.refusal(name, "a positive number")
        return float(value)

    def boolean(self, name: str, default: Any = _MISSING) -> bool:
        value = self._get(name, default)
        if type(value) is not bool:
            raise self.refusal(name, "true or false")
        return value

    def choice(self, name: str, options: tuple[Any, ...], default: Any = _MISSING) -> Any:
        """One of `options`."""
        value = self._get(name, default)
        if value not in options:
            raise self.refusal(name, " or ".join(map(repr, options)))
        return value

    def side(self, name: str, default: Any = _MISSING) -> int:
        """A side in pixels that may be written as n, [n, n] or null (the default)."""
        value = self._get(name, default)
        if value is None and default is not _MISSING:
            return default
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if type(value) is not int or value < 1:
            raise self.refusal(name, "a positive integer, or two equal ones")
        return value

    def triple(self, name: str, default: Any = _MISSING) -> tuple[float, float, float]:
        value = self._get(name, default)
        numbers = isinstance(value, (list, tuple)) and all(type(v) in (int, float) and math.isfinite(v) for v in value)
        if not numbers or len(value) != 3:
            raise self.refusal(name, "three numbers")
        return float(value[0]), float(value[1]), float(value[2])

    def refusal(self, name: str, expected: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {name} is {self.data.get(name)!r}; expected {expected}")

    def _get(self, name: str, default: Any) -> Any:
        if name in self.data:
            return self.data[name]
        if default is _MISSING:
            raise CheckpointError(f"{self.path} lacks the field {name!r}")
        return default


def backbone_config(path: Path, **fields: Any) -> BackboneConfig:
    """`BackboneConfig(**fields)`; what it refuses is reported as a fault of the file at `path`."""
    try:
        return BackboneConfig(**fields)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def backbone_only(path: Path, backbone: BackboneConfig, *, image_size: int) -> ModelConfig:
    """A configuration without heads, or a `CheckpointError` about `path`."""
    try:
        return ModelConfig(backbone=backbone, image_size=image_size)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def with_preprocessor(config: ModelConfig, directory: Path) -> ModelConfig:
    """Mean, std and size of `preprocessor_config.json` where the directory has one (an image processor's file).

    Our session scales pixels to [0, 1], resizes and normalises; a processor that does otherwise is refused.
    """
    path = directory / "preprocessor_config.json"
    if not path.is_file():
        return config
    fields = Fields(path)
    if not fields.boolean("do_rescale", True) or abs(fields.number("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        raise CheckpointError(f"{path}: expected do_rescale true with rescale_factor 1/255")
    if fields.boolean("do_normalize", True):
        config = replace(
            config, mean=fields.triple("image_mean", config.mean), std=_positive(fields, "image_std", config.std)
        )
    else:
        config = replace(config, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    if fields.boolean("do_resize", True) and fields.data.get("size") is not None:
        config = replace(config, image_size=_pixel_budget(fields, config.backbone.patch_size))
    return config


def _positive(fields: Fields, name: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    values = fields.triple(name, default)
    if min(values) <= 0:
        raise fields.refusal(name, "three positive numbers")
    return values


def _pixel_budget(fields: Fields, patch: int) -> int:
    size = fields.data["size"]
    if isinstance(size, dict):
        sides = [size[k] for k in ("height", "width", "shortest_edge") if k in size]
    else:
        sides = size if isinstance(size, list) else [size]
    if not sides or not all(type(s) is int and s >= patch for s in sides):
        raise fields.refusal("size", f"n, or {{height, width}}, or {{shortest_edge}}, in pixels, at least {patch}")
    return round(math.prod(sides) ** (1 / len(sides)))
