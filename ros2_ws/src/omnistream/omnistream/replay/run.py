# SPDX-License-Identifier: Apache-2.0
"""A bag, a policy and perhaps a run log, put together: one replay, and its report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnistream.errors import ConfigError
from omnistream.io.bag_reader import is_bag
from omnistream.io.run_log import RecordedRun, circumstances, read_run_log
from omnistream.policy.checkpoint import LoadedPolicy
from omnistream.policy.drive import Drive
from omnistream.policy.intake import Intake
from omnistream.policy.mind import Mind
from omnistream.policy.opening import identity, open_policy, open_session
from omnistream.policy.outbox import GRIPPER, Outbox
from omnistream.policy.settings import control_settings, output_names
from omnistream.replay.commands import recorded_commands
from omnistream.replay.ideal import Ideal, sources
from omnistream.replay.lockstep import LockStep, wanted
from omnistream.replay.parameters import complete, read_parameter_file
from omnistream.replay.pictures import BagPictures
from omnistream.replay.seeing import SeeingAgain
from omnistream.replay.track import Track, spread

LOCK_STEP, IDEAL = "lock step", "idealised"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to replay."""

    bag: Path
    log: Path | None = None
    perception: Path | None = None
    """Run log of the perception node."""
    params: Path | None = None
    node: str = "/policy"
    changes: dict[str, Any] = field(default_factory=dict)
    """Parameters that win over log and file."""
    instruction: str | None = None
    latency: float = 0.05
    """s; without a log."""


@dataclass(frozen=True, eq=False)
class Result:
    """Of a replay."""

    mode: str
    report: dict[str, Any]
    track: Track | None
    """None of perception alone."""
    names: dict[str, list[str]]
    """Output -> name of each of its numbers."""
    equal: bool | None
    """To the live run; None where there is nothing to compare with, or other weights were asked for."""


def replay(job: Job, say: Callable[[str, str], object], step: Callable[[], Any]) -> Result:
    """Do it. say: told what it works with, by a word and a sentence; step: called after each message or line.

    Raises InputError (bag, log), ConfigError, CheckpointError, ContractError, EngineError.
    """
    if not is_bag(job.bag):
        raise ConfigError(f"{job.bag} is no bag; expected a folder of one, .mcap or .db3")
    if job.log is None and job.perception is None:
        return _idealise(job, say, step)
    if job.perception is None:
        return _follow(job, say, step)
    with _seeing(job, say, step) as seeing:
        return _look(job, seeing) if job.log is None else _follow(job, say, step, seeing)


def _seeing(job: Job, say: Callable[[str, str], object], step: Callable[[], Any]) -> SeeingAgain:
    assert job.perception is not None
    run = read_run_log(job.perception)
    seeing = SeeingAgain(run, job.bag, {n: v for n, v in job.changes.items() if n != "policy"}, step)
    counts = ", ".join(f"{count} on {topic}" for topic, count in seeing.pictures.counts.items())
    say("bag", f"{job.bag.name}: {counts}")
    say("mode", f"{LOCK_STEP} with the run log {job.perception.name} of {run.header.get('node')}")
    say("model", f"{run.header['model']} ({run.header.get('engine')})")
    return seeing


def _look(job: Job, seeing: SeeingAgain) -> Result:
    """Perception alone."""
    report = _perception(seeing) | {"mode": LOCK_STEP, "bag": job.bag.name}
    return Result(LOCK_STEP, report, None, {}, None if "weights" in job.changes else report["perception"]["equal"])


def _perception(seeing: SeeingAgain) -> dict[str, Any]:
    """All that is left of the log, and its report."""
    seen, run = seeing.finish(), seeing.run_log
    live = run.events[-1].get("hash") if run.ended else None
    return {
        "perception": {
            "log": run.path.name,
            "images": seen.images,
            "images_not_in_bag": seen.not_in_bag,
            "images_failed_live": seen.failed,
            "resets": dict(seen.resets),
            "different": seen.different,
            "first_difference": seen.first or None,
            "result_hash": seen.hashes,
            "live_hash": live,
            "equal": not seen.first and (live is None or live == seen.hashes),
            "differs_from_live": _otherwise(run, seeing.identity | circumstances()),
        },
        "messages_in_bag": seeing.pictures.counts,
        "lost": [*seeing.pictures.lost, *run.lost],
        "notes": [],
    }


def _follow(
    job: Job, say: Callable[[str, str], object], step: Callable[[], Any], seeing: SeeingAgain | None = None
) -> Result:
    assert job.log is not None
    run = read_run_log(job.log)
    topics, keys = wanted(run)
    pictures: BagPictures | SeeingAgain
    if seeing is None:
        pictures = BagPictures(job.bag, topics, keys)
        say("bag", f"{job.bag.name}: " + ", ".join(f"{n} on {t}" for t, n in pictures.counts.items()))
    else:
        pictures = seeing
        if missing := set(topics) - set(seeing.feature_topics):
            raise ConfigError(
                f"the policy read {', '.join(missing)}; the perception node of {seeing.run_log.path.name} has "
                f"{', '.join(seeing.feature_topics)}"
            )
    with pictures:
        began, node = run.header.get("began"), run.header.get("node")
        say("mode", f"{LOCK_STEP} with the run log {job.log.name} of {node}, {began}")
        parameters = complete(run.header.get("parameters", {}), job.changes)
        mind, drive = _open(parameters, say)
        here = LockStep(run, pictures, mind, drive)
        here.run(step)
        seen = {} if seeing is None else _perception(seeing)
        bag = pictures.pictures if isinstance(pictures, SeeingAgain) else pictures
        lost = list(dict.fromkeys([*bag.lost, *run.lost, *seen.get("lost", [])]))
    comparison, track = here.comparison, here.track
    equal = drive.left.hex == run.hash if run.hash else drive.left.messages == 0
    here_is = identity(mind.session)
    others = _otherwise(run, here_is)
    replaced = "policy" in job.changes and run.header.get("policy_sha256") != here_is["policy_sha256"]
    live_ms = [event["ms"] for event in run.events if event["event"] == "think" and event["result"] == "chunk"]
    report = {
        "live": {
            "log": job.log.name,
            "node": node,
            "began": began,
            "closed": run.ended,
            "command_hash": run.hash,
            "inference_ms": spread(live_ms),
        },
        "equal": equal,
        "compared": comparison.compared,
        "different": comparison.different,
        "first_difference": comparison.first or None,
        "largest_difference": comparison.largest,
        "predictions": comparison.chunks,
        "predictions_different": comparison.chunks_different,
        "observations_not_in_bag": len(comparison.not_in_bag),
        "differs_from_live": others,
    }
    outputs = run.header.get("outputs", {})
    report["recorded_commands"] = recorded_commands(job.bag, outputs, track.sent)
    if seen:
        report["perception"] = seen["perception"]
        equal = equal and seen["perception"]["equal"]
    return _result(LOCK_STEP, job, report, track, bag.counts, lost, None if replaced else equal)


def _idealise(job: Job, say: Callable[[str, str], object], step: Callable[[], Any]) -> Result:
    given = {} if job.params is None else read_parameter_file(job.params, job.node)
    parameters = complete(given, job.changes)
    policy = open_policy(parameters)
    intake = Intake(parameters, policy.contract, policy.shape.state > 0)
    where = sources(parameters, intake, job.node)
    say("bag", f"{job.bag.name}: pictures on {', '.join(where.pictures)}")
    say("mode", f"{IDEAL}: no run log; each inference takes {1e3 * job.latency:g} ms, nothing comes late")
    mind, drive = _open(parameters, say, policy)
    here = Ideal(
        job.bag,
        where,
        intake,
        mind,
        drive,
        execute=parameters["execute"],
        latency=job.latency,
        instruction=job.instruction,
        max_failures=parameters["max_failures"],
    )
    lost = here.run(step)
    report = {"latency_s": job.latency, "instruction": job.instruction, "dropped_messages": dict(intake.drops)}
    return _result(IDEAL, job, report, here.track, here.counts, lost, None)


def _open(
    parameters: dict[str, Any], say: Callable[[str, str], object], policy: LoadedPolicy | None = None
) -> tuple[Mind, Drive]:
    """As the node's configure does."""
    policy = policy or open_policy(parameters)
    settings = control_settings(parameters, policy.contract)
    outbox = Outbox(settings, output_names(parameters, settings), parameters["trajectory_velocities"])
    mind = Mind(open_session(policy, parameters))
    engines = ", ".join(mind.session.engines) or "no backbone of its own"
    say("policy", f"{parameters['policy']} ({parameters['source']}; {engines})")
    return mind, Drive(settings, outbox)


def _result(
    mode: str,
    job: Job,
    report: dict[str, Any],
    track: Track,
    counts: dict[str, int],
    lost: list[str],
    equal: bool | None,
) -> Result:
    head = {"mode": mode, "bag": job.bag.name, "messages_in_bag": counts, "lost": lost, "notes": track.notes}
    return Result(mode, head | track.report() | report, track, _names(track), equal)


def _otherwise(run: RecordedRun, here: dict[str, Any]) -> list[str]:
    """What is not as it was live, and may change bits: sentences. here: as in the log's header."""
    found = []
    for name, value in here.items():
        live = run.header.get(name)
        pairs = {name: (value, live)}
        if isinstance(value, dict):
            pairs = {key: (item, (live or {}).get(key)) for key, item in value.items() if key != "omnistream"}
        for key, (mine, theirs) in pairs.items():
            if mine != theirs:
                found.append(f"{key.removesuffix('_sha256')} is {mine}, live {theirs}")
    return found


def _names(track: Track) -> dict[str, list[str]]:
    """Of the numbers of each output."""
    settings = track.drive.control.settings
    action = settings.contract.action
    arm = [settings.contract.action_names[i] for i in action.arm]
    axes = ["x", "y", "z"]
    names = {
        "twist": [*axes, "about x", "about y", "about z"],
        "pose": [*axes, "qx", "qy", "qz", "qw"],
        "joint_trajectory": arm,
        "action": list(settings.contract.action_names),
    }
    outputs = track.drive.outbox.outputs
    return {output: names.get(output, [""]) if not output.startswith(GRIPPER) else [""] for output in outputs}
