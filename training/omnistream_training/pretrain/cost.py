# SPDX-License-Identifier: Apache-2.0
"""What a pre-training run takes: arithmetic counted on networks without numbers (torch's meta device), weights counted,
and from both, days and memory on so many GPUs of such a speed. `omnistream-train cost`.

Counted are products of matrices and convolutions, forward as torch counts them and backward as twice that; attention
over the frames that a frame sees. Not counted: everything that is no product, communication, and waiting for data. How
much of a GPU's peak the step reaches is therefore an argument (--utilisation), until `pretrain.bench` has measured it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from omnistream.errors import ConfigError
from omnistream.heads.heads import Heads
from omnistream.model.backbone import Backbone
from omnistream.model.config import ModelConfig
from omnistream_training.config import Stage
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.presets import preset
from omnistream_training.ssl.config import GLOBALS, SslConfig
from omnistream_training.ssl.head import ProjectionHead

GIB = 2**30
BACKWARD = 2.0
"""Of forward: each product of matrices becomes two."""


@dataclass(frozen=True, kw_only=True)
class DecoderSizes:
    """Of a Qwen3: what its arithmetic follows from."""

    dim: int
    depth: int
    heads: int
    key_heads: int
    head_dim: int
    mlp: int
    vocabulary: int


QWEN3_06B = DecoderSizes(dim=1024, depth=28, heads=16, key_heads=8, head_dim=128, mlp=3072, vocabulary=151_936)
"""As its published config.json says."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One line of the bill, per micro-batch."""

    task: str
    what: str
    forward: float
    """FLOP of the forward passes."""
    factor: float
    """On `forward`: 3 where gradients are taken, 1 without."""
    recomputed: float = 0.0
    """FLOP that activation checkpointing adds: the blocks' forward passes once more."""

    @property
    def flop(self) -> float:
        """Without recomputing: what "model FLOP utilisation" is about."""
        return self.forward * self.factor


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Options of `omnistream-train cost`: what a run of a preset takes on so many GPUs."""

    preset: str = "paper_vitl_stage1"
    """Whose last stage is counted."""
    gpus: int = 64
    """Processes; each takes one micro-batch of a step."""
    peak: float = 989.0
    """TFLOP/s of a GPU in bfloat16 without sparsity, by its data sheet; 989: H100 and H200 (SXM)."""
    utilisation: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SHARE ...")] = (0.2, 0.3, 0.4)
    """Shares of the peak to reckon with, recomputing included."""
    text_tokens: int = 64
    """Tokens of a question and its answer, taken to be half and half."""

    def __post_init__(self) -> None:
        if self.gpus < 1 or not self.peak > 0 or self.text_tokens < 2:
            raise ConfigError(
                f"gpus {self.gpus}, peak {self.peak}, text_tokens {self.text_tokens}: expected 1 or more, above 0, "
                "2 or more"
            )
        if not self.utilisation or not all(0 < share <= 1 for share in self.utilisation):
            raise ConfigError(f"utilisation is {self.utilisation}; expected shares above 0, up to 1")


def bill(config: PretrainConfig, stage: Stage, text_tokens: int) -> list[Work]:
    """The arithmetic of one micro-batch, task by task."""
    model, ssl, weights = config.model.model_config(), config.ssl, config.weights
    lines: list[Work] = []
    for kind, count, frames in (("pictures", ssl.images, 1), ("clips", ssl.clips, ssl.frames)):
        if weights.ssl and count:
            lines += _self_supervision(model, ssl, f"SSL, {kind}", count, frames)
    if weights.geometry:
        seen = backbone_flop(model, stage.clips, stage.frames, stage.size)
        lines.append(Work(task="geometry", what="backbone", forward=seen, factor=1 + BACKWARD, recomputed=seen))
        heads = heads_flop(model, stage.clips, stage.frames, stage.size)
        lines.append(Work(task="geometry", what="heads", forward=heads, factor=1 + BACKWARD))
    if weights.caption:
        pictures, size = config.caption.pictures, config.caption.size
        seen = backbone_flop(model, pictures, 1, size)
        lines.append(Work(task="captions", what="backbone", forward=seen, factor=1 + BACKWARD, recomputed=seen))
        patches = size[0] * size[1] // model.backbone.patch_size**2
        decoder = pictures * decoder_flop(_decoder(config), model.backbone.dim, patches, text_tokens)
        lines.append(Work(task="captions", what="projector and decoder", forward=decoder, factor=1 + BACKWARD))
    return lines


def frames_of(config: PretrainConfig, stage: Stage) -> dict[str, int]:
    """Pictures that are read or rendered for a micro-batch, by task."""
    ssl, weights = config.ssl, config.weights
    found = {
        "SSL, pictures": ssl.images if weights.ssl else 0,
        "SSL, clips": ssl.clips * ssl.frames if weights.ssl else 0,
        "geometry": stage.clips * stage.frames if weights.geometry else 0,
        "captions": config.caption.pictures if weights.caption else 0,
    }
    return {task: count for task, count in found.items() if count}


def _self_supervision(model: ModelConfig, ssl: SslConfig, task: str, count: int, frames: int) -> list[Work]:
    large = (ssl.global_size, ssl.global_size)
    seen = backbone_flop(model, GLOBALS * count, frames, large)
    small = backbone_flop(model, ssl.local_crops * count, frames, (ssl.local_size, ssl.local_size))
    masked = _masked_patches(model, ssl, count, frames)
    head = ProjectionHead.matrix_size(model.backbone.dim, ssl.hidden, ssl.bottleneck, ssl.prototypes) * 2.0
    crops = (GLOBALS + ssl.local_crops) * count
    lines = [
        Work(task=task, what="student", forward=seen + small, factor=1 + BACKWARD, recomputed=seen + small),
        Work(task=task, what="student's heads", forward=head * (crops + masked), factor=1 + BACKWARD),
        Work(task=task, what="teacher", forward=seen, factor=1),
        Work(task=task, what="teacher's heads", forward=head * (GLOBALS * count + masked), factor=1),
    ]
    if ssl.gram:
        alone = backbone_flop(model, GLOBALS * count * frames, 1, large)
        lines.append(Work(task=task, what="anchor", forward=alone, factor=1))
    return lines


def _masked_patches(model: ModelConfig, ssl: SslConfig, count: int, frames: int) -> float:
    """Expected number in the large crops. Blocks of a tube mask fall anywhere: their union, as if independently."""
    patches = (ssl.global_size // model.backbone.patch_size) ** 2
    if frames == 1:
        return GLOBALS * count * ssl.mask_probability * sum(ssl.mask_ratio) / 2 * patches
    return sum(1 - (1 - area) ** blocks for blocks, area in ssl.tubes) * count * frames * patches


def backbone_flop(model: ModelConfig, clips: int, frames: int, size: tuple[int, int]) -> float:
    """Forward, of one clip on the meta device times the number of clips."""
    if not clips:
        return 0.0
    with torch.device("meta"):
        backbone = Backbone(model.backbone)
    images = torch.empty(1, frames, 3, *size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(images, camera_token=model.camera_token, keep_hidden=())
    return float(counter.get_total_flops() * clips)


def heads_flop(model: ModelConfig, clips: int, frames: int, size: tuple[int, int]) -> float:
    """Forward, all heads."""
    from omnistream.model.omnistream import OmniStream

    with torch.device("meta"):
        whole = OmniStream(model)
    images = torch.empty(1, frames, 3, *size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        whole(images, want=("depth", "rays", "pose"))
    return float(counter.get_total_flops() * clips) - backbone_flop(model, clips, frames, size)


def decoder_flop(sizes: DecoderSizes, dim: int, patches: int, text: int) -> float:
    """Forward for one picture: projector, decoder, and the vocabulary where an answer is predicted."""
    tokens, wide = patches + text, sizes.heads * sizes.head_dim
    projector = patches * (dim * sizes.dim + sizes.dim**2)
    layer = tokens * sizes.dim * (2 * wide + 2 * sizes.key_heads * sizes.head_dim + 3 * sizes.mlp)
    attention = 2 * tokens * tokens * wide
    return 2.0 * (projector + sizes.depth * (layer + attention) + text / 2 * sizes.dim * sizes.vocabulary)


def decoder_weights(sizes: DecoderSizes, dim: int) -> int:
    """Of projector and decoder, word embeddings and output layer being the same."""
    wide = sizes.heads * sizes.head_dim
    layer = sizes.dim * (2 * wide + 2 * sizes.key_heads * sizes.head_dim + 3 * sizes.mlp)
    return dim * sizes.dim + sizes.dim**2 + sizes.depth * layer + sizes.vocabulary * sizes.dim


def _decoder(config: PretrainConfig) -> DecoderSizes:
    """The random one, or Qwen3-0.6B for a directory."""
    own = config.caption.decoder
    if config.caption.language_model is not None:
        return QWEN3_06B
    return DecoderSizes(
        dim=own.dim,
        depth=own.depth,
        heads=own.heads,
        key_heads=own.key_heads,
        head_dim=own.dim // own.heads,
        mlp=own.mlp,
        vocabulary=257,
    )


def memory(config: PretrainConfig, gpus: int) -> dict[str, float]:
    """Bytes per process of what lasts from step to step, sharded over `gpus`; activations are not in it."""
    model, ssl = config.model.model_config(), config.ssl
    with torch.device("meta"):
        backbone = _count(Backbone(model.backbone))
        heads = _count(Heads(model.backbone.dim, model.heads)) if model.heads is not None else 0
    projection = 2 * ProjectionHead.matrix_size(model.backbone.dim, ssl.hidden, ssl.bottleneck, ssl.prototypes)
    projection = projection if config.weights.ssl else 0
    decoder = decoder_weights(_decoder(config), model.backbone.dim) if config.weights.caption else 0
    trained = backbone + heads + projection + decoder
    frozen = (backbone + projection + (backbone if ssl.gram else 0)) if config.weights.ssl else 0
    return {
        "weights, gradients, Adam's two moments": 16 * trained / gpus,
        "averaged weights": 4 * (backbone + heads) / gpus,
        "teacher and anchor": 4 * frozen / gpus,
    }


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def cost_text(options: Cost) -> list[str]:
    """The bill as text, for a terminal and for docs/scale.md."""
    config = preset(options.preset)
    stage = config.stages[-1]
    lines = bill(config, stage, options.text_tokens)
    flop, again = sum(line.flop for line in lines), sum(line.recomputed for line in lines)
    out = [f"{options.preset}, one micro-batch, {stage.size[0]} x {stage.size[1]}, counted", ""]
    out += _columns(
        ["task", "what", "forward TFLOP", "with gradients"],
        [[line.task, line.what, f"{line.forward / 1e12:.2f}", f"{line.flop / 1e12:.2f}"] for line in lines],
    )
    frames = frames_of(config, stage)
    out += [
        "",
        f"{flop / 1e12:.1f} TFLOP, and {again / 1e12:.1f} again for activation checkpointing; frames read: "
        + ", ".join(f"{count} {task}" for task, count in frames.items()),
        "",
        f"{options.gpus} GPUs of {options.peak:g} TFLOP/s, a micro-batch each, {stage.steps} steps: what follows if "
        "they reach",
        "",
    ]
    rows = []
    for share in options.utilisation:
        seconds = (flop + again) / (options.peak * 1e12 * share)
        days, read = seconds * stage.steps / 86_400, sum(frames.values()) * options.gpus / seconds
        rows.append([f"{share:.0%} of the peak", f"{seconds:.2f}", f"{days:.1f}", f"{days * 24 * options.gpus:,.0f}"])
        rows[-1].append(f"{read:,.0f}")
    out += _columns(["", "s per step", "days", "GPU hours", "frames/s to read"], rows)
    held = memory(config, options.gpus)
    out += ["", f"memory per GPU, sharded over {options.gpus}, without activations (not measured):"]
    out += [f"  {what}: {size / GIB:.2f} GiB" for what, size in held.items()]
    out.append(
        f"  together {sum(held.values()) / GIB:.2f} GiB; on one GPU {sum(memory(config, 1).values()) / GIB:.0f} GiB"
    )
    return out


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned; numbers to the right."""
    table = [list(heads), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
    numeric = [all(row[i][:1].isdigit() for row in rows) for i in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in table
    ]


def run_command(arguments: Sequence[str]) -> None:
    """Parse and print. ConfigError for an unknown preset."""
    options = tyro.cli(Cost, args=list(arguments), prog="omnistream-train cost", description=__doc__)
    print("\n".join(cost_text(options)))
