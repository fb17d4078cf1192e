# SPDX-License-Identifier: Apache-2.0
"""Parameters as a table: one `ParameterSpec` each, from which come declaration, descriptors, validation and docs.

    SPECS = (ParameterSpec("max_rate", 0.0, "Frames per second at most; 0 is no limit.", minimum=0.0, maximum=1000.0),)
    parameters = Parameters(node, SPECS)       # declares them, overrides from the command line or a file applied
    parameters["max_rate"]                     # the current value

A value that does not fit is refused with the reason: by rclpy for type and range, here for choices and checks.
"""

from __future__ import annotations

import difflib
import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from omnistream.errors import ConfigError


class Effect(enum.Enum):
    """When a changed value takes effect."""

    NOW = "at once"
    CONFIGURE = "at configure"
    """Refused while the node is configured."""
    START = "at start"
    """Read-only then."""


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter. Its type is that of `default` (for an empty list, `item_type` says of what)."""

    name: str
    default: Any
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    """Allowed strings (for a list: allowed items); empty for any."""
    effect: Effect = Effect.NOW
    item_type: type = str
    check: Callable[[Any], str | None] | None = None
    """More than a range: returns the reason why a value is refused, or None."""

    @property
    def ros_type(self) -> Parameter.Type:
        """The ROS type."""
        kind = type(self.default)
        if kind in (list, tuple):
            kind = type(self.default[0]) if self.default else self.item_type
            return _ARRAY_TYPES[kind]
        return _SCALAR_TYPES[kind]

    def problem(self, value: Any) -> str | None:
        """Why `value` (of the right ROS type) is refused; None when it is fine."""
        items = list(value) if isinstance(self.default, (list, tuple)) else [value]
        for item in items:
            if self.choices and item not in self.choices:
                return f"{self.name} is {item!r}; expected one of {', '.join(self.choices)}"
            if isinstance(item, float) and not math.isfinite(item):
                return f"{self.name} is {item}; expected a finite number"
            if (self.minimum is not None and item < self.minimum) or (self.maximum is not None and item > self.maximum):
                return f"{self.name} is {item}; expected {self.limits()}"
        if self.check is not None and (reason := self.check(value)):
            return reason if reason.startswith(self.name) else f"{self.name}: {reason}"
        return None

    def limits(self) -> str:
        """Range or choices in words, '' when there are none."""
        if self.choices:
            return ", ".join(choice or '""' for choice in self.choices)
        if self.minimum is None and self.maximum is None:
            return ""
        if self.maximum is None:
            return f"at least {self.minimum}"
        return f"{self.minimum}..{self.maximum}" if self.minimum is not None else f"at most {self.maximum}"

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` and rqt show."""
        unit = f" [{self.unit}]" if self.unit else ""
        descriptor = ParameterDescriptor(
            name=self.name,
            description=self.description + unit,
            read_only=self.effect is Effect.START,
            additional_constraints=f"one of: {self.limits()}" if self.choices else self.limits(),
        )
        if self.minimum is not None and self.maximum is not None:  # ROS has no half-open ranges
            if self.ros_type is Parameter.Type.INTEGER:
                limits = IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum), step=0)
                descriptor.integer_range = [limits]
            elif self.ros_type is Parameter.Type.DOUBLE:
                interval = FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum), step=0.0)
                descriptor.floating_point_range = [interval]
        return descriptor

    def renamed(self, name: str, **changes: Any) -> ParameterSpec:
        """The same parameter under another name (``cameras.front.`` + name), with other fields where given."""
        return replace(self, name=name, **changes)


_SCALAR_TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
}
_ARRAY_TYPES = {
    bool: Parameter.Type.BOOL_ARRAY,
    int: Parameter.Type.INTEGER_ARRAY,
    float: Parameter.Type.DOUBLE_ARRAY,
    str: Parameter.Type.STRING_ARRAY,
}


class Parameters(Mapping[str, Any]):
    """The declared parameters of a node, read like a dict.

    Args:
        node: whose parameters they are.
        specs: the table.
        locked: asked whether `Effect.CONFIGURE` parameters are locked right now (the node is configured).

    Raises:
        ConfigError: a value given on the command line or in a file has the wrong type or is refused.
    """

    def __init__(self, node: Node, specs: Iterable[ParameterSpec], locked: Callable[[], bool] = lambda: False) -> None:
        self._node = node
        self._specs: dict[str, ParameterSpec] = {}
        self._locked = locked
        self._overwriting = False
        self._values: dict[str, Any] = {}
        self.declare(specs)
        node.add_on_set_parameters_callback(self._refuse)
        node.add_post_set_parameters_callback(self._changed)

    def declare(self, specs: Iterable[ParameterSpec]) -> None:
        """Declares more parameters, e.g. those of each camera once the names of the cameras are known."""
        for spec in specs:
            if spec.name in self._specs:
                raise ConfigError(f"parameter {spec.name!r} is in the table twice")
            self._specs[spec.name] = spec
            self._values[spec.name] = self._declare(spec)

    def overwrite(self, name: str, value: Any) -> None:
        """Sets a parameter from inside, locked or not: when a service has changed what it stands for."""
        self._overwriting = True
        try:
            self._node.set_parameters([Parameter(name, self._specs[name].ros_type, value)])
        finally:
            self._overwriting = False

    def undeclared(self) -> list[str]:
        """Sentences on parameters that were given at start but are not ours: most likely misspelt."""
        given = self._given()
        known = [*self._specs, *(name for name in given if self._node.has_parameter(name))]
        sentences = []
        for name in given:
            if name in known or name.startswith("qos_overrides."):
                continue
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            sentences.append(f"parameter {name!r} was given but this node has none of that name{hint}")
        return sentences

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _declare(self, spec: ParameterSpec) -> Any:
        given = self._given().get(spec.name)
        is_list = isinstance(spec.default, (list, tuple))
        # An empty list has no type (in a file it is "not set", rclpy takes it for bytes): declare type, then set [].
        empty = is_list and (not spec.default if given is None else not given.value)
        default = list(spec.default) if is_list else spec.default
        if empty or default == []:
            default = spec.ros_type
        try:
            declared = self._node.declare_parameter(spec.name, default, spec.descriptor(), ignore_override=empty)
        except InvalidParameterTypeException:
            value = None if given is None else given.value
            hint = f"; write {value}.0" if isinstance(value, int) and spec.ros_type is Parameter.Type.DOUBLE else ""
            raise ConfigError(f"parameter {spec.name} is {value!r}; expected {_type_name(spec)}{hint}") from None
        except InvalidParameterValueException as error:
            raise ConfigError(f"parameter {error}") from None
        if empty:
            declared = Parameter(spec.name, spec.ros_type, [])
            self._node.set_parameters([declared])
        if declared.value is None:
            raise ConfigError(f"parameter {spec.name} has no value; expected {_type_name(spec)}")
        if reason := spec.problem(declared.value):
            raise ConfigError(f"parameter {reason}")
        return _plain(declared.value)

    def _given(self) -> dict[str, Parameter]:
        """What the command line, files and the constructor set; rclpy has no public way to list it."""
        return getattr(self._node, "_parameter_overrides", {})

    def _refuse(self, changes: list[Parameter]) -> SetParametersResult:
        for parameter in changes:
            spec = self._specs.get(parameter.name)
            if spec is None or parameter.name not in self._values:
                continue
            locked = self._locked() and not self._overwriting
            if spec.effect is Effect.CONFIGURE and locked and _plain(parameter.value) != self[spec.name]:
                reason = f"{spec.name} is used at configure only; deactivate and clean up the node first"
                return SetParametersResult(successful=False, reason=reason)
            if problem := spec.problem(parameter.value):
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _changed(self, changes: list[Parameter]) -> None:
        for parameter in changes:
            if parameter.name in self._values:
                self._values[parameter.name] = _plain(parameter.value)


def _plain(value: Any) -> Any:
    """Arrays (rclpy gives array.array or lists) as lists, so that values compare and print the same everywhere."""
    return value if isinstance(value, (bool, int, float, str, bytes, type(None))) else list(value)


def _type_name(spec: ParameterSpec) -> str:
    return spec.ros_type.name.lower().replace("_", " ")


def help_text(text: str, specs: Iterable[ParameterSpec]) -> str:
    """`text` (of a node's module) and its parameters, for --help."""
    rows = reference_rows(specs)
    width = max(len(row[0]) for row in rows) + 2
    lines = [text.strip(), "", "Parameters (--ros-args -p NAME:=VALUE, or --params-file FILE):"]
    for name, kind, default, allowed, description in rows:
        lines.append(f"  {name:<{width}}{kind}, default {default}" + (f", {allowed}" if allowed else ""))
        lines.append(f"  {'':<{width}}{description}")
    return "\n".join(lines)


def reference_rows(specs: Iterable[ParameterSpec]) -> list[tuple[str, str, str, str, str]]:
    """(name, type, default, allowed, description) of each, as text for a documentation table."""
    rows = []
    for spec in specs:
        default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
        text = str(default).lower() if isinstance(default, bool) else repr(default).replace("'", '"')
        allowed = spec.limits() + (f" {spec.unit}" if spec.unit else "")
        when = "" if spec.effect is Effect.NOW else f" (Takes effect {spec.effect.value}.)"
        rows.append((spec.name, _type_name(spec), text, allowed.strip(), spec.description + when))
    return rows
