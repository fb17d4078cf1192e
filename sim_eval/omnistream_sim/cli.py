# SPDX-License-Identifier: Apache-2.0
"""`omnistream-sim`: what the simulators make.

exit codes: 0 done; 1 something is missing or in the way, or episodes could not be run; 2 wrong usage; 130 stopped
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from omnistream.errors import ConfigError, OmniStreamError
from omnistream_sim.calvin.commands import COMMANDS as CALVIN
from omnistream_sim.command_line import Folder, resumable, to_stderr
from omnistream_sim.evaluation.commands import COMMANDS as BENCHMARKS
from omnistream_sim.tabletop.task_commands import COMMANDS as TABLETOP

Label = Literal["normals", "ids", "scene_flow", "flow"]


def recording(out: Folder, /, *, frames: int = 120, width: int = 640, height: int = 480, quality: str = "fine") -> None:
    """Render the furnished room of the demo as a recording folder, with depth and poses.

    Args:
        out: The folder to write.
        frames: Pictures of the walk, at 30 Hz.
        width: Pixels.
        height: Pixels.
        quality: Tier of the pictures: flat, fast, soft or fine.
    """
    from omnistream_sim.dataset import Progress
    from omnistream_sim.worlds.quality import quality_of
    from omnistream_sim.worlds.recording import RecordingOptions, shipped_recording

    options = RecordingOptions(frames=frames, width=width, height=height, quality=quality_of(quality))
    shipped_recording(out, options, Progress(to_stderr, "frames"))
    print(f"{out}: {frames} frames, {_size(out)}")


def generate_worlds(
    out: Folder,
    /,
    *,
    clips: int,
    frames: int = 16,
    size: int = 128,
    width: int | None = None,
    rate: float = 10.0,
    seed: int = 0,
    shards: int = 0,
    labels: tuple[Label, ...] = (),
    workers: int = 1,
    options: tuple[str, ...] = (),
) -> None:
    """Write a data set of random worlds: a folder of recordings, or WebDataset shards. A stopped run goes on.

    Args:
        out: The folder to write.
        clips: How many.
        frames: Pictures per clip.
        size: Height in pixels, and width if --width is not given.
        width: Pixels.
        rate: Pictures per second.
        seed: Data sets of different seeds have no clip in common.
        shards: Clips per WebDataset shard; 0 writes recordings.
        labels: Also write these.
        workers: Rendering threads.
        options: NAME=VALUE of the world configuration, such as tabletop=1 or min_path=1.
    """
    from omnistream_sim.dataset import Progress, generate
    from omnistream_sim.worlds.config import WorldConfig
    from omnistream_sim.worlds.dataset import WorldsDataset

    wanted = WorldsDataset(
        clips=clips,
        frames=frames,
        size=(size, width or size),
        rate=rate,
        seed=seed,
        shards=shards,
        labels=labels,
        worlds=WorldConfig.from_options(_pairs(options)),
    )
    with resumable():
        made = generate(out, wanted, workers=workers, progress=Progress(to_stderr, "clips", frames))
    print(f"{out}: {clips} clips of {frames} frames, {made} of them new, {_size(out)}")


def generate_tabletop(
    out: Folder,
    /,
    *,
    clips: int,
    frames: int = 64,
    size: int = 128,
    width: int | None = None,
    rate: float = 30.0,
    seed: int = 0,
    scene: Literal["shipped", "random"] = "shipped",
    shards: int = 0,
    workers: int = 1,
    options: tuple[str, ...] = (),
) -> None:
    """Write a data set of a camera flying about the tabletop: recordings, or WebDataset shards. A stopped run goes on.

    Args:
        out: The folder to write.
        clips: How many.
        frames: Pictures per clip.
        size: Height in pixels, and width if --width is not given.
        width: Pixels.
        rate: Pictures per second.
        seed: Data sets of different seeds have no clip in common.
        scene: Our table as it is, or random measures, textures, colours, light and lens.
        shards: Clips per WebDataset shard; 0 writes recordings.
        workers: Rendering processes.
        options: NAME=VALUE of the tabletop configuration, such as min_path=1 or shadow=0.
    """
    from omnistream_sim.dataset import Progress, generate
    from omnistream_sim.tabletop.config import TabletopConfig
    from omnistream_sim.tabletop.dataset import TabletopDataset

    wanted = TabletopDataset(
        clips=clips,
        frames=frames,
        size=(size, width or size),
        rate=rate,
        seed=seed,
        shards=shards,
        tabletop=TabletopConfig.from_options({"scene": scene} | _pairs(options)),
    )
    with resumable():
        made = generate(out, wanted, workers=workers, progress=Progress(to_stderr, "clips", frames))
    print(f"{out}: {clips} clips of {frames} frames, {made} of them new, {_size(out)}")


def view_worlds(
    *, out: Path = Path("build/worlds.png"), clips: int = 12, seed: int = 0, size: int = 128, quality: str = "soft"
) -> None:
    """Write a picture of random clips: three pictures each, then depth, normals, ids and optical flow.

    Args:
        out: PNG file to write.
        clips: How many.
        seed: Which.
        size: Pixels per picture.
        quality: Tier of the pictures: flat, fast, soft or fine.
    """
    from omnistream_sim.worlds.config import WorldConfig
    from omnistream_sim.worlds.sheet import contact_sheet

    _save_sheet(out, *contact_sheet(WorldConfig(quality=quality), clips=clips, seed=seed, size=size))


def view_tabletop(
    *,
    out: Path = Path("build/tabletop.png"),
    clips: int = 8,
    seed: int = 0,
    size: int = 128,
    scene: Literal["shipped", "random"] = "shipped",
) -> None:
    """Write a picture of the tabletop: three pictures of the free camera, a depth, the environment's two cameras.

    Args:
        out: PNG file to write.
        clips: How many.
        seed: Which.
        size: Pixels per picture.
        scene: Our table as it is, or random measures, textures, colours, light and lens.
    """
    from omnistream_sim.tabletop.sheet import contact_sheet

    _save_sheet(out, *contact_sheet(scene, clips=clips, seed=seed, size=size))


def bench_worlds(
    *,
    out: Path = Path("build/bench_worlds.json"),
    size: int = 128,
    frames: int = 8,
    clips: int = 32,
    repeats: int = 3,
    device: str = "cpu",
    backend: Literal["auto", "native", "torch"] = "auto",
) -> None:
    """Frames per second of every tier, on one thread.

    Args:
        out: JSON report to write.
        size: Pixels per side.
        frames: Pictures per clip.
        clips: Clips rendered together.
        repeats: Times each row is measured.
        device: cpu, cuda or cuda:N.
        backend: auto, native (compiled loops on the CPU) or torch.
    """
    from omnistream_sim.worlds.bench import bench

    _save_bench(out, bench(size=size, frames=frames, clips=clips, repeats=repeats, device=device, backend=backend))


def bench_tabletop(
    *, out: Path = Path("build/bench_tabletop.json"), size: int = 128, frames: int = 64, clips: int = 4
) -> None:
    """Frames per second of the free camera, and steps per second of the environment, on one core.

    Args:
        out: JSON report to write.
        size: Pixels per side.
        frames: Pictures per clip.
        clips: Clips per row.
    """
    from omnistream_sim.tabletop.bench import bench

    _save_bench(out, bench(size=size, frames=frames, clips=clips))


COMMANDS: dict[str, Any] = {
    "recording": recording,
    "generate worlds": generate_worlds,
    "generate tabletop": generate_tabletop,
    "bench worlds": bench_worlds,
    "bench tabletop": bench_tabletop,
    "view worlds": view_worlds,
    "view tabletop": view_tabletop,
    **BENCHMARKS,
    **CALVIN,
    **TABLETOP,
}


def main(args: list[str] | None = None) -> int:
    """Entry point; returns the exit code, and raises SystemExit(2) for wrong usage."""
    words = list(sys.argv[1:] if args is None else args)
    if len(words) > 1 and " ".join(words[:2]) in COMMANDS:  # two words name one command
        words[:2] = [" ".join(words[:2])]
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="omnistream-sim", description=__doc__, args=words)
    except (ValueError, OSError) as error:
        print(f"omnistream-sim: {error}", file=sys.stderr)
        blocked = isinstance(error, (OmniStreamError, OSError)) and not isinstance(error, ConfigError)
        return 1 if blocked else 2
    return 0


def _pairs(options: tuple[str, ...]) -> dict[str, object]:
    """Names and values of NAME=VALUE. Raises ConfigError for anything else."""
    pairs = [option.partition("=") for option in options]
    bad = [name for name, equals, _ in pairs if not equals]
    if bad:
        raise ConfigError(f"option {bad[0]!r}; expected NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _save_sheet(out: Path, sheet: NDArray[np.uint8], texts: Sequence[str]) -> None:
    from PIL import Image

    from omnistream.io.files import replacing

    with replacing(out) as temporary:
        Image.fromarray(sheet).save(temporary)
    for number, text in enumerate(texts):
        print(f"{number}: {text}")
    print(out)


def _save_bench(out: Path, report: dict[str, Any]) -> None:
    from omnistream.cli.report import environment, write_report

    write_report(out, report | {"environment": environment()})
    for name, row in report["rows"].items():
        print(f"{name:36} {row['frames_per_s']:>8.0f} frames/s {row['ms_per_frame']:>10.3f} ms")
    print(out)


def _size(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 2**20:.1f} MiB"


if __name__ == "__main__":
    raise SystemExit(main())
