# SPDX-License-Identifier: Apache-2.0
"""Replay of a perception node's run log: every image that it stepped, again, and the features that a policy read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np
import torch

from omnistream.errors import CheckpointError, InputError
from omnistream.io.pixels import checksum, decode_compressed, decode_image
from omnistream.io.run_log import RecordedRun
from omnistream.replay.pictures import IMAGES, BagPictures, Key
from omnistream.stream.camera import CameraStream, Taken, result_digest
from omnistream.stream.gate import StreamGate
from omnistream.stream.layers import layer_name, layers_of
from omnistream.stream.rectify import Lens, Undistortion
from omnistream.stream.result import StepResult
from omnistream.stream.session import StreamSession
from omnistream.weights import load_model

KEPT = 32
"""Feature maps that wait for the policy to ask for them."""


@dataclass
class Seen:
    """Replay against live."""

    images: int = 0
    different: int = 0
    first: str = ""
    """A sentence about the first difference; '' while there is none."""
    not_in_bag: int = 0
    failed: int = 0
    """Images that could not be stepped live, and are not tried again."""
    resets: Counter[str] = field(default_factory=Counter)
    hashes: dict[str, str] = field(default_factory=dict)
    """Camera -> SHA-256 over its results."""

    def note(self, sentence: str) -> None:
        """The first counts."""
        self.first = self.first or sentence


class SeeingAgain:
    """See the module. A context manager.

    Args:
        run: of the perception node.
        bag: with its images.
        changes: parameters that win over those of the log: weights, engine, device.
        step: called after each image.

    Raises OptionError, with the topics that there are, for a bag of something else; CheckpointError, ConfigError,
    EngineError as the node's configure.
    """

    def __init__(
        self, run: RecordedRun, bag: Path, changes: Mapping[str, Any], step: Callable[[], Any] = lambda: None
    ) -> None:
        self.run_log, self.seen = run, Seen()
        self._step = step
        self._topics = _topics(run)
        events = [event for event in run.events if event["event"] == "image"]
        try:
            keys: list[Key] = [(self._topics[event["camera"]], event["stamp"]) for event in events]
        except (KeyError, TypeError) as error:
            raise InputError(f"{run.path}: a line about an image is damaged: {error!r}") from error
        self.pictures = BagPictures(bag, list(self._topics.values()), keys, IMAGES)
        try:
            self._streams = _streams(run, changes)
        except Exception:
            self.pictures.__exit__()
            raise
        self._taps = tuple(run.header["parameters"].get("feature_taps", ()))
        self._undistortions: dict[Any, Undistortion] = {}
        self._features: dict[tuple[str, int], tuple[StepResult, CameraStream, int]] = {}
        self._events = enumerate(run.events, 2)
        self._ahead = Counter((event["camera"], event["stamp"]) for event in events)
        self._ended = False

    def __enter__(self) -> SeeingAgain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pictures.__exit__()

    @property
    def identity(self) -> dict[str, Any]:
        """What runs here, as in the header."""
        session = next(iter(self._streams.values())).session
        return {"model": session.model_hash, "engine": str(session.engine.spec)}

    @property
    def feature_topics(self) -> dict[str, str]:
        """Topic -> camera."""
        node = self.run_log.header.get("node", "")
        return {f"{node}/{camera}/features" if camera else f"{node}/features": camera for camera in self._streams}

    def finish(self) -> Seen:
        """The rest of the log."""
        while self._advance():
            pass
        self.seen.hashes = {name: stream.hash.hexdigest() for name, stream in self._streams.items()}
        return self.seen

    def find(self, topic: str, stamp: int, crc: int) -> Any:
        """The FeatureMap of an image as the node published it; None where it did not, or where its bytes differ."""
        camera = self.feature_topics.get(topic)
        if camera is None:
            return None
        while (camera, stamp) not in self._features:
            if not self._ahead[camera, stamp] or not self._advance():  # never past what it is to make yet
                return None
        result, stream, frames = self._features[camera, stamp]
        for number_format in ("float16", "float32"):
            message = feature_message(result, stream.session, frames, number_format, self._taps)
            if checksum(message.data, message.cls) == crc:
                return message
        return None

    def _advance(self) -> bool:
        """One line more; False at the end."""
        for number, event in self._events:
            if self._ended:
                return False
            try:
                self._do(event)
            except (KeyError, TypeError, AttributeError) as error:
                where = f"{self.run_log.path}: line {number} ({event['event']})"
                raise InputError(f"{where} is damaged: {error!r}") from error
            return True
        return False

    def _do(self, event: dict[str, Any]) -> None:
        if event["event"] == "forget_frames":
            self._streams[event["camera"]].reset()
            self.seen.resets["asked for"] += 1
        elif event["event"] == "replaced":
            self.seen.note(f"live it went on with {event['policy']} of model {event['model']}: the replay ends there")
            self._ended = True
        elif event["event"] == "failed":
            self._failed(event)
        elif event["event"] == "image":
            self._image(event)
            self._step()

    def _failed(self, event: dict[str, Any]) -> None:
        self.seen.failed += 1
        self._streams[event["camera"]].skip(
            tuple(event["size"]),
            stamp=event["stamp"],
            frame_id=event["frame_id"],
            K=_matrix(event["K"]),
            lens=_lens(event.get("lens")),  # logs of older versions say neither
            paused=event.get("paused"),
            reset=bool(event["reset"]),
        )
        if event["reset"]:
            self.seen.resets[event["reset"]] += 1

    def _image(self, event: dict[str, Any]) -> None:
        name, stamp = event["camera"], event["stamp"]
        stream, seen = self._streams[name], self.seen
        seen.images += 1
        self._ahead[name, stamp] -= 1
        message = self.pictures.find(self._topics[name], stamp, event["crc"])
        if message is None:
            seen.not_in_bag += 1
            seen.note(f"image {stamp}: not in the bag")
            return
        image = decode_picture(message)
        resets: list[str] = []
        with _threads(self.run_log.header.get("threads")):
            taken: Taken = stream.take(
                image,
                stamp=stamp,
                frame_id=event["frame_id"],
                K=_matrix(event["K"]),
                undistort=self._undistortion(event["lens"], (image.shape[0], image.shape[1])),
                want=event["want"],
                on_reset=lambda reason, _: resets.append(str(reason)),
                paused=event.get("paused"),
            )
        seen.resets.update(resets)
        if taken.result is None:
            seen.different += 1
            seen.note(f"image {stamp}: dropped here ({taken.dropped})")
            return
        stream.add_to_hash(taken.result)
        self._features[name, stamp] = (taken.result, stream, stream.session.frames_seen)
        for old in list(self._features)[:-KEPT]:
            del self._features[old]
        if result_digest(taken.result) != event["result"] or "".join(resets[-1:]) != event["reset"]:
            seen.different += 1
            seen.note(
                f"image {stamp}: other results, or another reset ({resets or 'none'} here, {event['reset']!r} live)"
            )

    def _undistortion(self, values: Any, size: tuple[int, int]) -> Undistortion | None:
        lens = _lens(values)
        if lens is None:
            return None
        key = (lens, size)
        if key not in self._undistortions:
            self._undistortions[key] = Undistortion(lens, size)
        return self._undistortions[key]


def _lens(values: Any) -> Lens | None:
    if values is None:
        return None
    K, D, model = values
    return Lens(tuple(K), tuple(D), model)


def _matrix(values: Any) -> Any:
    return None if values is None else np.array(values, np.float64)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """torch with as many CPU threads as live: how a sum is split decides its last bits. The policy may have others."""
    before = torch.get_num_threads()
    if count and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count and count != before:
            torch.set_num_threads(before)


def decode_picture(message: Any) -> Any:
    """u8 [H, W, 3] of an Image or CompressedImage; InputError for one that cannot be decoded."""
    if hasattr(message, "encoding"):
        return decode_image(
            message.encoding, message.height, message.width, message.step, message.data, message.is_bigendian
        )
    return decode_compressed(message.data, message.format)


def feature_message(
    result: StepResult, session: StreamSession, frames: int, number_format: str, taps: Sequence[int] = ()
) -> Any:
    """What perception's FeatureMap of a result says."""
    little = np.dtype(number_format).newbyteorder("<")
    features, cls = layers_of(result, taps)
    height, width, dim = features.shape
    return SimpleNamespace(
        grid_height=height,
        grid_width=width,
        dim=dim,
        dtype=number_format,
        layer=layer_name(taps),
        layout="row_major_hwc",
        model_hash=session.backbone_hash,
        data=features.astype(little).tobytes(),
        cls=cls.astype(little).tobytes(),
        policy=str(session.policy),
        frames_seen=frames,
    )


def _topics(run: RecordedRun) -> dict[str, str]:
    topics = run.header.get("topics")
    if not isinstance(topics, dict) or "model" not in run.header:
        raise InputError(f"{run.path} is no run log of a perception node")
    return topics


def _streams(run: RecordedRun, changes: Mapping[str, Any]) -> dict[str, CameraStream]:
    """As the node's configure makes them; one engine for all."""
    p = dict(run.header["parameters"]) | dict(changes)
    model = load_model(p["weights"])
    streams: dict[str, CameraStream] = {}
    for name in run.header["topics"]:
        session = StreamSession(
            model,
            engine=p["engine"],
            policy=p["policy"],
            image_size=p["image_size"] or None,
            enlarge=p.get("enlarge", True),  # logs of older versions do not say so
            time_base=p["time_base"],
            nominal_rate=p["nominal_rate"],
            dtype=p["dtype"],
            device=p["device"],
        )
        if session.model_hash != run.header["model"] and "weights" not in changes:
            raise CheckpointError(
                f"{p['weights']} is model {session.model_hash}; the run was made with {run.header['model']}: give its "
                "weights, or others with --weights"
            )
        width, height = p["expected_image_size"]
        session.allocate(height, width)
        gate = StreamGate(p["time_base"], p["max_gap"])
        streams[name] = CameraStream(name, session, gate)
    return streams
