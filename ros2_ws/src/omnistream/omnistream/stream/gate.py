# SPDX-License-Identifier: Apache-2.0
"""The gate at a stream's door: step, drop or reset, decided from stamps and sizes alone, the same in CLI and node."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError
from omnistream.stream.rectify import Lens

TimeBase = Literal["index", "stamps"]


class ResetReason(StrEnum):
    """Why a stream forgot everything. The node reports the last one."""

    NONE = "none"
    REQUESTED = "requested"
    STAMP_BACK = "stamp_back"
    GAP = "gap"
    SIZE_CHANGED = "size_changed"
    CALIBRATION_CHANGED = "calibration_changed"
    FRAME_ID_CHANGED = "frame_id_changed"
    STREAM_FULL = "stream_full"
    MODEL_LOADED = "model_loaded"
    WINDOW_CHANGED = "window_changed"
    CLOCK_JUMP = "clock_jump"


class DropReason(StrEnum):
    """Why there are no results of a frame. Each is counted; the state is kept."""

    ENCODING = "encoding"
    """Unknown or unsupported pixel encoding."""
    MALFORMED = "malformed"
    """Truncated, empty or otherwise inconsistent image."""
    NOT_FINITE = "not_finite"
    """NaN or infinity in a floating-point image."""
    EQUAL_STAMP = "equal_stamp"
    SUPERSEDED = "superseded"
    """A newer frame arrived before this one could be stepped."""
    RATE_LIMIT = "rate_limit"
    STEP_FAILED = "step_failed"
    """An exception in the step; the frame is lost, the state is as before."""
    PUBLISH_FAILED = "publish_failed"
    """An exception after the step: the results are lost, the frame stays in the state."""
    INACTIVE = "inactive"
    """The frame waited, or came, while the node stopped."""


@dataclass(frozen=True)
class Verdict:
    """What to do with a frame: `step`; `reset`, then step; or `drop`."""

    action: Literal["step", "reset", "drop"]
    reason: ResetReason | DropReason = ResetReason.NONE
    detail: str = ""


STEP = Verdict("step")


class StreamGate:
    """Remembers the last accepted frame and judges the next.

    | event | verdict |
    |---|---|
    | same stamp again | drop |
    | stamp earlier than the last | reset |
    | no image for longer than max_gap | step under `stamps` (time advances by the gap), reset under `index` |
    | image size, calibration or frame_id changed | reset |
    | undistortion began, ended or changed | reset: what is remembered looked otherwise |

    A frame that is dropped leaves the gate unchanged. One that was not used though it came (`heard`) is no gap.
    """

    def __init__(self, time_base: TimeBase = "index", max_gap: float = 1.0) -> None:
        """max_gap: seconds; `inf` never counts as a gap."""
        if time_base not in ("index", "stamps"):
            raise ConfigError(f"time_base is {time_base!r}; expected 'index' or 'stamps'")
        if not max_gap > 0:
            raise ConfigError(f"max_gap is {max_gap}; expected seconds > 0 (inf: never)")
        self._time_base = time_base
        self._max_gap = max_gap
        self.reset()

    def reset(self) -> None:
        """Forget the last frame: the next one is accepted whatever it is."""
        self._stamp: float | None = None
        self._size: tuple[int, int] | None = None
        self._frame_id: str | None = None
        self._K: NDArray[np.float64] | None = None
        self._lens: Lens | None = None
        self._heard: float | None = None  # the newest stamp of all that came
        self._paused = False  # whether there was a gap since the last accepted frame

    def heard(self, stamp: float) -> None:
        """A frame came that is not used: there was a newer one, or the rate is limited."""
        if self._heard is not None and stamp > self._heard:
            self._paused |= stamp - self._heard > self._max_gap
            self._heard = stamp

    def paused(self, stamp: float | None) -> bool:
        """Whether no frame came for longer than max_gap at some time between the last accepted one and `stamp`."""
        if stamp is None or self._heard is None:
            return False
        return self._paused or stamp - self._heard > self._max_gap

    def check(
        self,
        stamp: float | None,
        size: tuple[int, int],
        frame_id: str | None = None,
        K: NDArray[np.float64] | None = None,
        lens: Lens | None = None,
        paused: bool | None = None,
    ) -> Verdict:
        """Judge a frame: stamp in seconds (None: no stamps), size (height, width), frame_id and K where known.

        A K that is missing now or was missing before is no change: it corrects results, not what is remembered.
        lens: that the frame will be undistorted by, None where it is used as it is; one is another than none.
        paused: what `paused` said, for a replay, which does not know of frames that were not used.
        """
        verdict = self._judge(stamp, size, frame_id, K, lens, self.paused(stamp) if paused is None else paused)
        if verdict.action != "drop":
            self._stamp, self._size = stamp, size
            self._frame_id = self._frame_id if frame_id is None else frame_id
            self._K = self._K if K is None else np.array(K, np.float64)
            self._lens = lens
            self._heard, self._paused = stamp, False
        return verdict

    def _judge(
        self,
        stamp: float | None,
        size: tuple[int, int],
        frame_id: str | None,
        K: NDArray[np.float64] | None,
        lens: Lens | None,
        paused: bool,
    ) -> Verdict:
        if self._size is None:
            return STEP
        gap = None if stamp is None or self._stamp is None else stamp - self._stamp
        if gap == 0:
            return Verdict("drop", DropReason.EQUAL_STAMP, f"stamp {stamp:.9f} s was already seen")
        if gap is not None and gap < 0:
            return Verdict("reset", ResetReason.STAMP_BACK, f"stamp went back by {-gap:.3f} s")
        if size != self._size:
            return Verdict("reset", ResetReason.SIZE_CHANGED, f"image size {self._size} became {size} (height, width)")
        if frame_id is not None and self._frame_id is not None and frame_id != self._frame_id:
            return Verdict("reset", ResetReason.FRAME_ID_CHANGED, f"frame_id {self._frame_id!r} became {frame_id!r}")
        if K is not None and self._K is not None and not np.allclose(K, self._K, rtol=1e-6, atol=1e-6):
            return Verdict("reset", ResetReason.CALIBRATION_CHANGED, "the camera's K changed")
        if not _same_lens(lens, self._lens):
            how = "ended" if lens is None else "began" if self._lens is None else "changed"
            return Verdict("reset", ResetReason.CALIBRATION_CHANGED, f"undistortion {how}")
        if gap is not None and paused and self._time_base == "index":
            detail = f"no image for more than max_gap {self._max_gap:g} s, in the {gap:.3f} s since the last one used"
            return Verdict("reset", ResetReason.GAP, detail)
        return STEP


def _same_lens(a: Lens | None, b: Lens | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.model != b.model or len(a.D) != len(b.D):
        return False
    return np.allclose((*a.K, *a.D), (*b.K, *b.D), rtol=1e-6, atol=1e-6)
