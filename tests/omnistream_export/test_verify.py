# SPDX-License-Identifier: Apache-2.0
"""The gate of an export: numbers that are none never pass it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from omnistream.engines.base import StepOutputs
from omnistream.heads.heads import HeadOutputs
from omnistream_export.verify import Comparison


def outputs() -> StepOutputs:
    """One frame of 2 x 3 patches, with all heads."""
    draw = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=draw)

    heads = HeadOutputs(noise(32, 48), noise(32, 48), noise(16, 24, 6), noise(16, 24), noise(9))
    return StepOutputs(noise(6, 8), noise(8), noise(8), heads, 1.0, 1.0)


def broken(name: str, value: float) -> StepOutputs:
    """The same with one number that is none."""
    out = outputs()
    where = out if hasattr(out, name) else out.heads
    bad = getattr(where, name).clone()
    bad.view(-1)[0] = value
    changed = dataclasses.replace(where, **{name: bad})
    return changed if where is out else dataclasses.replace(out, heads=changed)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["patches", "cls", "log_depth", "depth_confidence", "rays", "ray_confidence"])
def test_one_number_that_is_not_finite_fails(name: str, value: float, dtype: str) -> None:
    comparison = Comparison("engine", dtype)
    comparison.add(outputs(), outputs())
    assert comparison.passed
    comparison.add(broken(name, value), outputs())
    comparison.add(outputs(), outputs())
    assert not comparison.passed and "FAILED" in str(comparison)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_reference_that_is_not_finite_fails_too(dtype: str) -> None:
    comparison = Comparison("engine", dtype)
    comparison.add(broken("patches", math.nan), broken("patches", math.nan))
    assert not comparison.passed
