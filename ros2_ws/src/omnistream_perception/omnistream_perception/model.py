# SPDX-License-Identifier: Apache-2.0
"""Loading a model for several cameras: memory checked first, one engine for all, one stream for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from omnistream.engines.base import Engine
from omnistream.engines.select import choose_device, choose_dtype, depends_on_size
from omnistream.errors import CheckpointError, ConfigError
from omnistream.model.config import ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.stream.gate import TimeBase
from omnistream.stream.policy import CachePolicy, parse_policy
from omnistream.stream.preprocess import kept_small
from omnistream.stream.session import StreamSession
from omnistream.weights import open_checkpoint
from omnistream.weights.shipped import DEFAULT
from omnistream_ros.parameters import Parameters

from .memory import MIB, MemoryNeed, check_memory, memory_need

WARM_UP_FRAMES = 2
"""The first frame of a stream and a later one take different paths."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """How the model is run; see the parameters of the same names."""

    engine: str
    device: str
    dtype: str
    image_size: int
    enlarge: bool
    feature_taps: tuple[int, ...]
    expected_size: tuple[int, int]
    """(height, width)."""
    memory_limit: int
    num_threads: int | None
    time_base: TimeBase
    nominal_rate: float

    @staticmethod
    def read(parameters: Parameters) -> ModelSettings:
        """From the declared parameters."""
        width, height = parameters["expected_image_size"]
        same = ("engine", "device", "dtype", "image_size", "enlarge", "memory_limit", "time_base", "nominal_rate")
        return ModelSettings(
            expected_size=(height, width),
            feature_taps=tuple(parameters["feature_taps"]),
            num_threads=parameters["num_threads"] or None,
            **{name: parameters[name] for name in same},
        )


@dataclass(frozen=True)
class LoadedModel:
    """A model and the streams that run on it."""

    model: OmniStream
    description: str
    """What it is, for the log and the status."""
    sessions: dict[str, StreamSession]
    """By camera; they share one engine."""
    memory: str

    @property
    def session(self) -> StreamSession:
        """Any of them, for what they have in common."""
        return next(iter(self.sessions.values()))

    def close(self, successor: LoadedModel | None = None) -> None:
        """Frees caches and weights, but those of engines that `successor` goes on with."""
        kept = [] if successor is None else [session.engine for session in successor.sessions.values()]
        for engine in {id(session.engine): session.engine for session in self.sessions.values()}.values():
            if not any(engine is other for other in kept):
                engine.close()
        self.sessions.clear()


def load(weights: str, policy: str, cameras: Sequence[str], settings: ModelSettings) -> LoadedModel:
    """Reads the checkpoint `weights`, allocates a cache for each of `cameras` and warms the model up.

    Raises:
        CheckpointError: missing, damaged or foreign.
        ConfigError: not enough memory, with the numbers; or a policy that is not understood.
        EngineError: no such engine here.
    """
    config, read, description = _open(weights)
    _check_taps(config, settings.feature_taps)
    parsed = parse_policy(policy)
    need = _need(config, parsed, len(cameras), settings)
    check_memory(need.total, str(need), settings.memory_limit, settings.device)
    model = read()
    sessions = _sessions(model, settings.engine, parsed, cameras, settings)
    first = next(iter(sessions.values()))
    _warm_up(first, settings.expected_size)
    return LoadedModel(model, description, sessions, str(need))


def with_policy(loaded: LoadedModel, policy: str, settings: ModelSettings) -> LoadedModel:
    """New streams of another policy, on the same engine where that takes any size.

    Raises:
        ConfigError: not enough memory for the new caches beside the old, or a policy that is not understood.
    """
    parsed = parse_policy(policy)
    cameras = list(loaded.sessions)
    need = _need(loaded.model.config, parsed, len(cameras), settings)
    # The weights are in memory already; with a limit of the user's they count all the same.
    more = need.total if settings.memory_limit else need.cache * need.cameras
    description = str(need) if settings.memory_limit else f"{more / MIB:.1f} MiB of cache ({need.what})"
    check_memory(more, description, settings.memory_limit, settings.device)
    sessions = _sessions(loaded.model, loaded.session.engine, parsed, cameras, settings)
    return LoadedModel(loaded.model, loaded.description, sessions, str(need))


def _open(weights: str) -> tuple[ModelConfig, Callable[[], OmniStream], str]:
    """Configuration, a function that reads the weights, and what they are."""
    if not weights:
        raise CheckpointError(
            f"parameter weights is empty; expected a checkpoint directory, a .safetensors file or {DEFAULT!r}"
        )
    checkpoint = open_checkpoint(weights)
    return checkpoint.config, checkpoint.model, f"{checkpoint.path.resolve().name} ({checkpoint.kind})"


def _check_taps(config: ModelConfig, taps: Sequence[int]) -> None:
    have = 0 if config.heads is None else len(config.heads.taps)
    if list(taps) != sorted(set(taps)) or any(not 0 <= tap < have for tap in taps):
        expected = f"increasing numbers from 0 to {have - 1}" if have else "none: the checkpoint has no heads"
        raise ConfigError(f"feature_taps is {list(taps)}; expected {expected}")


def _need(config: ModelConfig, policy: CachePolicy, cameras: int, settings: ModelSettings) -> MemoryNeed:
    number_format = choose_dtype(settings.dtype, choose_device(settings.device), settings.engine)
    size = settings.image_size or config.image_size
    if not settings.enlarge:
        size = kept_small(size, *settings.expected_size)
    return memory_need(config, policy, size, settings.expected_size, cameras, number_format)


def _sessions(
    model: OmniStream, engine: str | Engine, policy: CachePolicy, cameras: Sequence[str], settings: ModelSettings
) -> dict[str, StreamSession]:
    """One stream for each camera. They share the engine, unless it is chosen by the size of the images."""
    sessions: dict[str, StreamSession] = {}
    own = depends_on_size(model, settings.engine, settings.device, settings.dtype)
    for camera in cameras:
        session = StreamSession(
            model,
            engine=settings.engine if own else engine,
            policy=policy,
            image_size=settings.image_size or None,
            enlarge=settings.enlarge,
            time_base=settings.time_base,
            nominal_rate=settings.nominal_rate,
            dtype=settings.dtype,
            device=settings.device,
            num_threads=settings.num_threads,
        )
        try:
            session.allocate(*settings.expected_size)
        except (RuntimeError, MemoryError) as error:  # what torch raises when the system gives nothing more
            raise ConfigError(f"the cache of camera {camera!r} cannot be allocated: {error}") from error
        engine = session.engine
        sessions[camera] = session
    return sessions


def _warm_up(session: StreamSession, size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    frames = min(WARM_UP_FRAMES, session.slots) if not session.policy.evicts else WARM_UP_FRAMES
    for index in range(frames):
        session.step(image, stamp=index / 30)
    session.reset()
