# SPDX-License-Identifier: Apache-2.0
"""The processes of a run: one on a laptop, many under torchrun, and the few words they exchange.

    torchrun --standalone --nproc-per-node 2 -m omnistream_training.cli pretrain RUN --micro-batches 2

Everything here does nothing in a single process.
"""

from __future__ import annotations

import datetime
import os
import sys
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from omnistream.errors import ConfigError

PATIENCE = datetime.timedelta(minutes=30)
"""For a process that writes or reads a checkpoint while the others wait."""


@dataclass(frozen=True)
class Processes:
    """This process among those of its run."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    """This process's own: cpu, cuda, or cuda:1."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and talks."""
        return self.rank == 0

    def mesh(self) -> DeviceMesh:
        """All of them in a row. ConfigError for a single process, which has nothing to share."""
        if self.world == 1:
            raise ConfigError("there is one process; a mesh needs two or more, started by torchrun")
        return init_device_mesh(torch.device(self.device).type, (self.world,))

    def mean(self, values: Tensor) -> Tensor:
        """`values` averaged over processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return values

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process: all have to leave a loop at the same step, or the others wait for ever."""
        if self.world == 1:
            return flag
        found = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()

    def leave(self, code: int) -> None:
        """Part from the others and, where there are others, end this process with `code`.

        Who leaves first takes connections with it that others still use, and gloo's threads do not always survive the
        interpreter's teardown, which torchrun would take for a failure and start everybody anew.
        """
        if self.world == 1:
            return
        dist.barrier()
        dist.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def join(device: str) -> Processes:
    """The processes that torchrun started, or a single one. device: cpu or cuda, of which each takes its own.

    Raises ConfigError where torchrun's variables contradict each other, or a process has no GPU of its own.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = {name: os.environ[name] for name in names if name in os.environ}
    if "WORLD_SIZE" not in given or given["WORLD_SIZE"] == "1":
        return Processes(device=device)
    if len(given) < len(names) or not all(value.isdecimal() for value in given.values()):
        raise ConfigError(f"torchrun's variables are {given}; expected numbers in all of {', '.join(names)}")
    rank, world, local = (int(given[name]) for name in names)
    if device.startswith("cuda"):
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {rank} is number {local} of its machine, which has {torch.cuda.device_count()} GPUs; start "
                "as many processes as there are GPUs (--nproc-per-node gpu)"
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    if not dist.is_initialized():
        backend = "nccl" if device.startswith("cuda") else "gloo"
        dist.init_process_group(backend, rank=rank, world_size=world, timeout=PATIENCE)
    return Processes(rank, world, device)


def exit_code(finished: bool) -> int:
    """Of a process whose run is finished (0), or was stopped and can go on (1; under torchrun 0 too).

    torchrun takes every other code for a failure: it would report one, or start everybody anew (--max-restarts).
    """
    return 0 if finished or dist.is_torchelastic_launched() else 1


def world_size() -> int:
    """Of the process group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def whole(tensor: Tensor) -> Tensor:
    """A tensor whose parts several processes hold, put together in each of them; others as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
