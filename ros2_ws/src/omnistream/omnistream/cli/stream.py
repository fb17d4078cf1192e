# SPDX-License-Identifier: Apache-2.0
"""`omnistream-stream`: a recording through the model, without ROS.

exit codes: 0 done; 2 wrong usage (an option is wrong, or does not go with this input or checkpoint); 3 the input cannot
be read; 4 the checkpoint cannot be used; 5 it cannot run here (engine, device, memory, missing package); 6 the results
cannot be written; 130 interrupted (what was done by then is kept)
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from omnistream.cli.exits import INPUT, INTERRUPTED, OK, Exits
from omnistream.errors import ConfigError
from omnistream.io.results_folder import PRODUCTS, REPORT, SHEET, existing_results, remove_results

if TYPE_CHECKING:
    from omnistream.cli.stream_run import Summary

MADE_BY = "omnistream-stream"
MAX_THREADS = 1024
"""More than any machine has cores; far above that, OpenMP brings the process down instead of refusing."""
EXITS = Exits(MADE_BY)


@dataclass(frozen=True)
class Options:
    """What to stream, through what, and what to keep."""

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """A video, an image, a folder of images, a recording folder, or a rosbag2 (folder, .mcap, .db3)."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Folder for the results. It is made; results of an earlier run in it are an error without --overwrite."""
    weights: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Checkpoint. Default: the shipped weights, or a small model with random ones, whose depth means nothing."""
    policy: Annotated[str, tyro.conf.arg(metavar="POLICY")] = "sink_window:1,15"
    """What stays in the cache: full:N, window:W or sink_window:S,W (frames)."""
    size: Annotated[str | None, tyro.conf.arg(metavar="S|HxW")] = None
    """Pixels the network sees: a side S for about S*S in the image's aspect ratio, or HEIGHTxWIDTH."""
    save: Annotated[str, tyro.conf.arg(metavar="LIST")] = "depth,poses,sheet"
    """What to write, of: depth, poses, features, points, sheet, rrd."""
    max_frames: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Stop after so many frames of the input."""
    time_base: Literal["index", "stamps"] = "index"
    """Time for the model: the number of the frame, or its stamp (then missing frames are felt)."""
    max_gap: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 1.0
    """Seconds without a frame after which the stream starts anew (time base index)."""
    topic: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Image topic of a bag that has several."""
    pattern: Annotated[str | None, tyro.conf.arg(metavar="GLOB")] = None
    """Which files of a folder, as in 'frame-*.color.jpg'."""
    rate: Annotated[float | None, tyro.conf.arg(metavar="HZ")] = None
    """Frames per second, if the input does not know or is wrong."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do about an unreadable frame: stop there, or count it and go on."""
    engine: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """What runs the model; `omnistream-info` lists the engines of this machine."""
    device: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Precision of the model; auto takes what is fast here."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """CPU threads of the model, 1 to 1024; default: torch's choice."""
    view: bool = False
    """Show the stream in the Rerun viewer while it runs."""
    overwrite: bool = False
    """Remove the results of an earlier run from DIR first."""

    def check(self) -> None:
        """ConfigError for a number that is out of range, whatever the input is."""
        if self.max_frames is not None and self.max_frames < 1:
            raise ConfigError(f"--max-frames is {self.max_frames}; expected at least 1")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ConfigError(f"--rate is {self.rate}; expected frames per second above 0")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"--threads is {self.threads}; expected 1 to {MAX_THREADS}")

    def products(self) -> tuple[str, ...]:
        """--save as names; ConfigError for an unknown one."""
        names = tuple(dict.fromkeys(word for word in re.split(r"[,\s]+", self.save) if word))
        unknown = [name for name in names if name not in PRODUCTS]
        if unknown or not (names or self.view):
            raise ConfigError(f"--save {self.save!r}: expected some of {','.join(PRODUCTS)}")
        return names

    def image_size(self) -> int | tuple[int, int] | None:
        """--size as StreamSession takes it; ConfigError if it is neither S nor HxW."""
        if self.size is None:
            return None
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", self.size)
        if not match:
            raise ConfigError(f"--size {self.size!r}: expected a side such as 224, or HEIGHTxWIDTH such as 192x256")
        return (int(match[1]), int(match[2])) if match[2] else int(match[1])


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = tyro.cli(Options, args=argv, prog=MADE_BY, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,))
    return EXITS.run(lambda: _run(options), options.out)


def _run(options: Options) -> int:
    options.check()
    products, image_size, out = options.products(), options.image_size(), _out_folder(options)
    from omnistream.io import open_source

    source = open_source(
        options.input, topic=options.topic, pattern=options.pattern, rate=options.rate, on_error=options.on_error
    )
    print(f"input   {source.description}", flush=True)
    _make_room(out, options.overwrite)

    from omnistream.cli.stream_run import StreamRun  # torch: after all that can fail without it

    run = StreamRun(source, out, products, asdict(options), image_size)
    print(f"model   {run.model_words}", flush=True)
    summary = run.run()
    print(_table(summary, out))
    if summary.state == "interrupted":
        return EXITS.fail(INTERRUPTED, "interrupted; what was done by then is kept")
    return EXITS.fail(INPUT, summary.error) if summary.error else OK


def _out_folder(options: Options) -> Path:
    """--out; ConfigError where results would be taken for input by the next run."""
    from omnistream.io.files import IMAGE_SUFFIXES

    if not options.out.strip():
        raise ConfigError("--out is empty; expected a folder for the results")
    out, input_ = Path(options.out), Path(os.path.expanduser(options.input))
    if out.exists() and input_.exists() and out.samefile(input_):
        raise ConfigError(f"--out {out} is the input; choose another folder")
    if out.is_dir():
        found = (path.name for path in out.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        pictures = sorted(name for name in found if name != SHEET)
        if pictures:
            raise ConfigError(f"--out {out} holds images, {pictures[0]} for one; choose another folder")
    return out


def _make_room(out: Path, overwrite: bool) -> None:
    """Refuse a folder with results in it, or clear it of ours. Results without our report may be somebody else's."""
    from omnistream.io.recording import HEADER

    if (out / HEADER).exists():
        raise ConfigError(f"--out {out} is a recording; choose another folder")
    found = existing_results(out)
    if found and not overwrite:
        raise ConfigError(f"--out {out} holds results: {', '.join(found)}; add --overwrite or choose another folder")
    if found:
        try:
            ours = json.loads((out / REPORT).read_text()).get("made_by") == MADE_BY
        except (OSError, ValueError, AttributeError):
            ours = False
        if not ours:
            raise ConfigError(f"--out {out} holds {', '.join(found)}, but no {REPORT} of ours; choose another folder")
        remove_results(out)


def _table(summary: Summary, out: Path) -> str:
    """The result for a person."""
    dropped = ", ".join(f"{reason} {count}" for reason, count in summary.drops.items()) or "none"
    resets = ", ".join(f"{reason} {count}" for reason, count in summary.resets.items()) or "none"
    lines = [
        "",
        f"frames  {summary.stepped} streamed of {summary.read} read; dropped: {dropped}; resets: {resets}",
        f"rate    {summary.rate:.1f} frames/s in all, {summary.model_rate:.1f} frames/s by the model alone",
        f"cache   {summary.cache_frames} of {summary.cache_slots} frames, {summary.cache_bytes / 2**20:.1f} MiB",
        "",
        f"{'latency, ms':<14}{'p50':>9}{'p99':>9}{'max':>9}",
    ]
    for stage, numbers in summary.latency_ms.items():
        lines.append(f"  {stage:<12}{numbers['p50']:>9.1f}{numbers['p99']:>9.1f}{numbers['max']:>9.1f}")
    lines += ["", *(f"note: {note}" for note in summary.notes)]
    lines += [f"wrote {', '.join([*summary.files, REPORT])} in {out}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
