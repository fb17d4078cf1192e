# SPDX-License-Identifier: Apache-2.0
"""Do the default weights do what is asked of them? `python tools/eval_default.py [--weights PATH] [--out build/eval]`.

Makes the held-out sequences (held_out_sets.py), runs `omnistream-eval geometry` on both sets with all baselines, and
prints each number beside what it has to reach; OUT/acceptance.json and OUT/acceptance.md hold the same. A stopped run
goes on. Exit code 0: everything accepted; 1: something is not.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from held_out_sets import CLIPS, MAP_CLIPS, SETS, make_sets

from omnistream.cli.report import environment, write_report
from omnistream.errors import OmniStreamError
from omnistream.io.files import write_bytes
from omnistream_training.evaluation.geometry_command import evaluate
from omnistream_training.evaluation.naming import named_model
from omnistream_training.evaluation.options import Geometry
from omnistream_training.evaluation.table import align_columns

FRAMES = 64
POLICIES = ("sink_window:1,15", "window:16", "full")
"""The first is judged: it is what a node uses."""


@dataclass(frozen=True)
class Target:
    """What a number has to reach."""

    set: str
    part: str
    metric: str
    accept: float
    aim: float
    unit: str = ""
    of_line: bool = False
    """`accept` is a share of the straight line's error instead of a number."""

    @property
    def more_is_better(self) -> bool:
        return self.metric == "delta1"


TARGETS = (
    Target("tabletop", "depth", "abs_rel", accept=0.10, aim=0.05),
    Target("tabletop", "depth", "delta1", accept=0.90, aim=0.98),
    Target("tabletop", "pose", "ate_percent", accept=0.5, aim=3.0, unit="% of path", of_line=True),
    Target("worlds", "depth", "abs_rel", accept=0.15, aim=0.08),
    Target("worlds", "depth", "delta1", accept=0.80, aim=0.93),
)
WORDS = {"abs_rel": "AbsRel", "delta1": "delta < 1.25", "ate_percent": "ATE"}


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="checkpoint; default: the shipped weights")
    parser.add_argument("--out", type=Path, default=Path("build/eval"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"sequences per set; default {CLIPS}")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"default {FRAMES}")
    parser.add_argument("--map-clips", type=int, default=MAP_CLIPS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help="CPU threads of the model")
    options = parser.parse_args()
    try:
        return run(options)
    except OmniStreamError as error:
        print(f"eval_default: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """The whole evaluation; 0 if everything is accepted."""
    model, words = named_model(options.weights)
    data = options.out / "data"
    size = model.config.image_size
    made = make_sets(data, options.sets, options.clips, options.frames, size, options.map_clips)
    reports = {}
    for name in made:
        reports[name] = evaluate(
            Geometry(
                data=data / name,
                out=options.out / name,
                protocol=name,
                weights=options.weights,
                policy=POLICIES,
                frames=(options.frames,),
                depth_map=data / f"{name}_map.npz",
                time_base="stamps",
                threads=options.threads,
            )
        )
    rows = [judge(target, reports[target.set]) for target in TARGETS if target.set in reports]
    report = {
        "format": "omnistream-acceptance",
        "version": 1,
        "made_by": "make eval-default",
        "environment": environment(),
        "model": next(iter(reports.values()))["model"] if reports else {"words": words},
        "policy": POLICIES[0],
        "frames": options.frames,
        "sequences": options.clips,
        "left_out": [name for name in options.sets if name not in made],
        "rows": rows,
    }
    write_report(options.out / "acceptance.json", report)
    cells = [list(HEADINGS), *(cells_of(row) for row in rows)]
    write_bytes(options.out / "acceptance.md", markdown(cells, report).encode())
    print("\n" + "\n".join(align_columns(cells)))
    print(f"\nwrote acceptance.json and acceptance.md in {options.out}")
    return 0 if rows and not report["left_out"] and all(row["accepted"] for row in rows) else 1


def judge(target: Target, report: dict[str, Any]) -> dict[str, Any]:
    """The number, its baselines, and whether it is enough."""
    found = {row["method"]: row.get(target.part, {}).get(target.metric) for row in report["rows"]}
    value = found[POLICIES[0]]
    baselines = {name: kept["value"] for name, kept in found.items() if kept is not None and name not in POLICIES}
    accept = target.accept * baselines.get("straight line", float("nan")) if target.of_line else target.accept
    sign = -1 if target.more_is_better else 1
    reached = {name: value is not None and sign * value["value"] <= sign * limit for name, limit in
               (("accepted", accept), ("aim_reached", target.aim))}  # fmt: skip
    return {
        **asdict(target),
        "accept": accept,
        "value": value,
        "other_policies": {name: found[name] for name in POLICIES[1:]},
        "baselines": baselines,
        **reached,
    }


HEADINGS = ("set", "number", "streamed, 95 % interval", "accept", "aim", "", "baselines")


def cells_of(row: dict[str, Any]) -> list[str]:
    """One line of the table."""
    form = "{:.1f}" if row["metric"] == "ate_percent" else "{:.3f}"
    value = row["value"]
    shown = "-" if value is None else f"{form} [{form}, {form}]".format(value["value"], value["low"], value["high"])
    verdict = "aim reached" if row["aim_reached"] else "accepted" if row["accepted"] else "NOT ACCEPTED"
    others = ", ".join(f"{name} {form.format(number)}" for name, number in row["baselines"].items())
    name = f"{WORDS[row['metric']]} {row['unit']}".strip()
    limit = "half the straight line: " if row["of_line"] else ""
    return [row["set"], name, shown, limit + form.format(row["accept"]), form.format(row["aim"]), verdict, others]


def markdown(cells: list[list[str]], report: dict[str, Any]) -> str:
    """The table for a document, with what it was measured on."""
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    lines.insert(1, "|" + " --- |" * len(cells[0]))
    about = f"{report['sequences']} sequences of {report['frames']} frames each, policy {report['policy']}"
    return "\n".join(
        [*lines, "", f"{about}; {report['model']['words']}; weights {report['model'].get('hash', '')}", ""]
    )


if __name__ == "__main__":
    sys.exit(main())
