# SPDX-License-Identifier: Apache-2.0
"""Does the default policy do what is asked of it? `python tools/eval_policy.py [--policy DIR] [--out build/policy]`.

    kinds     every kind of task, on starts and in sentences that no demonstration has
    chains    five tasks in a row without a reset
    blank     told nothing: the same as picking a task at random
    swapped   told another task than the one that the start was drawn for: that one is done
    size      of the policy on disk

and optionally --control NAME=POLICY[,WEIGHTS], such as a policy trained on random features or on bare pixels. Prints
each number beside what it has to be; OUT/acceptance.json and OUT/acceptance.md hold the same, films and tables of each
part are in its folder. A stopped evaluation goes on, and one with more seeds goes on from one with fewer. Exit code 0:
everything accepted; 1: something is not, or was left out; 2: it cannot be run; 130: stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy_acceptance import (
    acceptance,
    blank_rows,
    cells,
    chains_rows,
    control_rows,
    kinds_rows,
    outcomes,
    size_rows,
    swapped_rows,
    write_markdown,
)

from omnistream.cli.report import write_report
from omnistream.errors import ConfigError, OmniStreamError
from omnistream.policy.checkpoint import POLICY_FILE, LoadedPolicy, load_policy
from omnistream.policy.default import policy_folder
from omnistream.weights.files import read_json
from omnistream_sim.evaluation.commands import Scored
from omnistream_sim.evaluation.pool import PoolOptions
from omnistream_sim.evaluation.protocols import Benchmark
from omnistream_sim.evaluation.run import RunOptions, evaluate
from omnistream_sim.evaluation.store import Store
from omnistream_sim.tabletop.benchmark import chance, tabletop_benchmark
from omnistream_sim.tabletop.task_env import View
from omnistream_training.evaluation.table import align_columns

PARTS = ("kinds", "chains", "blank", "swapped", "size")
EPISODES = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _options(argv)
    try:
        return run(options)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    except OmniStreamError as error:
        print(f"eval_policy: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """All parts that are asked for, one after the other; the acceptance is written after each."""
    folder = policy_folder(options.policy)
    loaded = load_policy(folder)
    controls = dict(_control(text) for text in options.control)
    wanted = [*options.parts, *(f"control-{name}" for name in controls)]
    about = {
        "policy": _identity(folder, loaded),
        "episodes": options.episodes,
        "chains": options.chains,
        "controls": options.controls,
        "seed": options.seed,
        "execute": options.execute,
    }
    rows: list[dict[str, Any]] = []
    report: dict[str, Any] = {}
    for number, part in enumerate(wanted):
        if part == "size":
            rows += size_rows(folder)
        else:
            print(f"{part}:", file=sys.stderr)
            name = part.removeprefix("control-")
            policy, weights = controls[name] if name in controls else (str(folder), options.weights or "")
            benchmark = _benchmark(part, options, _view(load_policy(policy)))
            found = _score(benchmark, policy, weights, options.out / part, options)
            rows += _rows(part, benchmark, found, options)
            if part == "kinds":
                about["policy_ms"] = found["timings"]["policy_ms"]
        left_out = [other for other in PARTS if other not in options.parts] + wanted[number + 1 :]
        report = acceptance(rows, left_out, about)
        write_report(options.out / "acceptance.json", report)
        write_markdown(options.out / "acceptance.md", report)
    print("\n" + "\n".join(align_columns(cells(report))))
    print(f"\nwrote acceptance.json and acceptance.md in {options.out}")
    return 0 if report["accepted"] else 1


def _benchmark(part: str, options: argparse.Namespace, view: View) -> Benchmark:
    episodes = options.episodes if part == "kinds" else options.controls
    return tabletop_benchmark(
        episodes=episodes,
        chains=options.chains if part == "chains" else 0,
        tasks=() if part == "chains" else tuple(options.tasks),
        told=part if part in ("blank", "swapped") else "unseen",  # type: ignore[arg-type]
        view=view,
        seed=options.seed,
        max_steps=options.max_steps,
    )


def _score(benchmark: Benchmark, policy: str, weights: str, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    how = RunOptions(out=out, execute=options.execute, videos=options.videos, pool=PoolOptions(workers=options.workers))
    scored = Scored(policy=policy, weights=weights)
    return evaluate(benchmark, scored.policy, how, policy_options=scored.all_options())


def _rows(part: str, benchmark: Benchmark, found: dict[str, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    if part.startswith("control-"):
        mine, theirs = (
            outcomes(Store(folder, read_json(folder / "run.json")["run"]).records) if folder.exists() else {}
            for folder in (options.out / "kinds", options.out / part)
        )
        return control_rows(part.removeprefix("control-"), found, mine, theirs)
    if part == "blank":
        return blank_rows(found, chance(benchmark))
    return {"kinds": kinds_rows, "chains": chains_rows, "swapped": swapped_rows}[part](found)


def _view(policy: LoadedPolicy) -> View:
    """The cameras as in the policy's training data."""
    sides = {camera.name: camera.height for camera in policy.contract.cameras}
    if "static" not in sides:
        raise ConfigError(f"the policy has cameras {', '.join(sides)}; the tabletop has static and gripper")
    return View(static=sides["static"], gripper=sides.get("gripper", 0))


def _identity(folder: Path, policy: LoadedPolicy) -> dict[str, Any]:
    stored = read_json(folder / POLICY_FILE)
    return {
        "sha256": stored["weights_sha256"],
        "backbone": policy.contract.backbone,
        "made_by": stored["made_by"],
        "step": policy.training.get("step"),
    }


def _control(text: str) -> tuple[str, tuple[str, str]]:
    """NAME=POLICY[,WEIGHTS]."""
    name, equals, rest = text.partition("=")
    policy, _, weights = rest.partition(",")
    if not (name and equals and policy):
        raise ConfigError(f"--control {text!r}; expected NAME=POLICY or NAME=POLICY,WEIGHTS")
    return name, (policy, weights)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="default", help="folder; default: the shipped policy")
    parser.add_argument("--weights", help="of the backbone that it was trained on; default: the shipped ones")
    parser.add_argument("--out", type=Path, default=Path("build/policy"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--episodes", type=int, default=EPISODES, help=f"starts per kind; default {EPISODES}")
    parser.add_argument("--chains", type=int, default=EPISODES, help=f"default {EPISODES}")
    parser.add_argument(
        "--controls", type=int, default=EPISODES, help=f"starts per kind of the other parts; default {EPISODES}"
    )
    parser.add_argument("--control", nargs="*", default=[], metavar="NAME=POLICY[,WEIGHTS]")
    parser.add_argument("--execute", type=int, default=4, help="steps of a chunk before it is asked again; default 4")
    parser.add_argument("--seed", type=int, default=0, help="another one, other starts")
    parser.add_argument("--workers", type=int, default=2, help="processes; default 2")
    parser.add_argument("--videos", type=int, default=14, help="films per part; default 14")
    parser.add_argument("--tasks", nargs="+", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--max-steps", type=int, default=160, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
