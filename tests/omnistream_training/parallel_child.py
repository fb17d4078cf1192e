# SPDX-License-Identifier: Apache-2.0
"""One of the processes of `test_parallel`: trains a little and writes its losses.

python -m tests.omnistream_training.parallel_child RANK WORLD STEPS DTYPE RENDEZVOUS OUT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from omnistream.model.omnistream import OmniStream
from omnistream_training.data.live import LiveSource
from omnistream_training.data.source import ClipRequest
from omnistream_training.losses import geometry_loss, make_targets
from omnistream_training.losses.geometry import LossConfig
from omnistream_training.optim import OptimConfig, Optimizers
from omnistream_training.parallel import parallelize
from omnistream_training.ssl.masks import hidden_patches
from tests.omnistream_training.conftest import MICRO
from tests.omnistream_training.scenes import Planes

CLIPS = 2
"""Per step, of all processes together."""


def train(rank: int, world: int, steps: int, dtype: torch.dtype) -> list[float]:
    """Losses, each the mean over processes: geometry through the whole model, and hidden patches through the backbone
    alone, two backward passes a step as in pre-training."""
    torch.manual_seed(0)
    model = OmniStream(MICRO).to(dtype)
    if world > 1:
        whole = sum(p.numel() for p in model.parameters())
        parallelize(model, init_device_mesh("cpu", (world,)), precision=dtype)
        held = sum(p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor))
        if not 0 < held < 0.6 * whole:
            raise RuntimeError(f"this process holds {held} of {whole} weights; expected about half")
    optimizers = Optimizers(model, OptimConfig(lr=1e-3))
    source, config = LiveSource(Planes(), "planes", 30.0), LossConfig()
    own = CLIPS // world
    mask = torch.tensor([[True, False, False, True]]).expand(own, -1)
    losses = []
    for step in range(steps):
        first = step * CLIPS + rank * own
        batch = source.read(ClipRequest(numbers=range(first, first + own), frames=2, size=(32, 32)))
        _, heads = model(batch.network_input(MICRO).to(dtype), want=config.heads)
        loss, _ = geometry_loss(heads, make_targets(batch, "metric"), config)
        loss.backward()
        with hidden_patches(model.backbone, mask, 2):
            patches = model.backbone(batch.network_input(MICRO).to(dtype), camera_token=True).patches
        hidden = (patches - 1).square().mean()
        hidden.backward()
        optimizers.clip()
        optimizers.step(1.0)
        total = (loss + hidden).detach()
        if world > 1:
            dist.all_reduce(total)
        losses.append(float(total) / world)
    return losses


def main() -> None:
    rank, world, steps = map(int, sys.argv[1:4])
    dtype = getattr(torch, sys.argv[4])
    rendezvous, out = sys.argv[5:7]
    if dtype is torch.float64:
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # where float32 is meant as the wide type
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    Path(out).write_text(json.dumps(train(rank, world, steps, dtype)))
    if world > 1:
        dist.barrier()  # who leaves first takes connections with it that the other still uses
        dist.destroy_process_group()
        os._exit(0)  # the result is written; gloo's threads do not always survive the interpreter's own teardown


if __name__ == "__main__":
    main()
