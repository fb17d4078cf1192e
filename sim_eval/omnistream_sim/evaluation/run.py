# SPDX-License-Identifier: Apache-2.0
"""A whole evaluation: benchmark and policy in, results.json, table, films out. Run again, it goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omnistream.cli.report import environment, write_report
from omnistream.errors import ConfigError
from omnistream.io.files import write_bytes

from .pictures import contact_sheet
from .policies import policy_maker
from .pool import PoolOptions, run_here, run_pool
from .progress import LiveLine
from .protocols import Benchmark, Episode, EvaluationError, Policy
from .report import results, short_score, table
from .store import Store
from .worker import Beat, Event, Failed, Finished, Ready, Work

PATIENCE = 3
"""So many episodes that cannot be run, before the first that can, stop a run."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a benchmark is run."""

    out: Path
    """Folder of the run."""
    execute: int = 0
    """Rows of an action chunk that are carried out before the policy is asked again; 0: all."""
    videos: int = 0
    """Films of the first so many episodes."""
    where: str = "processes"
    """processes, here (this process) or ray."""
    pool: PoolOptions = field(default_factory=PoolOptions)

    def __post_init__(self) -> None:
        if self.execute < 0 or self.videos < 0:
            raise ConfigError(f"execute {self.execute}, videos {self.videos}; expected 0 or more")
        if self.where not in ("processes", "here", "ray"):
            raise ConfigError(f"where is {self.where!r}; expected processes, here or ray")


def evaluate(
    benchmark: Benchmark,
    policy: str | Callable[..., Any],
    options: RunOptions,
    *,
    policy_options: dict[str, Any] | None = None,
    live: LiveLine | None = None,
) -> dict[str, Any]:
    """Run what is not finished yet, write the report, return it.

    policy: a checkpoint's folder, "module:name", or a callable that workers can import; see `policy_maker`.
    policy_options: for the checkpoint, or for the callable that makes a policy.

    Raises:
        EvaluationError: no simulator or policy could be made, or nothing can be run or written.
        InputError: the folder holds another run.
    """
    make, name = policy_maker(policy, policy_options or {}, benchmark.convention)
    if benchmark.wrap is not None:
        make = partial(_wrapped, make, benchmark.wrap)
    identity = {
        "benchmark": benchmark.name,
        "rules": asdict(benchmark.rules),
        "settings": benchmark.settings,
        "policy": name,
        "policy_options": policy_options or {},
        "execute": options.execute,
    }
    if options.pool.threads != 1:  # which moves the last bit of a sum
        identity["threads"] = options.pool.threads
    store = Store(options.out, identity)
    missing = [episode for episode in benchmark.episodes if episode.index not in store.records]
    filmed = frozenset(episode.index for episode in benchmark.episodes[: options.videos])
    work = Work(benchmark.environment, make, benchmark.rules, options.execute, options.out.absolute(), filmed)
    live = live or LiveLine(len(benchmark.episodes), len(benchmark.episodes) - len(missing), "episodes")
    failures = _collect(_events(work, missing, options), store, benchmark, live) if missing else {}
    wanted = {episode.index for episode in benchmark.episodes}
    records = [record for index, record in sorted(store.records.items()) if index in wanted]
    report = results(benchmark, records, run=store.identity, found=store.description, failures=failures)
    write_report(options.out / "results.json", report | {"environment": environment()})
    write_bytes(options.out / "results.txt", f"{table(report)}\n".encode())
    contact_sheet(options.out, f"{benchmark.name}: {short_score(records)}")
    return report


def _wrapped(make: Callable[[], Policy], wrap: Callable[[Policy], Policy]) -> Policy:
    return wrap(make())


def _events(work: Work, episodes: Sequence[Episode], options: RunOptions) -> Iterator[Event]:
    if options.where == "here":
        return run_here(work, episodes)
    if options.where == "ray":
        from .ray_pool import run_ray

        return run_ray(work, episodes, options.pool)
    return run_pool(work, episodes, options.pool)


def _collect(events: Iterator[Event], store: Store, benchmark: Benchmark, live: LiveLine) -> dict[int, str]:
    """Write down what comes; returns the episodes that could not be run, with the reason."""
    failures: dict[int, str] = {}
    wanted = {episode.index for episode in benchmark.episodes}
    finished = len(wanted & store.records.keys())
    with closing(events):  # type: ignore[type-var]  # every Iterator here is a generator
        try:
            for event in events:
                steps = 0
                if isinstance(event, Ready):
                    store.confirm(event.description)
                elif isinstance(event, Finished):
                    store.add(event.record)
                    finished += 1
                    if event.no_film:
                        live.say(event.no_film)
                elif isinstance(event, Failed):
                    failures[event.index] = event.reason
                    if not finished and len(failures) >= min(PATIENCE, len(wanted)):
                        raise EvaluationError(f"no episode could be run; episode {event.index}: {event.reason}")
                elif isinstance(event, Beat):
                    steps = event.steps
                done = [record for index, record in store.records.items() if index in wanted]
                live.show(len(done), short_score(done), steps)
        finally:
            live.end()
    return failures
