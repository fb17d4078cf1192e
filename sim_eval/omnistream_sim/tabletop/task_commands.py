# SPDX-License-Identifier: Apache-2.0
"""The commands of `omnistream-sim` about tasks on the tabletop: score a policy, demonstrate, check the experts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from omnistream_sim.command_line import Folder, resumable, to_stderr
from omnistream_sim.evaluation.commands import Flat, How, Scored, run_benchmark

_HOW = How()


def tabletop(
    scored: Annotated[Scored, Flat],
    how: Annotated[How, Flat] = _HOW,
    *,
    out: Path = Path("build/tabletop"),
    episodes: int = 100,
    chains: int = 0,
    tasks: tuple[str, ...] = (),
    told: Literal["unseen", "seen", "blank", "swapped"] = "unseen",
    static: int = 128,
    gripper: int = 96,
    seed: int = 0,
    max_steps: int = 160,
) -> None:
    """Score a policy on the tabletop's tasks, or on chains of five of them. A stopped run goes on.

    Args:
        out: Folder of the run: results.json, kinds.json, results.txt, videos, sheet.png, episodes.jsonl.
        episodes: Starts per kind of task.
        chains: So many chains of five tasks, instead of single ones.
        tasks: Kinds (lift, push, place, stack, drawer, button, slider) or names, such as lift_red; none: all.
        told: A sentence that no demonstration has, one that demonstrations have, nothing, or another task that is
            possible: then that one is scored, and did_the_other says how often the first was done all the same.
        static: Pixels per side of the camera beside the table; as in the policy's training data.
        gripper: Of the camera on the hand; 0: none, which takes half the time.
        seed: Another one, other starts.
        max_steps: Control periods per task, at 20 Hz.
    """
    from omnistream.cli.report import write_report

    from .benchmark import by_kind, chance, kinds_table, tabletop_benchmark
    from .task_env import View

    benchmark = tabletop_benchmark(
        episodes=episodes,
        chains=chains,
        tasks=tasks,
        told=told,
        view=View(static=static, gripper=gripper),
        seed=seed,
        max_steps=max_steps,
    )
    try:
        run_benchmark(benchmark, scored, out, how)
    finally:
        if (out / "results.json").is_file():
            report: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
            kinds = {kind: rate.to_json() for kind, rate in by_kind(report).items()}
            write_report(out / "kinds.json", {"kinds": kinds, "picked_at_random": chance(benchmark)})
            print(f"\n{kinds_table(report, benchmark)}")


def demos_tabletop(
    out: Folder,
    /,
    *,
    episodes: int,
    tasks: tuple[str, ...] = (),
    seed: int = 0,
    noise: float = 0.35,
    disturbed: float = 0.5,
    later: float = 0.3,
    others: int = 2,
    static: int = 128,
    gripper: int = 96,
    storage: Literal["image", "jpeg", "video"] = "image",
    workers: int = 1,
) -> None:
    """Write demonstrations of the experts as a data set in LeRobot's format. A stopped run goes on.

    Args:
        out: The folder to write.
        episodes: How many. Those at which the expert fails are counted, left out and replaced.
        tasks: Kinds (lift, push, place, stack, drawer, button, slider) or names, such as lift_red; none: all.
        seed: Data sets of different seeds have no start in common, and none with those of evaluations.
        noise: Disturbance of the arm: standard deviation, where 1 is 0.02 m. Recorded is the undisturbed action.
        disturbed: Share of the control periods that are disturbed.
        later: Share of the episodes that begin where a chain of tasks has got to.
        others: Other tasks per frame of which it is noted what the expert would do next, were it told them.
        static: Pixels per side of the camera beside the table.
        gripper: Of the camera on the hand; 0: none.
        storage: image (PNG), jpeg or video.
        workers: Processes.
    """
    from omnistream_sim.dataset import Progress

    from .demos import DemoOptions, make_demos
    from .task_env import View

    options = DemoOptions(
        episodes=episodes,
        tasks=tasks,
        seed=seed,
        noise=noise,
        disturbed=disturbed,
        later=later,
        others=others,
        view=View(static=static, gripper=gripper),
        storage=storage,
    )
    with resumable():
        told = make_demos(out, options, workers=workers, progress=Progress(to_stderr, "episodes"))
    lost = ", ".join(f"{task} {count}" for task, count in told["failed"].items())
    tail = f" ({lost})" if lost else ""
    print(f"{out}: {told['episodes']} episodes, {told['frames']} frames, {told['tried']} tried{tail}")


def record_tabletop(
    out: Folder,
    /,
    *,
    episodes: int,
    tasks: tuple[str, ...] = (),
    seed: int = 0,
    noise: float = 0.35,
    static: int = 128,
    gripper: int = 96,
    speed: float = 1.0,
) -> None:
    """Record demonstrations of the experts over ROS 2, as a robot's are: OUT/bags and OUT/mapping.yaml.

    Starts the simulator and the recorder node, on the loopback interface. What is there counts: a stopped run goes on.

    Args:
        out: The folder to write.
        episodes: How many bags. Those at which the expert fails are discarded and replaced.
        tasks: Kinds (lift, push, place, stack, drawer, button, slider) or names, such as lift_red; none: all.
        seed: Recordings of different seeds have no start in common, and none with those of evaluations.
        noise: Disturbance of the arm: standard deviation, where 1 is 0.02 m. Recorded is the undisturbed action.
        static: Pixels per side of the camera beside the table.
        gripper: Of the camera on the hand; 0: none.
        speed: Simulated seconds per second. The import says so where the machine did not keep up.
    """
    from omnistream.io.extras import need
    from omnistream_sim.dataset import Progress

    need("rclpy", "ros", "recording over ROS 2")
    from .demos import DemoOptions
    from .ros.recording import record_demos
    from .task_env import View

    view = View(static=static, gripper=gripper)
    options = DemoOptions(episodes=episodes, tasks=tasks, seed=seed, noise=noise, later=0.0, view=view)
    with resumable():
        failed = record_demos(out, options, speed=speed, progress=Progress(to_stderr, "episodes"))
    print(f"{out}: {episodes} episodes; the expert failed {failed} times beside them")
    print(f"omnistream-data import {out / 'bags'} --mapping {out / 'mapping.yaml'} --out SET")


def check_tabletop(
    *, episodes: int = 100, chains: int = 20, tasks: tuple[str, ...] = (), at_least: float = 0.95, seed: int = 0
) -> None:
    """Let the experts do every kind of task, and chains, on the starts that policies are scored on.

    Args:
        episodes: Starts per kind of task.
        chains: Chains of five.
        tasks: Kinds or names; none: all.
        at_least: Success that each kind must reach, else the exit code is 1.
        seed: Another one, other starts.
    """
    from omnistream_sim.dataset import Progress
    from omnistream_sim.evaluation.protocols import EvaluationError

    from .benchmark import tabletop_benchmark
    from .rehearsal import rehearse

    singles = tabletop_benchmark(episodes=episodes, tasks=tasks, seed=seed).episodes
    parts = {"single tasks": rehearse(singles, Progress(to_stderr, "episodes"))}
    if chains:
        row = tabletop_benchmark(chains=chains, seed=seed).episodes
        parts["in chains of five"] = rehearse(row, Progress(to_stderr, "chains"))
    low = []
    for part, found in parts.items():
        print(f"{part:<20}{'rate':>8}   95 % interval    solved   steps: mean, largest")
        for kind, one in found.items():
            (least, most), rate = one.rate.interval, one.rate
            share = f"{rate.success}/{rate.total}"
            print(
                f"{kind:<20}{100 * rate.value:>7.1f}%   {100 * least:>5.1f} .. {100 * most:>5.1f}   {share:>7}   "
                f"{one.steps[0]:.0f}, {one.steps[1]:.0f}"
            )
            for text in one.failed:
                print(f"    failed at seed {text}")
            low += [kind] if rate.value < at_least else []
    if low:
        raise EvaluationError(f"experts below {100 * at_least:g} %: {', '.join(dict.fromkeys(low))}")


def probe_tabletop(
    *,
    out: Path = Path("build/probe_tabletop.json"),
    weights: str | None = None,
    pictures: int = 1000,
    steps: int = 2500,
    static: int = 224,
    image_size: int = 128,
    seed: int = 0,
) -> None:
    """Ask frozen features where the named block is, beside the same network with random weights, and pixels.

    Args:
        out: JSON report to write.
        weights: Of the backbone; none: pixels only.
        pictures: Of random starts; a fifth tests.
        steps: In which the head learns, 64 samples each.
        static: Pixels per side of the pictures.
        image_size: To which they are resized: more tokens, more exact, slower.
        seed: Another one, other starts and another head.
    """
    from omnistream.cli.report import environment, write_report

    from .locate import LocateOptions, locate, table

    options = LocateOptions(pictures=pictures, steps=steps, static=static, image_size=image_size, seed=seed)
    report = locate(weights, options, say=lambda text: to_stderr(f"{text}\n"))
    write_report(out, report | {"weights": str(weights), "options": asdict(options), "environment": environment()})
    print(f"{table(report)}\n\n{out}")


COMMANDS: dict[str, Any] = {
    "tabletop": tabletop,
    "demos tabletop": demos_tabletop,
    "record tabletop": record_tabletop,
    "check tabletop": check_tabletop,
    "probe tabletop": probe_tabletop,
}
