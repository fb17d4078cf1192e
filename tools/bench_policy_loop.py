#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A policy through its nodes against the same policy in process, on the same starts: does ROS 2 cost success?

    make bench-policy-loop ARGS="--policy RUN/best --weights WEIGHTS"

In process the simulator waits for the policy before every period. Through nodes, two processes and DDS, it does not:
pictures travel, predictions arrive late, commands are velocities that hold until the next. Starts, sentences and time
limits are equal, seeds are those of evaluations. Both runs go on where they were stopped; OUT/in_process and OUT/nodes
hold what an evaluation holds, OUT/loop.json the comparison.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnistream.cli.report import environment, write_report
from omnistream.errors import ConfigError, OmniStreamError
from omnistream.policy.default import DEFAULT
from omnistream_ros.tabletop_robot import PATIENCE_S, TabletopRobot, open_robot
from omnistream_sim.evaluation.pool import PoolOptions
from omnistream_sim.evaluation.records import EpisodeRecord
from omnistream_sim.evaluation.run import RunOptions, evaluate
from omnistream_sim.evaluation.scores import Rate, paired_difference
from omnistream_sim.evaluation.store import Store
from omnistream_sim.tabletop.benchmark import RULES, tabletop_benchmark
from omnistream_sim.tabletop.ros.environment import Bystander, nodes_benchmark
from omnistream_sim.tabletop.task_env import View
from omnistream_sim.tabletop.tasks import TASKS

WANTED = 0.05
"""How far success through nodes may be from success in process."""
REAL = 0.97
"""Of the control rate on the wall; less, and it was not measured at the real rate."""


def main() -> int:
    """The command. Exit codes: 0 measured; 1 with --check: not as wanted; 2 it cannot be measured; 130 stopped."""
    options = _parser().parse_args()
    try:
        robot = open_robot(
            options.policy,
            options.weights,
            sim_time=options.factor != 1.0,
            factor=options.factor,
            patience=PATIENCE_S / min(1.0, options.factor),
            policy_parameters={"execute": options.execute} | dict(map(_parameter, options.parameter)),
        )
        numbers = compare(robot, options)
    except OmniStreamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    path = options.out / "loop.json"
    write_report(path, numbers | {"environment": environment()})
    print(f"\n{table(numbers)}\n\n{path}")
    return 1 if options.check and not numbers["as_wanted"] else 0


def compare(robot: TabletopRobot, options: argparse.Namespace) -> dict[str, Any]:
    """Both runs, as far as they are not there yet, and what they say together."""
    sides = {camera.name: camera.height for camera in robot.contract.cameras}
    benchmark = tabletop_benchmark(
        episodes=options.episodes,
        tasks=options.tasks,
        view=View(static=sides.get("static", 128), gripper=sides.get("gripper", 0)),
        max_steps=options.max_steps,
    )
    weights = "" if robot.weights == DEFAULT else robot.weights
    runs: dict[str, Any] = {
        "in_process": (benchmark, str(robot.policy), {"weights": weights}, options.workers),
        "nodes": (nodes_benchmark(benchmark, robot), Bystander, {"policy": str(robot.policy), "weights": weights}, 1),
    }
    solved: dict[str, dict[int, EpisodeRecord]] = {}
    for name, (what, policy, given, workers) in runs.items():
        how = RunOptions(
            out=options.out / name, execute=options.execute, videos=options.videos, pool=PoolOptions(workers=workers)
        )
        report = evaluate(what, policy, how, policy_options=given)
        if report["not_finished"]:
            raise ConfigError(f"{name}: {len(report['not_finished'])} episodes could not be run; run it again")
        solved[name] = Store(how.out, report["run"]).records
    chosen = [episode.index for episode in benchmark.episodes]
    one, other = ([solved[name][index] for index in chosen] for name in runs)
    return summary(one, other, robot.contract.rate * robot.factor)


def summary(inside: Sequence[EpisodeRecord], nodes: Sequence[EpisodeRecord], rate: float) -> dict[str, Any]:
    """Of the same episodes in the same order; rate: Hz of the clock on the wall that was asked for."""
    pairs = [(one.solved == 1, other.solved == 1) for one, other in zip(inside, nodes, strict=True)]
    kinds = [TASKS[record.tasks[0]].kind for record in inside]
    difference, interval = paired_difference(pairs)
    metrics = [record.done[0].metrics for record in nodes]
    hz = float(np.nanmedian([metric["hz"] for metric in metrics]))
    steps = {
        name: float(np.mean([record.done[0].steps for record in records if record.solved] or [np.nan]))
        for name, records in (("in_process", inside), ("nodes", nodes))
    }
    return {
        "episodes": len(pairs),
        "in_process": Rate(sum(one for one, _ in pairs), len(pairs)).to_json(),
        "nodes": Rate(sum(other for _, other in pairs), len(pairs)).to_json(),
        "difference": difference,
        "difference95": list(interval),
        "only_in_process": sum(one and not other for one, other in pairs),
        "only_nodes": sum(other and not one for one, other in pairs),
        "kinds": {
            kind: {
                name: Rate(
                    sum(pair[side] for pair, k in zip(pairs, kinds, strict=True) if k == kind), kinds.count(kind)
                ).to_json()
                for side, name in enumerate(("in_process", "nodes"))
            }
            for kind in sorted(set(kinds))
        },
        "periods_when_solved": steps,
        "hz": hz,
        "hz_asked": rate,
        "holds": int(sum(metric["holds"] for metric in metrics)),
        "real_rate": hz >= REAL * rate,
        "as_wanted": abs(difference) <= WANTED and hz >= REAL * rate,
    }


def table(numbers: dict[str, Any]) -> str:
    """The comparison in a screenful."""
    lines = [f"{'':<18}{'in process':>28}{'through nodes':>28}"]
    rows = numbers["kinds"] | {"all": {name: numbers[name] for name in ("in_process", "nodes")}}
    for name, row in rows.items():
        lines.append(f"{name:<18}{_rate(row['in_process']):>28}{_rate(row['nodes']):>28}")
    low, high = numbers["difference95"]
    periods = numbers["periods_when_solved"]
    return "\n".join([
        *lines,
        "",
        f"difference        {100 * numbers['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}); wanted "
        f"within {100 * WANTED:g}. Solved only in process: {numbers['only_in_process']}, only through nodes: "
        f"{numbers['only_nodes']}",
        f"periods           {periods['in_process']:.0f} and {periods['nodes']:.0f} where solved",
        f"rate              {numbers['hz']:.2f} Hz of {numbers['hz_asked']:g}; the policy node stood still "
        f"{numbers['holds']} times" + ("" if numbers["real_rate"] else ": this machine does not keep up"),
    ])  # fmt: skip


def _rate(row: dict[str, Any]) -> str:
    low, high = row["wilson95"]
    return f"{row['success']}/{row['total']} ({100 * low:.0f} to {100 * high:.0f} %)"


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--parameter {text!r}; expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default=DEFAULT, metavar="DIR", help="its folder (default: the shipped one)")
    parser.add_argument(
        "--weights", default=DEFAULT, metavar="PATH", help="of its backbone (default: the shipped ones)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/policy_loop"), metavar="OUT", help="default: %(default)s"
    )
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="starts per kind (default: %(default)s)")
    parser.add_argument("--tasks", nargs="*", default=(), metavar="KIND", help="kinds or names (default: all kinds)")
    parser.add_argument("--execute", type=int, default=4, metavar="N", help="actions of a chunk (default: %(default)s)")
    parser.add_argument("--max-steps", type=int, default=RULES.max_steps, metavar="N", help="periods per task")
    parser.add_argument("--factor", type=float, default=1.0, metavar="F",
                        help="simulated seconds per second through nodes; not 1: on simulated time")  # fmt: skip
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE",
                        help="of the policy node, such as blend=replace; may be repeated")  # fmt: skip
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes of the run in process")
    parser.add_argument("--videos", type=int, default=8, metavar="N", help="films of each run (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help=f"exit code 1 beyond {100 * WANTED:g} points, or too slow")
    return parser


if __name__ == "__main__":
    sys.exit(main())
