# SPDX-License-Identifier: Apache-2.0
"""A look at held-out clips while training: a few numbers, each beside what it has to beat.

It steers a run. What is published comes from `omnistream-eval geometry`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from omnistream.geometry import rigid
from omnistream.geometry.paths import path_length
from omnistream.heads.camera import in_first_camera
from omnistream.heads.heads import HeadOutputs
from omnistream.model.omnistream import OmniStream
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.feed import Feed
from omnistream_training.data.source import ClipRequest
from omnistream_training.evaluation.baselines import DepthHistogram, DepthMap, straight_line_ate
from omnistream_training.evaluation.depth_metrics import DepthSums, depth_metrics
from omnistream_training.evaluation.trajectory_metrics import rotation_angle, score_or_worst
from omnistream_training.losses.geometry import through_known_lens
from omnistream_training.losses.targets import MIN_DEPTH, make_targets, relative_poses

STRIDE = 4
"""Frames at the nominal rate between frames of a held-out clip: 16 of them span two seconds."""
CLIPS_AT_ONCE = 4
MAP_CLIPS = 128
"""Training clips behind the mean depth map."""
MIN_PATH = 0.05
"""m: shorter paths say nothing about a trajectory."""


class Validation:
    """Held-out clips of one source and their baselines, computed once."""

    def __init__(self, feed: Feed, source: int, clips: int, frames: int) -> None:
        self.description = feed.sources[source].description
        self._feed, self._source, self._clips, self._frames = feed, source, clips, frames
        self._map: np.ndarray | None = None

    @torch.no_grad()
    def run(self, model: OmniStream) -> dict[str, Any]:
        """Metrics of `model` (in eval mode, on the feed's device), float32.

        abs_rel, delta1: in the checkpoint's unit, which for `scale: relative` is another in every clip; so are those
        of the constant and of the map. *_m: metres of the scene. *_scaled: after one scale per clip (ratio of medians).
        alone_*: the same weights on every frame by itself. flat_*_scaled: one depth everywhere, its scale per clip.
        constant_abs_rel: best constant for all these clips.
        map_abs_rel: mean depth map of training clips. ate_percent beside line_percent: of the path, after Sim(3).
        """
        start = time.perf_counter()
        rows: list[dict[str, float]] = []
        histogram, mean_map = DepthHistogram(), self._mean_map()
        everywhere, mapped = DepthSums(), DepthSums()
        for row, predicted, depth, ok in self._each(model):
            if row:
                histogram.add(depth[:, ::4, ::4][ok[:, ::4, ::4]])
                everywhere.add(predicted[ok], depth[ok])
                mapped.add(np.broadcast_to(mean_map, depth.shape)[ok], depth[ok])
                rows.append(row)
        if not rows:
            return {"clips": 0}
        result = {key: _mean([row[key] for row in rows if key in row]) for key in sorted({k for r in rows for k in r})}
        best = histogram.metrics_of_constant(histogram.best_for_abs_rel())
        result["constant_abs_rel"] = best["abs_rel"]
        result["constant_delta1"] = histogram.metrics_of_constant(histogram.best_for_delta1())["delta1"]
        result["map_abs_rel"], result["map_delta1"] = (mapped.metrics()[name] for name in ("abs_rel", "delta1"))
        result = {key: round(value, 4) for key, value in result.items()}
        return result | {"clips": len(rows), "frames": self._frames, "seconds": round(time.perf_counter() - start, 1)}

    @torch.no_grad()
    def clips(self, model: OmniStream) -> list[dict[str, float]]:
        """The metrics of each held-out clip, the same clips in the same order for every model; empty without depth."""
        return [row for row, *_ in self._each(model)]

    def _each(self, model: OmniStream) -> Iterator[tuple[dict[str, float], np.ndarray, np.ndarray, np.ndarray]]:
        """Per clip: metrics, predicted depth [T, H, W], true depth, and where that is known."""
        for first in range(0, self._clips, CLIPS_AT_ONCE):
            numbers = range(first, min(first + CLIPS_AT_ONCE, self._clips))
            batch = self._feed.held_out(self._source, numbers, self._frames, STRIDE)
            metres = self._unit(batch)
            corrected = self._feed.config.loss.lens == "known"
            streamed, camera = _predict(model, batch, self._feed.config.policy, corrected)
            alone = _predict_alone(model, batch, corrected)
            for i in range(len(numbers)):
                depth = batch.depth[i].cpu().numpy()
                ok = np.isfinite(depth) & (depth > MIN_DEPTH) & np.isfinite(metres[i])
                depth = depth / metres[i]
                row: dict[str, float] = {}
                if ok.any():
                    camera[i, :, :3] *= metres[i]
                    row = _depth_row(streamed[i], alone[i], depth, ok) | _pose_row(camera[i], batch, i)
                yield row, streamed[i], depth, ok

    def _unit(self, batch: ClipBatch) -> np.ndarray:
        """[B] metres per unit of the labels, as in training; NaN where a clip does not tell it."""
        if self._feed.config.model.scale == "metric":
            return np.ones(len(batch), np.float32)
        targets = make_targets(batch, "relative")
        known = targets.depth_valid.flatten(1).any(1)
        return torch.where(known, targets.scale, torch.nan).cpu().numpy()

    def _mean_map(self) -> np.ndarray:
        """[H, W] mean depth of training clips in the checkpoint's unit, at the size of the held-out ones."""
        if self._map is None:
            stage = self._feed.config.stages[-1]
            request = ClipRequest(numbers=range(MAP_CLIPS), frames=1, size=stage.size, device=self._feed.device)
            clips = self._feed.sources[self._source].read(request)
            depth = clips.depth[:, 0].cpu().numpy() / self._unit(clips)[:, None, None]
            grid = DepthMap()
            for frame in depth:
                grid.add(frame, np.isfinite(frame))
            rows = np.arange(stage.size[0]) * DepthMap.GRID[0] // stage.size[0]
            columns = np.arange(stage.size[1]) * DepthMap.GRID[1] // stage.size[1]
            self._map = grid.mean()[rows[:, None], columns]
        return self._map


def summary(r: dict[str, Any]) -> str:
    """The numbers of `Validation.run` as a line for people."""
    if not r.get("clips"):
        return "no clip has depth"
    text = (
        f"AbsRel {r['abs_rel']:.3f} (constant {r['constant_abs_rel']:.3f}, map {r['map_abs_rel']:.3f}), one scale "
        f"{r['abs_rel_scaled']:.3f} (alone {r['alone_abs_rel_scaled']:.3f}, flat {r['flat_abs_rel_scaled']:.3f}), "
        f"delta {r['delta1']:.3f}, one scale {r['delta1_scaled']:.3f}"
    )
    if "ate_percent" in r:
        text += f"; ATE {r['ate_percent']:.1f} % (straight line {r['line_percent']:.1f} %)"
    return text


def _predict(model: OmniStream, batch: ClipBatch, policy: str, corrected: bool) -> tuple[np.ndarray, np.ndarray]:
    """Depth [B, T, H, W], corrected by the known lens if asked for, and cameras [B, T, 9] in the first one."""
    images = batch.network_input(model.config)
    _, heads = model(images, policy=policy, times=batch.times, want=("depth", "pose"))
    if corrected:
        heads = through_known_lens(heads, make_targets(batch))
    assert heads.depth is not None and heads.camera is not None
    return heads.depth.cpu().numpy(), torch.cat(in_first_camera(heads.camera), -1).double().cpu().numpy()


def _predict_alone(model: OmniStream, batch: ClipBatch, corrected: bool) -> np.ndarray:
    frames = batch.network_input(model.config).flatten(0, 1)[:, None]
    _, heads = model(frames, want=("depth", "pose") if corrected else ("depth",))
    parts = {name: value.unflatten(0, batch.depth.shape[:2]).squeeze(2) for name, value in _there(heads)}
    heads = HeadOutputs(**parts)
    if corrected:
        heads = through_known_lens(heads, make_targets(batch))
    assert heads.depth is not None
    return heads.depth.cpu().numpy()


def _there(heads: HeadOutputs) -> Iterator[tuple[str, torch.Tensor]]:
    """What was wanted, by name."""
    values = ((field.name, getattr(heads, field.name)) for field in dataclasses.fields(heads))
    yield from ((name, value) for name, value in values if value is not None)


def _depth_row(streamed: np.ndarray, alone: np.ndarray, depth: np.ndarray, ok: np.ndarray) -> dict[str, float]:
    row: dict[str, float] = {}
    flat = np.ones_like(depth)
    for prefix, predicted in (("", streamed), ("alone_", alone), ("flat_", flat)):
        p, g = predicted[ok], depth[ok]
        scale = np.median(g) / np.median(p)
        for suffix, factor in (("", 1.0), ("_scaled", scale)):
            metrics = depth_metrics(p * factor, g)
            row |= {f"{prefix}{name}{suffix}": metrics[name] for name in ("abs_rel", "delta1")}
    late = len(depth) - len(depth) // 4
    row["late_abs_rel"] = depth_metrics(streamed[late:][ok[late:]], depth[late:][ok[late:]])["abs_rel"]
    return row


def _pose_row(camera: np.ndarray, batch: ClipBatch, clip: int) -> dict[str, float]:
    """camera [T, 9]: translation, unit quaternion, fov."""
    row: dict[str, float] = {}
    K = batch.K[clip].double().cpu().numpy()
    if np.isfinite(K).all():
        height, width = batch.images.shape[-2:]
        fov = 2 * np.arctan(np.array([height / K[1, 1], width / K[0, 0]]) / 2)
        row["fov_deg"] = float(np.degrees(np.abs(camera[:, 7:] - fov).mean()))
    relative, known = relative_poses(batch.T_world_camera[clip : clip + 1])
    reference = relative[0].double().cpu().numpy()
    if not bool(known.all()) or len(reference) < 3 or path_length(reference) < MIN_PATH:
        return row
    estimate = rigid.from_translation_quaternion(camera[:, :7])
    row["ate_percent"] = score_or_worst(estimate, reference).ate_percent
    row["line_percent"] = 100 * straight_line_ate(reference) / path_length(reference)
    turned = np.swapaxes(reference[:, :3, :3], -1, -2) @ estimate[:, :3, :3]
    row["rotation_deg"] = float(np.degrees(rotation_angle(turned)).mean())
    row["still_rotation_deg"] = float(np.degrees(rotation_angle(reference[:, :3, :3])).mean())
    row["translation_m"] = float(np.linalg.norm(estimate[:, :3, 3] - reference[:, :3, 3], axis=1).mean())
    row["still_translation_m"] = float(np.linalg.norm(reference[:, :3, 3], axis=1).mean())
    return row


def _mean(values: list[float]) -> float:
    return float(np.nanmean(values)) if values else float("nan")
