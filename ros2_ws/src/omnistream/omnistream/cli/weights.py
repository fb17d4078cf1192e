# SPDX-License-Identifier: Apache-2.0
"""`omnistream-weights`: import foreign checkpoints, look into one, make one with random weights or between two others.

Exit status: 0 done; 1 refused (the reason is on stderr, nothing was written); 2 wrong usage.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from omnistream.weights import Checkpoint

Dtype = Literal["float32", "float16", "bfloat16"]
Source = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
Destination = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
Path = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
DINOV3_NOTE = "These weights derive from DINOv3; their use and redistribution are subject to Meta's DINOv3 License."


def import_(
    source: Source,
    destination: Destination,
    /,
    *,
    dtype: Dtype = "float32",
    overwrite: bool = False,
) -> None:
    """Convert a checkpoint into our format.

    Args:
        source: A released OmniStream directory, a transformers DINOv3 directory, a DINOv3 .safetensors or .pth file
            (Meta's naming; read weights-only), or a checkpoint of ours.
        destination: The directory to write.
        dtype: Precision on disk; in memory it is always float32.
        overwrite: Replace an existing checkpoint of ours.
    """
    from omnistream.weights import import_checkpoint

    written = import_checkpoint(source, destination, dtype=dtype, overwrite=overwrite)
    print(_summary(written))
    if str(written.info["parent"]["kind"]).startswith("dinov3"):
        print(DINOV3_NOTE)


def inspect(path: Path, /, *, tensors: bool = False) -> None:
    """Check a checkpoint completely (names, shapes, values, digest) and print what it is.

    Args:
        path: A checkpoint of any kind that `import` reads.
        tensors: Also list every tensor in the file.
    """
    from omnistream.weights import open_checkpoint

    checkpoint = open_checkpoint(path, allow_pth=True)
    print(_summary(checkpoint))
    if tensors:
        for name, info in checkpoint.source.tensors.items():
            print(f"  {name:60} {info.dtype:5} {'x'.join(map(str, info.shape))}")


def init(
    destination: Destination,
    /,
    *,
    preset: Literal["nano", "tiny", "small", "base", "large"] = "tiny",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Make a checkpoint with random weights, heads included: for trying things out and as a start for training.

    Args:
        destination: The directory to write.
        preset: Model size.
        seed: The same seed gives the same weights.
        overwrite: Replace an existing checkpoint of ours.
    """
    from omnistream.model.config import preset as preset_by_name
    from omnistream.weights import open_checkpoint, random_model, save_model

    made_by = f"omnistream-weights init --preset {preset} --seed {seed}"
    model = random_model(preset_by_name(preset), seed)
    print(_summary(open_checkpoint(save_model(model, destination, made_by=made_by, overwrite=overwrite))))


def average(
    first: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")],
    second: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="B")],
    destination: Destination,
    /,
    *,
    share: float = 0.5,
    dtype: Dtype = "float32",
    overwrite: bool = False,
) -> None:
    """Make (1 - share) A + share B. What was trained on from A, on data of its own, often keeps most of both so.

    Args:
        first: A checkpoint.
        second: One that was trained on from it.
        destination: The directory to write.
        share: Of B, from 0 to 1.
        dtype: Precision on disk; in memory it is always float32.
        overwrite: Replace an existing checkpoint of ours.
    """
    from omnistream.weights import average_checkpoints

    made_by = f"omnistream-weights average --share {share:g}"
    print(
        _summary(
            average_checkpoints(
                first, second, destination, share=share, dtype=dtype, made_by=made_by, overwrite=overwrite
            )
        )
    )


def main(args: list[str] | None = None) -> int:
    """Entry point; returns the exit status, and raises SystemExit(2) for wrong usage."""
    from omnistream.errors import OmniStreamError

    commands: dict[str, Any] = {"import": import_, "inspect": inspect, "init": init, "average": average}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="omnistream-weights", description=__doc__, args=args)
    except (OmniStreamError, OSError) as error:
        print(f"omnistream-weights: {error}", file=sys.stderr)
        return 1
    return 0


def _summary(checkpoint: Checkpoint) -> str:
    """Loads the model, so that what is printed has been checked to the last value."""
    from omnistream.weights import model_hash
    from omnistream.weights.shapes import describe

    model, config = checkpoint.model(), checkpoint.config
    backbone, infos = config.backbone, checkpoint.source.tensors.values()
    numbers = sum(p.numel() for p in model.parameters())
    on_disk = ", ".join(f"{count} {dtype}" for dtype, count in Counter(i.dtype for i in infos).most_common())
    size = sum(file.stat().st_size for file in checkpoint.source.files)
    time = "time" if backbone.temporal_rope else "no time"
    rows = {
        "kind": checkpoint.kind,
        "backbone": describe(backbone),
        "rotary": f"layout {backbone.rope_layout}, {time}, base {backbone.rope_base:g}; norm eps {backbone.norm_eps:g}",
        "outputs": ", ".join(config.outputs),
        "scale": config.scale,
        "camera token": "yes" if config.camera_token else "no",
        "input": f"about {config.image_size} x {config.image_size} pixels, mean {config.mean}, std {config.std}",
        "parameters": f"{numbers:,}",
        "on disk": f"{on_disk}; {size / 1e6:.1f} MB in {len(checkpoint.source.files)} file(s)",
        "model hash": model_hash(model),
    }
    if checkpoint.info:
        parent = checkpoint.info["parent"]
        rows["made by"] = f"{checkpoint.info['made_by']} (omnistream {checkpoint.info['made_with'].get('omnistream')})"
        rows["parent"] = f"{parent.get('kind')} {parent.get('name')}" if parent else "none"
    return "\n".join([str(checkpoint.path), *(f"  {name:13} {value}" for name, value in rows.items())])


if __name__ == "__main__":
    sys.exit(main())
