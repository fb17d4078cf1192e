# SPDX-License-Identifier: Apache-2.0
"""The demo's numbers: as a dictionary for report.json, and as a short table for the terminal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.cli.report import environment
from omnistream.io.depth_error import compare_depth, stream_scale
from omnistream_msgs.msg import StreamStatus
from omnistream_ros.even_sample import EvenSample
from omnistream_ros.recorder import Recorder

MIN_RESULTS = 5
"""Fewer results make no rate."""
STAGES = ("transport", "preprocess", "backbone", "heads", "publish", "total", "end to end")
"""In the order of the data; `total` is the node's own: waiting, preprocess, backbone, heads, publish."""
MEANING = {
    "transport": "camera's stamp to a subscriber (the recorder)",
    "preprocess": "in the node: decode, resize, normalise",
    "backbone": "in the node",
    "heads": "in the node: depth, pose",
    "publish": "in the node: messages out",
    "total": "in the node: image's arrival to last publish, waiting included",
    "end to end": "camera's stamp to a subscriber of the depth",
}


def report(recorder: Recorder, source: str, elapsed_s: float) -> dict[str, Any]:
    """Everything that was measured, ready for JSON.

    Args:
        recorder: after `finish`.
        source: what was streamed, for people.
        elapsed_s: of the whole demo.
    """
    status = recorder.status or StreamStatus()
    counters = {key: int(value) for key, value in recorder.camera_counters.items() if value.isdecimal()}
    published = counters.get("published", 0)
    span = recorder.last_result - recorder.first_result if recorder.first_result else 0.0
    results = max(recorder.counts[name] for name in ("depth", "features"))
    metric = status.scale == "metric"
    return {
        "source": source,
        "elapsed_s": round(elapsed_s, 2),
        "camera": {"published": published, **{name: counters.get(name, 0) for name in ("late", "skipped")}},
        "perception": {
            "received": status.frames_received,
            "lost": published - status.frames_received,
            "processed": status.frames_processed,
            "drops": {drop.reason: drop.count for drop in status.drops},
            "segments": status.segment + 1,
            "rate_hz": round((results - 1) / span, 2) if span > 0 and results >= MIN_RESULTS else None,
            "results": dict(recorder.counts),
            "description": recorder.description,
        },
        "latency_ms": _latencies(recorder, status),
        "cache": {
            "policy": status.policy,
            "slots": status.cache_slots,
            "filled": status.cache_filled,
            "bytes": status.cache_bytes,
        },
        "model": {
            "engine": status.engine,
            "scale": status.scale,
            "outputs": list(status.outputs),
            "hash": status.model_hash,
        },
        "scores": _scores(recorder, metric),
        "environment": environment(),
    }


def table(numbers: dict[str, Any]) -> str:
    """The report in a screenful."""
    camera, node, cache, model = (numbers[name] for name in ("camera", "perception", "cache", "model"))
    drops = ", ".join(f"{count} {reason}" for reason, count in node["drops"].items()) or "none"
    rate = "-" if node["rate_hz"] is None else f"{node['rate_hz']:.1f} Hz"
    lost = f", {node['lost']} lost on the way" if node["lost"] else ""
    late = f", {camera['late']} late" if camera["late"] else ""
    skipped = f", {camera['skipped']} unreadable" if camera["skipped"] else ""
    lines = [
        f"source        {numbers['source']}",
        f"frames        {camera['published']} sent{late}{skipped}; {node['received']} received{lost}; "
        f"{node['processed']} processed at {rate}; {node['results']['depth']} depth images back",
        f"drops         {drops}",
        f"model         {model['engine']}, outputs {' '.join(sorted(model['outputs'])) or '-'}, scale {model['scale']}",
        f"cache         {cache['policy']}: {cache['filled']} of {cache['slots']} frames, "
        f"{cache['bytes'] / 2**20:.1f} MiB ({cache['bytes']} bytes), fixed",
        "",
        f"{'latency, ms':<14}{'p50':>8}{'p99':>8}",
    ]
    for stage in STAGES:
        if stage in numbers["latency_ms"]:
            values = numbers["latency_ms"][stage]
            lines.append(f"  {stage:<12}{values['p50']:>8.1f}{values['p99']:>8.1f}   {MEANING[stage]}")
    if (busy := node["drops"].get("superseded", 0)) and node["rate_hz"]:
        rate = f"{0.9 * node['rate_hz']:.2g}"
        lines += ["", f"{busy} images came while the model was busy. It would keep up here with --rate {rate}"]
    if numbers["scores"]:
        lines += ["", *_score_lines(numbers["scores"], model["scale"])]
    return "\n".join(lines)


def untrained(scale: str) -> str:
    """A sentence that must stand beside any number or picture of such a model; '' for a trained one."""
    if scale != "none":
        return ""
    return "The weights are random: depth, pose and the scores of both mean nothing. Features and timings are real."


def _latencies(recorder: Recorder, status: StreamStatus) -> dict[str, dict[str, float]]:
    latencies = {
        stage.stage: {"p50": stage.p50_ms, "p99": stage.p99_ms, "max": stage.max_ms}
        for stage in status.latencies
        if math.isfinite(stage.p50_ms)
    }
    for name, sample in (("transport", recorder.transport_ms), ("end to end", recorder.end_to_end_ms)):
        if len(sample):
            latencies[name] = _percentiles(sample)
    return {stage: {key: round(value, 2) for key, value in values.items()} for stage, values in latencies.items()}


def _percentiles(sample: EvenSample[float]) -> dict[str, float]:
    values = np.fromiter(sample, np.float64)
    p50, p99 = np.percentile(values, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "max": float(values.max())}


def _scores(recorder: Recorder, metric: bool) -> dict[str, dict[str, float]]:
    """Against the recording's reference depth and poses, where it has any. Without a metric scale, scaled to fit."""
    scores: dict[str, dict[str, float]] = {}
    pairs = [(f.depth, f.true_depth) for f in recorder.frames if f.depth is not None and f.true_depth is not None]
    factor = 1.0 if metric else stream_scale(pairs)
    errors = [compare_depth(depth * factor, true) for depth, true in pairs]
    if known := [error for error in errors if math.isfinite(error.abs_rel)]:
        scores["depth"] = {
            "abs_rel": float(np.mean([error.abs_rel for error in known])),
            "delta1": float(np.mean([error.delta1 for error in known])),
            "scale": factor,
            "images": len(known),
        }
    path = [(pose[:3, 3], true[:3, 3]) for _, pose, true in recorder.poses if true is not None]
    if len(path) > 1:
        own, reference = (np.array(positions) for positions in zip(*path, strict=True))
        scores["path"] = {"length": _length(own), "reference_length": _length(reference), "poses": len(path)}
    return scores


def _length(positions: NDArray[np.float64]) -> float:
    """Of the way through positions [N, 3]."""
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())


def _score_lines(scores: dict[str, dict[str, float]], scale: str) -> list[str]:
    lines = []
    if "depth" in scores:
        depth = scores["depth"]
        scaled = "" if scale == "metric" else f", scaled by {depth['scale']:.3g} to fit"
        lines.append(f"depth vs reference   AbsRel {depth['abs_rel']:.3f}, delta1 {depth['delta1']:.3f}{scaled}")
    if "path" in scores:
        path = scores["path"]
        unit = " m" if scale == "metric" else ""
        lines.append(
            f"path vs reference    {path['length']:.3g}{unit} long, the reference {path['reference_length']:.3g} m"
        )
    return lines
