# SPDX-License-Identifier: Apache-2.0
"""One camera's images, one after the other, through the gate and the stream: what a perception node does with a picture
once it has decoded it, free of ROS. `omnistream-replay` calls the same with what a run log says.

    gate (step, drop or reset) -> undistort -> step; a full stream is reset and stepped again
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import StreamFull
from omnistream.io.run_log import RunLog
from omnistream.stream.gate import DropReason, ResetReason, StreamGate
from omnistream.stream.rectify import Lens, Undistortion
from omnistream.stream.result import StepResult
from omnistream.stream.session import StreamSession

Reset = Callable[[ResetReason, str], object]
"""Called with the reason and a sentence after the stream was reset, before the image is stepped."""


@dataclass(frozen=True, eq=False)
class Taken:
    """What became of an image."""

    image: NDArray[np.uint8]
    """u8 [H, W, 3] as it was stepped, undistorted where that was asked; as given where it was dropped."""
    result: StepResult | None = None
    dropped: DropReason | None = None
    detail: str = ""
    prepare_ms: float = 0.0
    """For gate and undistortion."""


class CameraStream:
    """See the module. One thread at a time.

    Args:
        name: of the camera, for the log; "" where there is one.
        session: its stream.
        gate: its gate.
        log: where every call is written down.
    """

    def __init__(self, name: str, session: StreamSession, gate: StreamGate, log: RunLog | None = None) -> None:
        self.name, self.session = name, session
        self._gate, self._log = gate, log
        self.hash = hashlib.sha256()
        """Over all results, while there is a log."""
        self._reset_by = ""

    def reset(self) -> None:
        """Forgets all frames; the next image is frame 0."""
        self.session.reset()
        self._gate.reset()
        self._write("forget_frames")

    def replace(self, session: StreamSession) -> None:
        """Goes on with another stream. A replay ends there: the log tells, it does not know the other's weights."""
        self.session = session
        self._gate.reset()
        self._write("replaced", policy=str(session.policy), model=session.model_hash)

    def heard(self, stamp: int) -> None:
        """An image with this stamp (ns) came and is not taken: there was a newer one, or the rate is limited."""
        self._gate.heard(stamp * 1e-9)

    def take(
        self,
        image: NDArray[np.uint8],
        *,
        stamp: int,
        crc: Callable[[], int] = lambda: 0,
        frame_id: str | None = None,
        K: NDArray[np.float64] | None = None,
        undistort: Undistortion | None = None,
        want: Iterable[str] = (),
        on_reset: Reset = lambda *_: None,
        paused: bool | None = None,
    ) -> Taken:
        """Step an image, unless the gate drops it.

        Args:
            image: u8 [H, W, 3] RGB.
            stamp: ns.
            crc: of the message's bytes, for the log; asked for only where there is one.
            K: [3, 3] of its pixels, where known: another one resets, and it corrects depth (`StreamSession.step`).
            undistort: what is done to it first; another lens, the first one too, resets.
            want: heads to run.
            paused: whether images had paused, for a replay; None: as the gate heard.

        Raises what a step raises; the stream is as before then.
        """
        begin = time.perf_counter()
        seconds = stamp * 1e-9
        lens = None if undistort is None else undistort.lens
        paused = self._gate.paused(seconds) if paused is None else paused
        verdict = self._gate.check(seconds, (image.shape[0], image.shape[1]), frame_id, K, lens, paused)
        if verdict.action == "drop":
            return Taken(image, None, DropReason(verdict.reason), verdict.detail)
        self._reset_by = ""
        if verdict.action == "reset":
            self._begin(ResetReason(verdict.reason), verdict.detail, on_reset)
        try:
            shown = image if undistort is None else undistort(image)
            prepared = (time.perf_counter() - begin) * 1e3
            try:
                result = self.session.step(shown, seconds, want, K)
            except StreamFull as error:
                self._begin(ResetReason.STREAM_FULL, str(error), on_reset)
                result = self.session.step(shown, seconds, want, K)
        except Exception as error:  # gate and resets remember the image all the same
            seen: dict[str, Any] = {"size": list(image.shape[:2]), "frame_id": frame_id, "K": K, "lens": _plain(lens)}
            seen |= {"paused": paused, "reset": self._reset_by}
            self._write("failed", stamp=stamp, **seen, detail=f"{type(error).__name__}: {error}")
            raise
        if self._log is not None:
            given: dict[str, Any] = {"stamp": stamp, "crc": crc(), "frame_id": frame_id, "K": K}
            given |= {"lens": _plain(lens), "want": sorted(want), "paused": paused}
            self.add_to_hash(result)
            self._write("image", **given, reset=self._reset_by, result=result_digest(result))
        return Taken(shown, result, prepare_ms=prepared)

    def skip(
        self,
        size: tuple[int, int],
        *,
        stamp: int,
        frame_id: str | None,
        K: NDArray[np.float64] | None,
        lens: Lens | None,
        paused: bool | None,
        reset: bool,
    ) -> None:
        """An image of `size` (height, width) that failed live: what it did to gate and stream. See `take`."""
        self._gate.check(stamp * 1e-9, size, frame_id, K, lens, paused)
        if reset:
            self.session.reset()

    def add_to_hash(self, result: StepResult) -> None:
        """A result more."""
        self.hash.update(result_digest(result).encode())

    def _begin(self, reason: ResetReason, detail: str, on_reset: Reset) -> None:
        self.session.reset()
        self._reset_by = str(reason)
        on_reset(reason, detail)

    def _write(self, event: str, **fields: Any) -> None:
        if self._log is not None:
            self._log.write(event, camera=self.name, **fields)


def _plain(lens: Lens | None) -> list[Any] | None:
    """For the log."""
    return None if lens is None else [list(lens.K), list(lens.D), lens.model]


def result_digest(result: StepResult) -> str:
    """SHA-256 over the numbers of a result, bit by bit: features, CLS, and what the heads said."""
    digest = hashlib.sha256()
    names = ("features", "cls", "depth", "depth_confidence", "rays", "ray_confidence", "T_world_camera", "K")
    for name in names:
        values = getattr(result, name)
        if values is not None:
            digest.update(f"{name}{list(values.shape)}{values.dtype.str}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
