# SPDX-License-Identifier: Apache-2.0
"""One run of `omnistream-stream`: source, gate, session and writers joined, timed and reported."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnistream.cli.interrupt import Interrupt
from omnistream.cli.progress import Progress
from omnistream.cli.report import Latencies, environment, one_sentence, write_report
from omnistream.errors import InputError, StreamFull
from omnistream.io.frames import DEFAULT_RATE, Frame, FrameSource
from omnistream.io.results_folder import REPORT, existing_results
from omnistream.io.writers import ResultWriter
from omnistream.stream.gate import ResetReason, StreamGate
from omnistream.stream.result import StepResult
from omnistream.stream.session import StreamSession
from omnistream.weights import default_model, load_model


@dataclass
class Summary:
    """What came of a run. Rates are frames per second; latencies are ms by stage, p50, p99, max and mean."""

    state: str = "running"
    """running, done, interrupted or failed."""
    error: str | None = None
    read: int = 0
    stepped: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    resets: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    rate: float = 0.0
    model_rate: float = 0.0
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    cache_frames: int = 0
    cache_slots: int = 0
    cache_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


class StreamRun:
    """Loads the model, then `run` streams. The report is in the folder from the start, and never stays "running"."""

    def __init__(
        self,
        source: FrameSource,
        out: Path,
        products: tuple[str, ...],
        settings: dict[str, Any],
        image_size: int | tuple[int, int] | None,
    ) -> None:
        """settings: the options of the command line by name; they go into the report as they are."""
        self._source, self._out, self._products, self._settings = source, out, products, settings
        weights = settings["weights"]
        if weights is None:
            model, self.model_words = default_model()
        else:
            model = load_model(weights)
            self.model_words = f"{weights}, scale {model.config.scale}"
        self._session = StreamSession(
            model,
            engine=settings["engine"],
            device=settings["device"],
            dtype=settings["dtype"],
            policy=settings["policy"],
            image_size=image_size,
            time_base=settings["time_base"],
            nominal_rate=source.rate or DEFAULT_RATE,
            num_threads=settings["threads"],
        )
        self._model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self._gate = StreamGate(settings["time_base"], settings["max_gap"])
        self._latencies = Latencies()
        self._first: Frame | None = None
        self.summary = Summary()

    def run(self) -> Summary:
        """Stream to the end, to --max-frames or to Ctrl-C (after the frame at hand), and finish the files.

        A frame that cannot be read ends it too (`on_error` raise): `error` says so, and what came before is kept.
        Whatever else goes wrong is raised, after the report says what it was.
        """
        summary, limit = self.summary, self._settings["max_frames"]
        total = min((n for n in (self._source.length, limit) if n is not None), default=None)
        writer = self._writer(total)  # what cannot be saved is refused here, before anything is written
        try:
            with writer, Progress(total) as progress, Interrupt() as interrupt:
                self._write_report()
                self._stream(limit, writer, progress, interrupt)
        except BaseException as error:
            summary.state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            summary.error = one_sentence(error)
            raise
        finally:
            self._count_up()
            self._write_report()
        return summary

    def _stream(self, limit: int | None, writer: ResultWriter, progress: Progress, interrupt: Interrupt) -> None:
        """All frames, and the files' ends."""
        summary, begin = self.summary, time.perf_counter()
        try:
            for frame, read_ms in self._frames(limit):
                self._one(frame, read_ms, writer)
                progress.step()
                if interrupt.wanted:
                    break
            state, error = "interrupted" if interrupt.wanted else "done", None
        except InputError as unreadable:
            state, error = "failed", str(unreadable)
        finally:
            summary.seconds = time.perf_counter() - begin
        if not summary.stepped and state == "done":
            state, error = "failed", f"{self._source.description}: no frame could be streamed"
        writer.finish()
        summary.state, summary.error, summary.notes = state, error, list(writer.notes)

    def _writer(self, total: int | None) -> ResultWriter:
        session = self._session
        return ResultWriter(
            self._out,
            self._products,
            outputs=session.outputs,
            scale=session.scale,
            title=self._source.description,
            subtitle=f"{self.model_words}   ·   {session.policy}   ·   {session.engine.spec}",
            expected=total,
            view=self._settings["view"],
        )

    def _frames(self, limit: int | None) -> Iterator[tuple[Frame, float]]:
        """Frames and the ms it took to read each."""
        frames = iter(self._source)
        while limit is None or self.summary.read < limit:
            begin = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            self.summary.read += 1
            if self._first is None:
                self._first = frame
                height, width = frame.image.shape[:2]
                memory = self._session.memory_report(height, width)
                print(f"memory  weights {self._model_bytes / 2**20:.1f} MiB; {memory}", flush=True)
            yield frame, (time.perf_counter() - begin) * 1e3

    def _one(self, frame: Frame, read_ms: float, writer: ResultWriter) -> None:
        """Judge, step and write one frame."""
        begin = time.perf_counter()
        verdict = self._gate.check(frame.stamp, (frame.image.shape[0], frame.image.shape[1]), frame.frame_id, frame.K)
        if verdict.action == "drop":
            self.summary.drops[str(verdict.reason)] += 1
            return
        if verdict.action == "reset":
            self._reset(str(verdict.reason), writer)
        result = self._step(frame, writer)
        stepped = time.perf_counter()
        writer.add(frame, result)
        end = time.perf_counter()
        self.summary.stepped += 1
        write_ms, frame_ms = (end - stepped) * 1e3, (end - begin) * 1e3 + read_ms
        self._latencies.add({"read": read_ms} | result.timings | {"write": write_ms, "frame": frame_ms})

    def _step(self, frame: Frame, writer: ResultWriter) -> StepResult:
        try:
            return self._session.step(frame.image, frame.stamp, want=writer.wanted, K=frame.K)
        except StreamFull:
            self._reset(str(ResetReason.STREAM_FULL), writer)
            return self._session.step(frame.image, frame.stamp, want=writer.wanted, K=frame.K)

    def _reset(self, reason: str, writer: ResultWriter) -> None:
        self._session.reset()
        writer.reset(reason)
        self.summary.resets[reason] += 1

    def _count_up(self) -> None:
        summary, session = self.summary, self._session
        if self._source.skipped:
            summary.drops["unreadable"] = self._source.skipped
            summary.notes += [f"unreadable: {reason}" for reason in self._source.skip_reasons]
        summary.latency_ms = self._latencies.summary()
        summary.rate = summary.stepped / summary.seconds if summary.seconds else 0.0
        stages = summary.latency_ms
        model_ms = sum(stages[name]["mean"] for name in ("preprocess", "backbone", "heads") if name in stages)
        summary.model_rate = 1e3 / model_ms if model_ms else 0.0
        summary.cache_frames, summary.cache_slots, summary.cache_bytes = session.filled, session.slots, session.nbytes
        summary.files = existing_results(self._out)

    def _write_report(self) -> None:
        """Write report.json: result, settings, input, model, machine, versions, commit."""
        source, session, first = self._source, self._session, self._first
        report = {
            "made_by": "omnistream-stream",
            **vars(self.summary),
            "settings": self._settings,
            "input": {
                "description": source.description,
                "rate": source.rate,
                "length": source.length,
                "width": None if first is None else first.image.shape[1],
                "height": None if first is None else first.image.shape[0],
                "K": None if first is None else first.K,
            },
            "model": {
                "description": self.model_words,
                "hash": session.model_hash,
                "scale": session.scale,
                "outputs": sorted(session.outputs),
                "bytes": self._model_bytes,
                "network_size": None if first is None else session.network_size(*first.image.shape[:2]),
            },
            "engine": str(session.engine.spec),
            "environment": environment(),
        }
        write_report(self._out / REPORT, report)
