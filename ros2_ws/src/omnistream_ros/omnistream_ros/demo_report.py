# SPDX-License-Identifier: Apache-2.0
"""The demo's numbers: as a dictionary for report.json, and as a short table for the terminal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from omnistream.cli.report import environment
from omnistream_msgs.msg import StreamStatus
from omnistream_ros.demo_scores import scores
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
        "scores": scores(recorder, metric),
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


def _score_lines(scores: dict[str, dict[str, float]], scale: str) -> list[str]:
    lines = []
    if "depth" in scores:
        depth = scores["depth"]
        note = f"{depth['images']} images, " + (
            "metres as they come" if scale == "metric" else f"scaled by {depth['scale']:.3g} to fit"
        )
        lines += [
            f"{'depth error':<22}{'model':>8}{'best constant':>16}",
            f"  {'AbsRel':<20}{depth['abs_rel']:>8.3f}{depth['constant_abs_rel']:>16.3f}   {note}",
            f"  {'delta < 1.25':<20}{depth['delta1']:>8.1%}{depth['constant_delta1']:>16.1%}",
        ]
    if "path" in scores:
        path = scores["path"]
        own = f", the model's {path['length']:.3g} m" if scale == "metric" else ""
        note = f"of {path['reference_length']:.3g} m{own}"
        lines += [
            f"{'pose error':<22}{'model':>8}{'straight line':>16}{'standing still':>16}",
            f"  {'ATE, Sim(3), %':<20}{path['ate_percent']:>8.2f}{path['line_ate_percent']:>16.2f}"
            f"{path['still_ate_percent']:>16.2f}   {note}",
            f"  {'rotation, degrees':<20}{path['rotation_deg']:>8.2f}{'-':>16}{path['still_rotation_deg']:>16.2f}",
        ]
    return lines
