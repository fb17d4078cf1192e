# SPDX-License-Identifier: Apache-2.0
"""Measures what one more frame costs, at several lengths of the cache: engines, and baselines in the same run.

All variants take turns, so that a busy machine is busy for all of them. On the CPU the process's own CPU time counts,
of all its threads: what other processes do is not in it. On a GPU, the time between two events of its stream.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnistream.cli.bench_baselines import Concatenation, Recompute
from omnistream.engines.base import Engine
from omnistream.model.config import BackboneConfig
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import CachePolicy, parse_policy

CONCATENATION, RECOMPUTE = "concatenation", "recompute"
WARM_UP = 2
GEMM_SIDE = 2048


@dataclass
class Cost:
    """One variant at one length of the cache. Times in ms per frame of one camera."""

    variant: str
    dtype: str
    cached: int
    """Earlier frames in the cache; the new frame attends to these and itself."""
    median: float
    least: float
    repeats: int
    gflop: float
    """Of the algorithm: linear layers and attention."""
    cache_bytes: int
    error: float | None
    """Relative L2 of the patches against the concatenation, on the same keys; None where there is no such thing."""
    gpu_bytes: int | None = None
    """Of a GPU's memory, what a step takes at its peak beyond weights and caches; None on a CPU."""

    @property
    def gflop_per_s(self) -> float:
        """At the median."""
        return self.gflop / self.median * 1e3


@dataclass(frozen=True)
class Variant:
    """Something that can be timed."""

    name: str
    dtype: str
    step: Callable[[], Tensor]
    gflop: float
    cache_bytes: int
    repeats: int


class StreamBench:
    """Engines and baselines on one model and size."""

    def __init__(
        self,
        model: OmniStream,
        engines: list[Engine],
        size: tuple[int, int],
        repeats: int,
        recompute_up_to: int,
        batch: int = 1,
    ) -> None:
        """size: (height, width). recompute_up_to: cached frames beyond which recomputing is left out as too slow.

        batch: cameras in one step.
        """
        self._config = model.config
        self._engines = engines
        self._size = size
        self._batch = batch
        self._repeats = repeats
        self._recompute_up_to = recompute_up_to
        self._device = torch.device(engines[0].spec.device)
        # The reference is in float32 on the CPU, as public code runs there, and in the engine's dtype on a GPU.
        self._dtype = torch.float32 if self._device.type == "cpu" else engines[0].spec.dtype
        self._backbone = model.backbone.to(self._device, self._dtype)
        self._frame = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))

    def run(self, cached: int) -> list[Cost]:
        """All variants with `cached` earlier frames."""
        variants = self._variants(cached)
        outputs, memory = {}, {}
        for variant in variants:  # the first step of each starts from the same keys
            outputs[variant.name] = variant.step().float().cpu()
            for _ in range(WARM_UP - 1):
                variant.step()
            memory[variant.name] = self._memory(variant.step)
        times: dict[str, list[float]] = {variant.name: [] for variant in variants}
        for repeat in range(self._repeats):
            for variant in variants:
                if repeat < variant.repeats:
                    times[variant.name].append(self._time(variant.step))
        reference = outputs[CONCATENATION]
        return [
            Cost(
                variant=variant.name,
                dtype=variant.dtype,
                cached=cached,
                median=statistics.median(times[variant.name]) / self._batch,
                least=min(times[variant.name]) / self._batch,
                repeats=len(times[variant.name]),
                gflop=variant.gflop,
                cache_bytes=variant.cache_bytes,
                error=None
                if variant.name == RECOMPUTE
                else float((outputs[variant.name] - reference).norm() / reference.norm()),
                gpu_bytes=memory[variant.name],
            )
            for variant in variants
        ]

    def peak(self) -> dict[str, float]:
        """GFLOP/s of one matrix product of 2048 x 2048 x 2048 by dtype: what this machine reaches here at best."""
        found = {}
        for dtype in sorted({self._dtype, *(engine.spec.dtype for engine in self._engines)}, key=str):
            a, b = torch.randn(2, GEMM_SIDE, GEMM_SIDE, device=self._device).to(dtype)
            products = [lambda a=a, b=b: a @ b]
            if dtype is torch.float32 and self._device.type == "cpu" and torch.backends.mkldnn.is_available():
                # torch multiplies float32 with MKL, which is slow on other makers' processors; oneDNN is not.
                x, w = a.to_mkldnn(), b.to_mkldnn()
                products.append(lambda x=x, w=w: torch._C._nn.mkldnn_linear(x, w, None))
            times = [self._time(product) for product in products for _ in range(8)]
            found[_name(dtype)] = 2 * GEMM_SIDE**3 / min(times) / 1e6
        return found

    def _variants(self, cached: int) -> list[Variant]:
        backbone, camera = self._config.backbone, self._config.camera_token
        snapshot = self._snapshot(cached)
        tokens = backbone.tokens_per_frame(*self._size, camera)
        gflop = step_gflop(backbone, tokens, cached + 1)
        past = snapshot["kv"][..., tokens:, :].to(self._device, self._dtype)
        frame = self._frame.to(self._device, self._dtype)
        plain = Concatenation(self._backbone, camera, past, _time_of_next(cached))
        after = plain.nbytes * (cached + 1) // cached
        name = _name(self._dtype)
        variants = [Variant(CONCATENATION, name, lambda: plain.step(frame), gflop, after, self._repeats)]
        if cached <= self._recompute_up_to:
            again = Recompute(self._backbone, camera, cached + 1)
            total = sum(step_gflop(backbone, tokens, seen) for seen in range(1, cached + 2))
            variants.append(Variant(RECOMPUTE, name, lambda: again.step(frame), total, 0, 3))
        return variants + [self._engine_variant(engine, snapshot, cached, gflop) for engine in self._engines]

    def _engine_variant(self, engine: Engine, snapshot: dict[str, Any], cached: int, gflop: float) -> Variant:
        state = engine.new_state(_policy(cached), self._batch, *self._size)
        state.load_state_dict(snapshot)
        times = _time_of_next(cached)
        name, dtype = str(engine.spec), _name(engine.spec.dtype)
        return Variant(
            name, dtype, lambda: engine.step(state, self._frame, times, ()).patches, gflop, state.nbytes, self._repeats
        )

    def _snapshot(self, cached: int) -> dict[str, Any]:
        """A stream in its steady state: full slots of random keys, of which the next frame overwrites the first."""
        engine = self._engines[0]
        state = engine.new_state(_policy(cached), self._batch, *self._size)
        engine.step(state, self._frame, None, ())
        shape = engine.spec.state_spec(_policy(cached), self._batch, *self._size).shape(self._config.backbone)
        kv = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        return state.state_dict() | {"frames_seen": cached + 1, "kv": kv}

    def _memory(self, call: Callable[[], object]) -> int | None:
        if self._device.type == "cpu":
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated(self._device) - before

    def _time(self, call: Callable[[], object]) -> float:
        """ms."""
        if self._device.type == "cpu":
            begin = time.process_time()
            call()
            return (time.process_time() - begin) * 1e3
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end)


def step_gflop(config: BackboneConfig, tokens: int, frames: int) -> float:
    """GFLOP of one frame of `tokens` tokens that attends to `frames` frames, itself included."""
    mlp = (2 if config.ffn == "mlp" else 3) * config.dim * config.mlp_width
    linear = 2 * tokens * (4 * config.dim**2 + mlp) * config.depth + 2 * tokens * 3 * config.patch_size**2 * config.dim
    attention = 4 * tokens * tokens * frames * config.dim * config.depth
    return (linear + attention) / 1e9


def split(costs: list[Cost], per_frame_gflop: float) -> dict[str, float] | None:
    """A line through a variant's costs: what a frame costs without a past, and each cached frame's share of attention.

    None with fewer than two lengths.
    """
    if len({cost.cached for cost in costs}) < 2:
        return None
    slope, fixed = np.polyfit([cost.cached for cost in costs], [cost.median for cost in costs], 1)
    rest = costs[0].gflop - per_frame_gflop * costs[0].cached
    return {
        "fixed_ms": float(fixed),
        "fixed_gflop_per_s": float(rest / fixed * 1e3),
        "per_cached_frame_ms": float(slope),
        "attention_gflop_per_s": float(per_frame_gflop / slope * 1e3),
    }


def as_dict(cost: Cost, peak: dict[str, float]) -> dict[str, object]:
    """For the report: with the rate, and its fraction of the GEMM peak in the variant's dtype."""
    return asdict(cost) | {"gflop_per_s": cost.gflop_per_s, "fraction_of_peak": cost.gflop_per_s / peak[cost.dtype]}


def _policy(cached: int) -> CachePolicy:
    return parse_policy(f"window:{cached + 1}")


def _time_of_next(cached: int) -> Tensor:
    return torch.tensor([cached + 1.0], dtype=torch.float64)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
