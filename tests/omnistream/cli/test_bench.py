# SPDX-License-Identifier: Apache-2.0
"""omnistream-bench: what it measures is the same computation, and its report says on what."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ElementTree

import pytest

from omnistream.cli import bench
from omnistream.cli.bench_plot import line_chart
from omnistream.cli.bench_stream import Cost, split, step_gflop
from omnistream.model.config import preset

QUICK = ["stream", "--preset", "tiny", "--size", "32x32", "--repeats", "2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def threads():
    """The bench sets torch's threads for the process."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_report_and_plot(tmp_path, capsys):
    out = tmp_path / "results" / "bench"
    options = ["--cached", "1", "3", "--engines", "torch/float32", "torch/bfloat16", "--recompute-up-to", "1"]
    assert bench.main([*QUICK, *options, "--out", str(out)]) == 0
    report = json.loads(out.with_suffix(".json").read_text())
    found = {(cost["variant"], cost["cached"]): cost for cost in report["costs"]}
    assert set(found) == {
        *((name, n) for name in ("concatenation", "torch cpu float32", "torch cpu bfloat16") for n in (1, 3)),
        ("recompute", 1),
    }
    assert found["torch cpu float32", 3]["error"] < 1e-5 < found["torch cpu bfloat16", 3]["error"] < 2e-2
    assert found["torch cpu bfloat16", 3]["cache_bytes"] * 2 == found["concatenation", 3]["cache_bytes"]
    assert all(0 < cost["least"] <= cost["median"] and cost["fraction_of_peak"] > 0 for cost in report["costs"])
    assert report["unit"].startswith("ms of process CPU time") and report["threads"] == 1
    assert set(report["gemm_peak_gflop_per_s"]) == {"float32", "bfloat16"}
    assert {"commit", "machine", "software"} <= set(report["environment"])
    labels = "".join(ElementTree.parse(out.with_suffix(".svg")).getroot().itertext())
    assert "concatenation" in labels and "torch cpu bfloat16" in labels
    assert "of concat." in capsys.readouterr().out


def test_two_cameras_in_a_step(tmp_path):
    """Times are per camera, the cache is both cameras'."""
    reports = []
    for batch in ("1", "2"):
        out = tmp_path / batch
        options = ["--cached", "1", "--engines", "torch/float32", "--recompute-up-to", "1", "--batch", batch]
        assert bench.main([*QUICK, *options, "--out", str(out)]) == 0
        reports.append(json.loads(out.with_suffix(".json").read_text()))
    one, two = ({cost["variant"]: cost for cost in report["costs"]} for report in reports)
    name = "torch cpu float32"
    assert two[name]["cache_bytes"] == 2 * one[name]["cache_bytes"] and two[name]["gflop"] == one[name]["gflop"]
    assert two[name]["error"] < 1e-5 and two[name]["gpu_bytes"] is None
    assert "2 cameras in a step" in reports[1]["what"]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--cached", "0"], 2, "cached is (0,)"),
        (["--repeats", "0"], 2, "repeats is 0"),
        (["--size", "32"], 2, "size is '32'"),
        (["--engines", "warp"], 1, "engine 'warp' is unknown"),
        (["--engines", "auto", "torch-graph"], 1, "needs a CUDA GPU"),
        (["--weights", "nowhere"], 1, "nowhere does not exist"),
    ],
)
def test_refusals(tmp_path, capsys, options, status, message):
    assert bench.main([*QUICK, *options, "--out", str(tmp_path / "out")]) == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_gflop_of_vit_s():
    """12 layers, 201 tokens, width 384: 24 N D^2 and 4 N^2 D per layer, and the patches."""
    config = preset("small").backbone
    assert step_gflop(config, 201, 1) == pytest.approx(8.54 + 0.12 + 0.745, rel=0.01)
    assert step_gflop(config, 201, 17) - step_gflop(config, 201, 16) == pytest.approx(0.745, rel=0.001)


def test_split_is_a_line_through_the_costs():
    costs = [Cost("x", "float32", n, 50 + 4 * n, 0, 1, 10 + 0.8 * n, 0, None) for n in (1, 4, 16)]
    parts = split(costs, per_frame_gflop=0.8)
    assert parts == pytest.approx(
        {
            "fixed_ms": 50,
            "fixed_gflop_per_s": 200,
            "per_cached_frame_ms": 4,
            "attention_gflop_per_s": 200,
        }
    )
    assert split(costs[:1], 0.8) is None


def test_labels_of_lines_that_end_close_together_do_not_overlap():
    lines = {f"line {i}": [(1.0, 10.0 + i / 100), (2.0, 20.0 + i / 100)] for i in range(4)}
    root = ElementTree.fromstring(line_chart(lines, title="a < b", subtitle="", x_label="x", y_label="y"))
    heights = sorted(float(e.attrib["y"]) for e in root.iter() if (e.text or "").startswith("line"))
    assert len(heights) == 4 and min(b - a for a, b in itertools.pairwise(heights)) >= 16
