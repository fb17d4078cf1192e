# SPDX-License-Identifier: Apache-2.0
"""What users hold: camera images in, depth, pose and features out, with a memory of fixed size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from omnistream.engines.base import TAPS, Engine, StepOutputs
from omnistream.engines.select import Size, depends_on_size, make_engine
from omnistream.errors import ConfigError, InputError
from omnistream.geometry import rigid
from omnistream.geometry.pinhole import fov_from_intrinsics, intrinsics_from_fov, scale_intrinsics
from omnistream.geometry.rotations import matrix_from_quaternion
from omnistream.heads.camera import split_camera
from omnistream.heads.heads import HEADS, confidence
from omnistream.model.omnistream import OmniStream
from omnistream.stream.gate import TimeBase
from omnistream.stream.lens import lens_factor, through_lens
from omnistream.stream.memory import check_fits
from omnistream.stream.policy import CachePolicy, parse_policy
from omnistream.stream.preprocess import check_image, kept_small, network_size, preprocess
from omnistream.stream.result import StepResult
from omnistream.stream.state import StreamState
from omnistream.weights.identity import model_hash

DEFAULT_POLICY = "sink_window:1,15"
"""Frame 0, the origin of the world, stays visible."""

MAX_THREADS = 1024
"""Far more than help; torch crashes the process at some number beyond."""


class StreamSession:
    """One camera's stream through a model.

        session = StreamSession(load_model("weights/"))
        for image in camera:                     # uint8 [H, W, 3], RGB
            result = session.step(image)         # StepResult

    Several sessions can share one engine (pass it as `engine`); steps must not run concurrently then.
    The cache is allocated when the first image tells its size, and never grows. An image of another size is an
    InputError: reset first.
    """

    def __init__(
        self,
        model: OmniStream,
        *,
        engine: str | Engine = "auto",
        policy: str | CachePolicy = DEFAULT_POLICY,
        image_size: int | tuple[int, int] | None = None,
        enlarge: bool = True,
        time_base: TimeBase = "index",
        nominal_rate: float = 30.0,
        dtype: str = "auto",
        device: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        """
        engine: auto, torch, onnxruntime or onnxruntime:DIR (see `omnistream.engines.select`), or an engine to share.
        policy: what stays in memory: full:N, window:W, sink_window:S,W.
        image_size: pixel budget (a side) or an exact (height, width); default: the checkpoint's.
        enlarge: whether images that are smaller than the budget are enlarged to it.
        time_base: `index` counts frames; `stamps` advances time by stamp differences times `nominal_rate` (Hz), so that
        dropped frames are felt.
        num_threads: torch's CPU threads, process-wide; None leaves them.
        """
        if not isinstance(model, OmniStream):
            found = f"{model!r}" if isinstance(model, str) else f"a {type(model).__name__}"
            raise ConfigError(f"model is {found}; expected an OmniStream, as omnistream.load_model(path) returns it")
        if time_base not in ("index", "stamps"):
            raise ConfigError(f"time_base is {time_base!r}; expected 'index' or 'stamps'")
        if not 0 < nominal_rate < float("inf"):
            raise ConfigError(f"nominal_rate is {nominal_rate}; expected Hz > 0")
        if num_threads is not None:
            if not 1 <= num_threads <= MAX_THREADS:
                raise ConfigError(f"num_threads is {num_threads}; expected 1 to {MAX_THREADS}")
            torch.set_num_threads(num_threads)
        self.config = model.config
        self.model_hash = model_hash(model)
        self.backbone_hash = model_hash(model.backbone)  # what features belong to, whatever heads there are
        self.policy = parse_policy(policy)
        self.policy.slots  # noqa: B018  an unbounded policy is refused here, by name
        self._engine_for: Callable[[Size], Engine] | None = None
        if isinstance(engine, str):
            self.engine = make_engine(model, engine, device, dtype)
            if depends_on_size(model, engine, device, dtype):  # settled by `allocate`, before any state is made
                self._engine_for = lambda size: make_engine(model, engine, device, dtype, size)
        else:
            if engine.spec.model != self.config or engine.spec.model_hash != self.model_hash:
                raise ConfigError(
                    f"the engine runs model {engine.spec.model_hash}, the session was given {self.model_hash}; "
                    "expected the same weights"
                )
            self.engine = engine
        self._image_size = self.config.image_size if image_size is None else image_size
        network_size(480, 640, self._image_size, self.config.backbone.patch_size)  # refuses a bad size now
        self._enlarge = enlarge
        self._time_base = time_base
        self._nominal_rate = nominal_rate
        self._source_size: tuple[int, int] | None = None
        self._state: StreamState | None = None
        self._first_stamp: float | None = None
        self._last_stamp: float | None = None
        self._T_first_own: NDArray[np.float64] | None = None  # from the network's frame into frame 0's camera

    @property
    def outputs(self) -> frozenset[str]:
        """What this checkpoint has: any of features, depth, rays, pose."""
        return frozenset(self.config.outputs)

    @property
    def scale(self) -> str:
        """`metric`, `relative`, or `none` (untrained heads, or no heads)."""
        return self.config.scale

    @property
    def frames_seen(self) -> int:
        """Frames since the last reset."""
        return 0 if self._state is None else self._state.frames_seen

    @property
    def slots(self) -> int:
        """Frames that the cache can hold."""
        return self.policy.slots

    @property
    def filled(self) -> int:
        """Frames in the cache now."""
        return self.policy.filled(self.frames_seen)

    @property
    def nbytes(self) -> int:
        """Bytes of the cache; 0 until the first image (or `allocate`)."""
        return 0 if self._state is None else self._state.nbytes

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) at which an image of that size is processed, and at which depth comes out."""
        size = self._image_size
        if isinstance(size, int) and not self._enlarge:
            size = kept_small(size, height, width)
        return network_size(height, width, size, self.config.backbone.patch_size)

    def cache_nbytes(self, height: int, width: int) -> int:
        """Bytes that the cache of a `height` x `width` camera takes, from its first frame on and for ever."""
        return self.engine.cache_nbytes(self.policy, 1, *self.network_size(height, width))

    def memory_report(self, height: int, width: int) -> str:
        """One line: what a `height` x `width` camera takes."""
        h, w = self.network_size(height, width)
        tokens = self.config.backbone.tokens_per_frame(h, w, self.config.camera_token)
        return (
            f"{height}x{width} -> {h}x{w} pixels (height x width), {tokens} tokens; "
            f"cache {self.policy}: {self.slots} frames, {self.cache_nbytes(height, width) / 2**20:.1f} MiB, fixed; "
            f"engine {self.engine.spec}"
        )

    def allocate(self, height: int, width: int) -> None:
        """Allocate the cache for a camera of that size now, instead of at its first image, which may have another.

        EngineError, with the numbers, where there is not enough memory.
        """
        size = self.network_size(height, width)
        if self._state is None or (self._state.spec.height, self._state.spec.width) != size:
            if self._engine_for is not None:
                self.engine = self._engine_for((1, *size))
            if not self.frames_seen:  # nothing is lost, and both caches at once might not fit where each does
                self._state = None
            check_fits(self.cache_nbytes(height, width), f"the cache ({self.policy})", self.engine.spec.device)
            self._state = self.engine.new_state(self.policy, 1, *size)
        self._source_size = (height, width)

    def reset(self) -> None:
        """Forget all frames: the next image is frame 0, the origin of a new world. It may have another size."""
        self._first_stamp = self._last_stamp = None
        self._T_first_own = None
        self._source_size = None
        if self._state is not None:
            self._state.reset()

    def step(
        self,
        image: NDArray[np.uint8],
        stamp: float | None = None,
        want: Iterable[str] | None = None,
        K: ArrayLike | None = None,
    ) -> StepResult:
        """Feed one image, uint8 [H, W, 3] RGB; stamp in seconds (needed under `time_base="stamps"`).

        want: which of `outputs` to compute (None: all). Features come for free; the other heads run only if wanted.
        Beyond `outputs`, `taps` gives the blocks that the heads look at, where there are heads.
        K: [3, 3] intrinsics in pixels of `image`, where known. Checkpoints whose `lens` is `known` need them for depth
        and rays to be right (the camera head is then run too); others take no notice.
        Raises InputError for an unusable image or stamp and StreamFull at the end of a `full:N` stream. If it raises,
        the stream is as before.
        """
        begin = time.perf_counter()
        check_image(image)
        if isinstance(want, str):
            raise ConfigError(f"want is {want!r}; expected a list of names, such as [{want!r}]")
        wanted = self.outputs if want is None else frozenset(want)
        available = self.outputs if self.config.heads is None else self.outputs | {TAPS}
        if not wanted <= available:
            raise ConfigError(f"wanted {sorted(wanted - available)}; this checkpoint has {sorted(available)}")
        size = (image.shape[0], image.shape[1])
        if self.frames_seen and self._source_size != size:
            raise InputError(f"image is {size} (height, width), the stream runs at {self._source_size}; reset it first")
        lens = None if K is None or self.config.lens != "known" else self._lens(K, size)
        at = self._time(stamp)
        self.allocate(*size)
        assert self._state is not None
        frames = preprocess(image, self.network_size(*size), self.config)
        prepared = time.perf_counter()
        index = self._state.frames_seen
        run = wanted & {*HEADS, TAPS}
        if lens is not None and run & {"depth", "rays"}:
            run |= {"pose"}
        if index == 0:  # poses of later frames are told relative to this one
            run |= self.outputs & {"pose"}
        out = self.engine.step(self._state, frames, torch.tensor([at], dtype=torch.float64), run)
        timings = {"preprocess": (prepared - begin) * 1e3, "backbone": out.backbone_ms, "heads": out.heads_ms}
        try:
            result = self._result(out, index, stamp, at, (frames.shape[-2], frames.shape[-1]), timings, wanted, lens)
        except Exception:  # a head gave NaN, say: the frame does not count
            self._state.take_back()
            raise
        if index == 0:
            self._first_stamp = stamp
        self._last_stamp = stamp
        return result

    def _time(self, stamp: float | None) -> float:
        """Logical time of the coming frame, in frames."""
        if self._time_base == "index":
            return float(self.frames_seen)
        if stamp is None or not np.isfinite(stamp):
            raise InputError(f"stamp is {stamp}; time_base 'stamps' needs one for every image, in seconds")
        if self.frames_seen == 0 or self._first_stamp is None:
            return 0.0
        if self._last_stamp is not None and stamp <= self._last_stamp:
            raise InputError(f"stamp {stamp:.9f} s is not after the last, {self._last_stamp:.9f} s; reset or drop it")
        return (stamp - self._first_stamp) * self._nominal_rate

    def _result(
        self,
        out: StepOutputs,
        index: int,
        stamp: float | None,
        at: float,
        size: tuple[int, int],
        timings: dict[str, float],
        wanted: frozenset[str],
        lens: NDArray[np.float64] | None,
    ) -> StepResult:
        """lens: [3, 3] known intrinsics at network resolution, to correct by."""
        heads = out.heads
        grid = tuple(side // self.config.backbone.patch_size for side in size)
        pose = K = None
        depth, rays = _numpy(heads.depth), _numpy(heads.rays)
        if heads.camera is not None:
            translation, quaternion, fov = (part[0].double().cpu().numpy() for part in split_camera(heads.camera))
            own = rigid.transform(matrix_from_quaternion(quaternion), translation)
            if index == 0:
                self._T_first_own = rigid.inverse(own)
            assert self._T_first_own is not None
            if "pose" in wanted:
                pose = np.eye(4) if index == 0 else self._T_first_own @ own
                K = intrinsics_from_fov((float(fov[0]), float(fov[1])), size) if lens is None else lens
            if lens is not None:
                known = fov_from_intrinsics(lens, size)
                if depth is not None:
                    depth /= np.float32(lens_factor(fov, known))
                if rays is not None:
                    rays = through_lens(rays, own[:3, :3], fov, known)
        return StepResult(
            index=index,
            stamp=stamp,
            time=at,
            network_size=size,
            depth=depth,
            depth_confidence=None if heads.depth_confidence is None else _numpy(confidence(heads.depth_confidence)),
            rays=self._in_first_camera(rays),
            ray_confidence=None if heads.ray_confidence is None else _numpy(confidence(heads.ray_confidence)),
            T_world_camera=pose,
            K=K,
            features=out.patches[0].cpu().numpy().reshape(*grid, -1),
            cls=out.cls[0].cpu().numpy(),
            taps=tuple(tap[0].cpu().numpy().reshape(*grid, -1) for tap in out.taps),
            scale=self.scale,
            timings=timings,
        )

    def _lens(self, K: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
        """The known intrinsics at network resolution; InputError for what are none."""
        given = np.asarray(K, np.float64)
        if given.shape != (3, 3) or not np.isfinite(given).all() or min(given[0, 0], given[1, 1]) <= 0:
            raise InputError(f"K is {given.tolist()}; expected a finite [3, 3] matrix with positive focal lengths")
        return scale_intrinsics(given, size, self.network_size(*size))

    def _in_first_camera(self, rays: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        """[h, w, 6] rays, from the network's own frame into the camera of frame 0."""
        if rays is None or self._T_first_own is None:
            return rays
        turn, shift = self._T_first_own[:3, :3].astype(np.float32), self._T_first_own[:3, 3].astype(np.float32)
        return np.concatenate([rays[..., :3] @ turn.T + shift, rays[..., 3:] @ turn.T], -1)


def _numpy(value: torch.Tensor | None) -> NDArray[np.float32] | None:
    return None if value is None else value[0].float().contiguous().cpu().numpy()
