# SPDX-License-Identifier: Apache-2.0
"""`omnistream-replay`: a bag again through the code of the policy node, without ROS, one message after the other.

With --log, the run log that the live node wrote (its parameter run_log), every control tick and every inference is made
again with what it used live, and the commands must be the same bit by bit. Without one, the bag runs through the node
as it would be if nothing ever came late: inferences take --latency. Either way the same input gives the same hash.

    omnistream-replay run/ --log LOG                      did a change of code, or of machine, alter the commands?
    omnistream-replay run/ --log LOG --policy other/      what would the other policy have done?
    omnistream-replay run/ --log LOG --perception PLOG    the policy read perception's features: both nodes again
    omnistream-replay run/ --perception PLOG              perception alone
    omnistream-replay run/ --params robot.yaml --instruction "open the drawer" --plot commands.svg

exit codes: 0 done, and equal to the live run where there was one (with another --policy it need not be); 1 not equal to
it; 2 wrong usage (an option is wrong, or does not go with this bag); 3 bag, log or parameter file cannot be read; 4 the
policy or its backbone cannot be used; 5 it cannot run here; 6 the results cannot be written; 130 interrupted
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from omnistream.cli.exits import OK, Exits
from omnistream.cli.report import environment, write_report
from omnistream.errors import ConfigError

if TYPE_CHECKING:
    from omnistream.replay.run import Job, Result

MADE_BY = "omnistream-replay"
DIFFERENT = 1
"""Exit code: not equal to the live run."""
EXITS = Exits(MADE_BY)


@dataclass(frozen=True)
class Options:
    """What to replay, and what to keep of it."""

    bag: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BAG")]
    """A rosbag2 (folder, .mcap, .db3) with the pictures, or features, that the node read. It may be damaged."""
    log: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Run log of the live node. Its parameters hold, but for those given here."""
    perception: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Run log of the perception node: its results again, alone or, with --log, as what the policy read."""
    params: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Parameter file of the node, where there is no log. What it does not say has the node's default."""
    node: Annotated[str, tyro.conf.arg(metavar="NAME")] = "/policy"
    """Name of the node in that file; topics without a leading / are beside it."""
    policy: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Directory of the policy. Default: that of log or file."""
    weights: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Checkpoint of the backbone. Default: that of log or file."""
    engine: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """What runs the backbone. Default: as live; another gives other bits."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """auto, cpu, cuda or cuda:N. Default: as live."""
    instruction: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """What to do from the beginning, where there is no log. Default: what the bag has on ~/instruction."""
    latency: Annotated[float, tyro.conf.arg(metavar="MS")] = 50.0
    """Milliseconds that an inference takes, where there is no log."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write all numbers there, as JSON."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw what left over time there, as SVG."""

    def job(self) -> Job:
        """ConfigError for options that contradict each other."""
        from omnistream.replay.run import Job

        if self.log is not None or self.perception is not None:
            for name in ("params", "instruction"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"--{name} and a run log: the log says that already; leave one of them out")
        elif self.params is None and self.policy is None:
            raise ConfigError("neither --log nor --params nor --policy: which policy?")
        if self.plot is not None and self.plot.suffix.lower() != ".svg":
            raise ConfigError(f"--plot {self.plot}: expected a name that ends in .svg")
        if not 0 <= self.latency <= 60_000:
            raise ConfigError(f"--latency is {self.latency}; expected milliseconds from 0 to 60000")
        given = {name: getattr(self, name) for name in ("policy", "weights", "engine", "device")}
        node = self.node if self.node.startswith("/") else f"/{self.node}"
        return Job(
            bag=self.bag.expanduser(),
            log=self.log,
            perception=self.perception,
            params=self.params,
            node=node,
            changes={name: value for name, value in given.items() if value is not None},
            instruction=self.instruction,
            latency=self.latency / 1e3,
        )


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = tyro.cli(Options, args=argv, prog=MADE_BY, description=__doc__)
    return EXITS.run(lambda: _run(options))


def _run(options: Options) -> int:
    job = options.job()
    from omnistream.cli.progress import Progress  # torch and rosbags: after all that can fail without them
    from omnistream.replay.run import replay

    def say(word: str, sentence: str) -> None:
        print(f"{word:<9}{sentence}", flush=True)

    with Progress(None, "lines" if job.log or job.perception else "messages") as progress:
        result = replay(job, say, progress.step)
    if options.report is not None:
        write_report(options.report, {"made_by": MADE_BY} | result.report | {"environment": environment()})
    if options.plot is not None and result.track is not None:
        from omnistream.io.files import write_bytes
        from omnistream.replay.plot import command_plot

        subtitle = f"{result.mode}; {result.report['command_hash'][:16]}; red: stop commands"
        title = f"What left: {job.bag.name}"
        svg = command_plot(result.track.sent, result.names, title=title, subtitle=subtitle)
        write_bytes(options.plot, svg.encode())
    print(table(result))
    return DIFFERENT if result.equal is False else OK


def table(result: Result) -> str:
    """For people."""
    r = result.report
    extra = [f"lost: {sentence}" for sentence in r["lost"]] + [f"note: {sentence}" for sentence in r["notes"]]
    if result.track is None:
        return "\n".join(["", *_perception(r), "", *extra]).rstrip()
    kinds = ", ".join(f"{count} {name}" for name, count in r["observations_by_result"].items()) or "none"
    lines = ["", f"observed {r['observations']} ({kinds})"]
    lines.append(
        f"sent     {r['commands']['move']} commands that move, {r['commands']['stop']} stops, {r['ticks']} ticks"
    )
    for word, name in (("stops", "stops"), ("cut", "clamps"), ("refused", "refused_chunks")):
        if r[name]:
            lines.append(f"{word:<9}" + ", ".join(f"{reason} {count}" for reason, count in r[name].items()))
    rows = {"age of the picture": r["picture_age_ms"], "inference, here": r["inference_ms_here"]}
    if "live" in r:
        rows["inference, live"] = r["live"]["inference_ms"]
    lines += ["", f"{'ms':<20}{'p50':>9}{'p99':>9}{'max':>9}"]
    lines += [f"  {name:<18}" + "".join(f"{row[k]:>9.1f}" for k in row) for name, row in rows.items() if row]
    lines += ["", *(_perception(r) if "perception" in r else [])]
    lines += [f"hash     {r['command_hash']}", *_verdict(result), ""]
    return "\n".join([*lines, *extra]).rstrip()


def _perception(report: dict[str, Any]) -> list[str]:
    p = report["perception"]
    resets = ", ".join(f"{reason} {count}" for reason, count in p["resets"].items()) or "none"
    lines = [f"images   {p['images']} stepped; resets: {resets}"]
    lines += [f"hash     {value}  {camera}".rstrip() for camera, value in p["result_hash"].items()]
    if p["equal"]:
        return [*lines, "live     equal: every result, bit by bit"]
    lines.append(
        f"live     NOT EQUAL: {p['different']} of {p['images']} differ, {p['images_not_in_bag']} not in the bag"
    )
    return [
        *lines,
        f"         first: {p['first_difference']}",
        *(f"         {line}" for line in p["differs_from_live"]),
    ]


def _verdict(result: Result) -> list[str]:
    r: dict[str, Any] = result.report
    if "live" not in r:
        return ["         idealised: no live run to compare with"]
    lines = []
    if r["equal"]:
        lines.append(f"live     equal: {r['compared']} commands, bit by bit")
    else:
        asked = " (but other weights were asked for)" if result.equal is None else ""
        lines.append(f"live     {r['live']['command_hash']}: NOT EQUAL{asked}")
        lines.append(f"         {r['different']} of {r['compared']} differ, by {r['largest_difference']:.3g} at most")
        lines.append(f"         first: {r['first_difference']}")
        lines += [f"         {sentence}" for sentence in r["differs_from_live"]]
    for output, counts in r["recorded_commands"].items():
        lines.append(f"bag      {output}: {counts['equal']} of {counts['in_bag']} recorded messages are equal")
    return lines


if __name__ == "__main__":
    sys.exit(main())
