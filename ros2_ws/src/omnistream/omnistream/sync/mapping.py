# SPDX-License-Identifier: Apache-2.0
"""Which topics mean what: one YAML file for importing bags, for recording and for the policy's node.

format: omnistream-mapping
version: 1
rate: 10                                  # Hz; control ticks are pictures of the first camera, thinned to it
clock: header                             # or log: the bag's own times (receive times in a node)
cameras:
- {name: front, topic: /camera/image_raw, max_age: 0.1, height: 224, width: 224}   # size: left out = as it comes
state:
- {topic: /joint_states, fields: [joint_1, joint_2], unit: rad, max_age: 0.1}
- {topic: /gripper/state, fields: [value], names: [gripper_width], unit: m}
action:
  mode: velocity
  frame: base_link
  parts:
  - {topic: /servo/delta_twist_cmds, fields: [vx, vy, vz], names: [dx, dy, dz], unit: m/s, pick: next, max_age: 0.2}
  - {topic: /gripper/command, fields: [value], names: [gripper], unit: "1", pick: hold, max_age: null,
     gripper: {open: 1.0, closed: -1.0}}
instruction: {topic: /instruction, text: lift the red cube}    # text: until the first message
episodes: {topic: /episode, shortest: 1.0}                     # "start", "success", "failure", "stop", "discard"
"""

from __future__ import annotations

from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, field
from pathlib import Path

from omnistream.contract.contract import UNITS, Action, Camera, Contract, Dimension, Gripper
from omnistream.contract.reading import check_version, load_mapping
from omnistream.errors import ContractError
from omnistream.strict import build
from omnistream.sync.actions import Command
from omnistream.sync.aligner import Stream
from omnistream.sync.fields import JOINT_QUANTITIES
from omnistream.sync.fields import UNITS as FIXED_UNITS

FORMAT = "omnistream-mapping"
VERSION = 1
PICTURES_KEPT = 32
"""Per camera while a tick is undecided; pictures are large."""


@dataclass(frozen=True, kw_only=True)
class CameraTopic:
    """A camera: sensor_msgs/Image or CompressedImage."""

    name: str
    topic: str
    max_age: float = 0.1
    """Seconds."""
    height: int | None = None
    """Pixels that pictures are resized to; None: as they come."""
    width: int | None = None


@dataclass(frozen=True, kw_only=True)
class StatePart:
    """Numbers of one topic (see `omnistream.sync.fields`)."""

    topic: str
    fields: tuple[str, ...]
    names: tuple[str, ...] = ()
    """What they are called in the contract; empty: as the fields."""
    unit: str | None = None
    """Of all; None: as the fields say (m and rad of poses, ...)."""
    quantity: str = "position"
    """Of joints: position, velocity or effort."""
    max_age: float | None = 0.2
    """Seconds; null: any age."""

    def dimensions(self) -> tuple[Dimension, ...]:
        """As in the contract. ContractError if a unit is not stated or names do not match fields."""
        names = self.names or self.fields
        if len(names) != len(self.fields):
            raise ContractError(f"{self.topic}: {len(names)} names for {len(self.fields)} fields")
        if self.quantity not in JOINT_QUANTITIES:
            raise ContractError(f"{self.topic}: quantity is {self.quantity!r}; expected {', '.join(JOINT_QUANTITIES)}")
        found = []
        for name, source in zip(names, self.fields, strict=True):
            unit = self.unit or FIXED_UNITS.get(source)
            if unit is None:
                raise ContractError(f"{self.topic}: field {source!r} has no unit; say unit: one of {', '.join(UNITS)}")
            found.append(Dimension(name, unit))
        return tuple(found)


@dataclass(frozen=True)
class GripperSign:
    """Which values of a command open and close."""

    open: float
    closed: float


@dataclass(frozen=True, kw_only=True)
class ActionPart(StatePart):
    """Commands on one topic."""

    pick: str = "next"
    """next: the first at or after the tick; hold: the last before the next tick, then in force."""
    delay: float = 0.0
    """Seconds from tick to command."""
    gripper: GripperSign | None = None
    """Set for the part that is a gripper's one number."""


@dataclass(frozen=True, kw_only=True)
class ActionMapping:
    """The action: first `from_state`, then the parts."""

    mode: str
    frame: str
    from_state: tuple[str, ...] = ()
    """Names of state dimensions whose next value (mode absolute) or change until then (delta) is the action."""
    parts: tuple[ActionPart, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InstructionMapping:
    """What the robot is told: std_msgs/String. A new instruction starts a new episode."""

    topic: str | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class EpisodeMapping:
    """Where episodes begin and end: std_msgs/String; without a topic a bag is one episode, cut at gaps."""

    topic: str | None = None
    shortest: float = 1.0
    """Seconds; what is shorter is left out and counted."""


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """The whole file."""

    rate: float
    cameras: tuple[CameraTopic, ...]
    action: ActionMapping
    state: tuple[StatePart, ...] = ()
    clock: str = "header"
    patience: float = 0.02
    """Seconds that a tick waits for messages with its own stamp."""
    instruction: InstructionMapping = field(default_factory=InstructionMapping)
    episodes: EpisodeMapping = field(default_factory=EpisodeMapping)

    def __post_init__(self) -> None:
        if self.clock not in ("header", "log"):
            raise ContractError(f"clock is {self.clock!r}; expected header or log")
        if not self.cameras:
            raise ContractError("cameras is empty; expected at least one: its pictures are the control ticks")
        if not 0 <= self.patience <= 10:
            raise ContractError(f"patience is {self.patience} s; expected 0 to 10")
        for camera in self.cameras:
            if (camera.height is None) != (camera.width is None):
                raise ContractError(f"camera {camera.name!r} has one of height and width; expected both or none")
        for part in self.action.parts:
            if part.pick not in ("next", "hold"):
                raise ContractError(f"{part.topic}: pick is {part.pick!r}; expected next or hold")
            if part.pick == "next" and part.max_age is None:
                raise ContractError(f"{part.topic}: max_age is null; pick next waits so long, expected seconds")
            if part.gripper is not None and len(part.fields) != 1:
                raise ContractError(f"{part.topic}: a gripper has one field, not {len(part.fields)}")
        names = [dimension.name for dimension in self.state_dimensions()]
        unknown = [name for name in self.action.from_state if name not in names]
        if unknown:
            raise ContractError(
                f"action.from_state names {unknown[0]!r}; the state has {', '.join(names) or 'nothing'}"
            )
        if self.action.from_state and self.action.mode not in ("delta", "absolute"):
            raise ContractError(f"action.mode is {self.action.mode!r}; from_state needs delta or absolute")
        sizes = {camera.name: (1, 1) for camera in self.cameras}
        _check_units(self.contract(sizes).action)  # raises what does not fit

    @property
    def period(self) -> int:
        """Control period, ns."""
        return round(1e9 / self.rate)

    def state_dimensions(self) -> tuple[Dimension, ...]:
        """Of all parts, in order."""
        return tuple(dimension for part in self.state for dimension in part.dimensions())

    def contract(self, sizes: Dictionary[str, tuple[int, int]]) -> Contract:
        """The contract of data made by this mapping. sizes: (height, width) of cameras that state none."""
        cameras = []
        for camera in self.cameras:
            size = (
                sizes[camera.name] if camera.height is None or camera.width is None else (camera.height, camera.width)
            )
            cameras.append(Camera(camera.name, *size))
        by_name = {dimension.name: dimension for dimension in self.state_dimensions()}
        dimensions = [by_name[name] for name in self.action.from_state]
        grippers = []
        for part in self.action.parts:
            if part.gripper is not None:
                grippers.append(Gripper(len(dimensions), part.gripper.open, part.gripper.closed))
            dimensions += part.dimensions()
        action = Action(tuple(dimensions), self.action.mode, self.action.frame, tuple(grippers))
        return Contract(rate=self.rate, cameras=tuple(cameras), state=self.state_dimensions(), action=action)

    def streams(self) -> tuple[Stream, ...]:
        """What an observation needs: cameras by topic, then parts of the state by `stream_name`."""
        cameras = [Stream(c.topic, nanoseconds(c.max_age), PICTURES_KEPT) for c in self.cameras]
        parts = [Stream(self.stream_name(i), nanoseconds(part.max_age)) for i, part in enumerate(self.state)]
        return (*cameras, *parts)

    def stream_name(self, part: int) -> str:
        """The topic of part `part` of the state, with its number where several parts share it.

        Each part is a stream of its own: several drivers may publish their joints on one topic.
        """
        topic = self.state[part].topic
        return topic if sum(other.topic == topic for other in self.state) == 1 else f"{topic}#{part}"

    def topics(self) -> tuple[str, ...]:
        """All topics, each once."""
        named = [c.topic for c in self.cameras] + [p.topic for p in (*self.state, *self.action.parts)]
        named += [topic for topic in (self.instruction.topic, self.episodes.topic) if topic is not None]
        return tuple(dict.fromkeys(named))

    def commands(self) -> tuple[Command, ...]:
        """Streams of commands, named by their position among the parts."""
        return tuple(
            Command(str(i), part.pick, nanoseconds(part.max_age), nanoseconds(part.delay) or 0)  # type: ignore[arg-type]
            for i, part in enumerate(self.action.parts)
        )


def _check_units(action: Action) -> None:
    """ContractError where mode and unit contradict each other: the robot would do something else than was recorded."""
    impossible = {"velocity": ("m", "rad"), "delta": ("m/s", "rad/s")}.get(action.mode, ())
    for i in action.arm:
        dimension = action.dimensions[i]
        if dimension.unit in impossible:
            raise ContractError(
                f"action {dimension.name!r} is in {dimension.unit}, action.mode is {action.mode!r}; expected a change "
                "per control period in m or rad (delta), or a change per second in m/s or rad/s (velocity)"
            )


def load_mapping_file(path: str | Path) -> Mapping:
    """Read a mapping. ContractError names the file, the field, the value and what was expected."""
    data = load_mapping(path)
    try:
        check_version(data, FORMAT, VERSION)
        rest = {key: value for key, value in data.items() if key not in ("format", "version")}
        return build(Mapping, rest, "mapping", ContractError)
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from error


def nanoseconds(seconds: float | None) -> int | None:
    """None stays None: any age."""
    return None if seconds is None else round(seconds * 1e9)
