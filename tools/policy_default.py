# SPDX-License-Identifier: Apache-2.0
"""The default policy from nothing: `python tools/policy_default.py OUT [--weights DIR]` (`make policy-default`).

    OUT/demos-0, demos-1, ...   demonstrations of the tabletop's seven kinds of task, by `omnistream-sim demos tabletop`
    OUT/blocks-0, blocks-1, ... of the four kinds that are about blocks
    OUT/features, OUT/run       features and training, by `omnistream-train policy --preset tabletop_default`
    OUT/policy                  the best policy of the run, float16: what is shipped
    OUT/control-*               with --controls: the same, on features of random weights, and on pixels
    OUT/cost.json               seconds that each of these took, all starts together

Kill it when you like: the same command goes on. Several sets of demonstrations instead of one, so that more can be
added (--sets) without computing the features of the others again. What follows `--` is given to omnistream-train.

exit codes: 0 finished; 1 stopped before the end; 2 wrong usage, or something is missing; 3 a command of ours failed
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from omnistream.episodes.plans import PLANS_FILE
from omnistream.errors import ConfigError, OmniStreamError
from omnistream.io.files import write_bytes
from omnistream.policy.checkpoint import load_policy, save_policy
from omnistream.policy.vision import tapped_blocks
from omnistream.weights import load_model, random_model, save_model
from omnistream.weights.shipped import DEFAULT
from omnistream_training.config_file import load_config
from omnistream_training.journal import duration
from omnistream_training.policy.config import PolicyRunConfig
from omnistream_training.policy.presets import preset
from omnistream_training.running import CONFIG, StopSignals

PRESET = "tabletop_default"
SETS, EPISODES = 7, 280
"""1960 demonstrations, 280 of each kind."""
BLOCK_SETS, BLOCK_KINDS = 4, ("lift", "push", "place", "stack")
"""1120 more of these: what lies elsewhere every time takes more scenes to learn than a drawer does."""
BLOCK_SEED = 1000
"""Of the first set of them."""
STATIC, GRIPPER = 160, 96
"""Pixels per side of the two cameras."""
MOST_MIB = 15.0
FINISHED, STOPPED, USAGE, FAILED = 0, 1, 2, 3
ASK_S = 0.2
KEEP_S = 30.0
"""Between two looks at signals and clock, and two notes of the seconds that were spent."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _options(list(sys.argv[1:] if argv is None else argv))
    try:
        check(options)
        with only_one(options.out) as lock, StopSignals() as stop:
            deadline = None if options.now is None else time.monotonic() + 60 * options.now
            work = Work(options.out, lock, lambda: stop() or (deadline is not None and time.monotonic() > deadline))
            return make(options, work, deadline)
    except OmniStreamError as error:
        print(f"policy_default: {error}", file=sys.stderr)
        return FAILED if isinstance(error, CommandFailed) else USAGE


def check(options: argparse.Namespace) -> None:
    """ConfigError or CheckpointError for what would stop the recipe hours later."""
    if importlib.util.find_spec("pybullet") is None:
        raise ConfigError("the demonstrations need PyBullet: pip install 'omnistream[sim]' (Python 3.11)")
    if options.demos_only:
        return
    vision = preset(PRESET).policy.vision
    tapped_blocks(vision, load_model(options.weights or DEFAULT).config)


def make(options: argparse.Namespace, work: Work, deadline: float | None) -> int:
    """Everything that is not there yet; the exit code."""
    sets = {options.out / f"demos-{number}": (number, ()) for number in range(options.sets)}
    sets |= {options.out / f"blocks-{n}": (BLOCK_SEED + n, BLOCK_KINDS) for n in range(options.block_sets)}
    demos = list(sets)
    run = options.out / "run"
    trained = finished(run, demos)
    for count, (folder, (seed, kinds)) in enumerate(sets.items(), 1):
        if (folder / PLANS_FILE).exists():
            continue
        if folder.exists():
            raise ConfigError(f"{folder} has no {PLANS_FILE}, so an older version made it; remove it to make it anew")
        work.say(f"1/3 demonstrations, set {count} of {len(sets)}")
        words = ["demos", "tabletop", folder, "--episodes", options.episodes, "--seed", seed]
        words += ["--tasks", *kinds] if kinds else []
        words += ["--static", options.static, "--gripper", options.gripper, "--workers", options.workers]
        if not work.run(folder.name, "omnistream_sim.cli", *words):
            return STOPPED
    if options.demos_only:
        return FINISHED
    if not trained:
        work.say("2/3 features and training")
        words = ["--backbone", options.weights.resolve()] if options.weights else []
        words += ["--fit", options.minutes] if options.minutes else []
        if not work.train(run, demos, [*words, *options.train], deadline):
            return STOPPED
    size = ship(run / "best", options.out / "policy")
    work.say(f"3/3 {options.out / 'policy'}: {size:.1f} MiB; does it do what is asked of it? make eval-policy-default")
    return STOPPED if options.controls and not make_controls(options, work, demos, deadline) else FINISHED


def make_controls(options: argparse.Namespace, work: Work, demos: Sequence[Path], deadline: float | None) -> bool:
    """What are the features worth? As many steps on those of a random backbone of the same shape, and on pixels."""
    random = options.out / "random-weights"
    if not random.exists():
        config = load_model(options.weights or DEFAULT).config
        save_model(random_model(config, seed=0), random, made_by="make policy-default: a control")
    eyes = {
        "random": ["--backbone", random.resolve()],
        "pixels": ["--policy.vision.source", "pixels", "--policy.vision.taps"],
    }
    steps = load_config(options.out / "run" / CONFIG, PolicyRunConfig()).steps
    for name, words in eyes.items():
        run = options.out / f"control-{name}"
        if not finished(run, demos):
            work.say(f"control: {name}")
            if not work.train(run, demos, [*words, *options.train, "--steps", steps], deadline):
                return False
    return True


def finished(run: Path, demos: Sequence[Path]) -> bool:
    """Whether the run has reached its end. ConfigError where that was on other demonstrations."""
    if not (run / "report.json").exists():
        return False
    folders = load_config(run / CONFIG, PolicyRunConfig()).data.folders
    if folders != tuple(map(str, demos)):
        raise ConfigError(
            f"{run} was trained on {len(folders)} sets of demonstrations, not on {len(demos)} of {demos[0].parent}; "
            "rename it to train anew on these"
        )
    return True


def ship(best: Path, out: Path) -> float:
    """The policy in float16, replacing an older one; MiB. ConfigError where it is too large to be shipped."""
    save_policy(load_policy(best), out, dtype="float16", made_by="make policy-default", overwrite=True)
    size = sum(path.stat().st_size for path in out.iterdir()) / 2**20
    if size > MOST_MIB:
        raise ConfigError(f"{out} has {size:.1f} MiB; a policy that is shipped has {MOST_MIB:g} at most")
    return size


class CommandFailed(OmniStreamError):
    """A command of ours did not do its work; it has said why."""


class Work:
    """Runs our commands one after the other, stops them when told, keeps account of their seconds."""

    def __init__(self, out: Path, lock: IO[bytes], stop: Callable[[], bool]) -> None:
        self.out, self._lock, self._stop = out, lock, stop

    def say(self, text: str) -> None:
        """A line for people."""
        print(text, file=sys.stderr, flush=True)

    def run(self, stage: str, module: str, *words: object, may_stop: bool = False) -> bool:
        """Whether a command of ours has reached its end; False where it was told to stop.

        may_stop: it also stops by itself, with exit code 1. CommandFailed for any other exit code.
        """
        if self._stop():
            return False
        spent, before = self._cost(stage), _children()
        begin = kept = time.monotonic()
        # In a session of its own: a Ctrl-C reaches it once, through us. The lock goes along, so that nobody starts a
        # second one beside it should we be killed.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *map(str, words)],
            start_new_session=True,
            pass_fds=(self._lock.fileno(),),
        )
        stopped = False
        while child.poll() is None:
            time.sleep(ASK_S)
            if not stopped and self._stop():
                stopped = True
                self.say("\nstopping; the same command goes on")
                child.send_signal(signal.SIGINT)
            if time.monotonic() - kept > KEEP_S:
                kept = time.monotonic()
                self._keep(stage, spent, kept - begin, 0.0)
        self._keep(stage, spent, time.monotonic() - begin, _children() - before)
        if child.returncode == 0:
            self.say(f"{stage}: {duration(time.monotonic() - begin)}")
            return True
        if stopped or (may_stop and child.returncode == STOPPED):
            return False
        raise CommandFailed(f"{module} {' '.join(map(str, words))}: exit code {child.returncode}")

    def train(self, run: Path, demos: Sequence[Path], more: Sequence[object], deadline: float | None) -> bool:
        """`omnistream-train policy` in `run` on these demonstrations; whether it is finished."""
        words = ["policy", run, "--preset", PRESET, "--cache", self.out / "features", "--data.folders", *demos, *more]
        words += ["--stop-after", max(0.0, deadline - time.monotonic()) / 60] if deadline else []
        return self.run(run.name, "omnistream_training.cli", *words, may_stop=True)

    def _cost(self, stage: str) -> dict[str, float]:
        path = self.out / "cost.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return dict(found.get(stage, {"seconds": 0.0, "cpu_seconds": 0.0}))

    def _keep(self, stage: str, spent: dict[str, float], seconds: float, cpu_seconds: float) -> None:
        """Processor time is known when a command has ended; that of one that was killed with us is lost."""
        path = self.out / "cost.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        found[stage] = {
            "seconds": round(spent["seconds"] + seconds, 1),
            "cpu_seconds": round(spent["cpu_seconds"] + cpu_seconds, 1),
        }
        write_bytes(path, (json.dumps(found, indent=2) + "\n").encode())


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def only_one(out: Path) -> Iterator[IO[bytes]]:
    """A lock on OUT, shared with the commands that are started; ConfigError where another process has it."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process is at work in {out}; wait for it, or name another folder") from None
        for left in out.glob(".*.partial"):  # of a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        yield lock


def _options(argv: list[str]) -> argparse.Namespace:
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=lambda text: Path(text).expanduser(), help="folder of everything that is made")
    parser.add_argument("--weights", type=lambda text: Path(text).expanduser(), help="backbone; default: the shipped")
    parser.add_argument("--minutes", type=float, help="of training at most: a new run's steps are cut down to fit")
    parser.add_argument("--now", type=float, help="minutes to work this time; default: to the end")
    parser.add_argument("--sets", type=int, default=SETS, help=f"of demonstrations; default {SETS}")
    parser.add_argument("--block-sets", type=int, default=BLOCK_SETS, help=f"about blocks; default {BLOCK_SETS}")
    parser.add_argument("--episodes", type=int, default=EPISODES, help=f"per set; default {EPISODES}")
    parser.add_argument("--static", type=int, default=STATIC, help=f"pixels, camera at the table; default {STATIC}")
    parser.add_argument("--gripper", type=int, default=GRIPPER, help=f"pixels, camera on the hand; default {GRIPPER}")
    parser.add_argument(
        "--demos-only", action="store_true", help="stop after the demonstrations, which need no weights"
    )
    parser.add_argument("--controls", action="store_true", help="also train what it is compared with")
    parser.add_argument("--workers", type=int, default=2, help="processes that demonstrate; default 2")
    options = parser.parse_args(argv[:cut])
    options.train = argv[cut + 1 :]
    if options.block_sets < 0:
        parser.error(f"--block-sets {options.block_sets}: 0 or more")
    if min(options.sets, options.episodes, options.workers) < 1:
        parser.error(f"--sets {options.sets} --episodes {options.episodes} --workers {options.workers}: 1 or more each")
    return options


if __name__ == "__main__":
    sys.exit(main())
