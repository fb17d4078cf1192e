# SPDX-License-Identifier: Apache-2.0
"""One of the processes of `test_processes`, started by torchrun.

python -m tests.omnistream_training.pretrain.process_child WANTED.yaml RUN UNTIL KILL

UNTIL: step to stop at. KILL: step at which the second process kills itself, once; -1: it doesn't.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from omnistream.model.config import PRESETS
from omnistream_training.config_file import load_config
from omnistream_training.distributed import Processes, join
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.learner import PretrainLearner
from omnistream_training.pretrain.trainer import PretrainTrainer
from omnistream_training.ssl.losses import sinkhorn
from tests.omnistream_training.conftest import MICRO


def main() -> None:
    wanted, run = Path(sys.argv[1]), Path(sys.argv[2])
    until, kill = int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    PRESETS["micro"] = MICRO
    processes = join("cpu")
    trainer = PretrainTrainer(load_config(wanted, PretrainConfig()), run, device="cpu", processes=processes)
    _check_shares(trainer.learner, processes.world)
    _check_centring(processes)
    mark = run / "killed"
    if kill >= 0 and processes.rank == 1 and not mark.exists():
        update = trainer.learner.update

        def fatal() -> None:
            update()
            if trainer.progress.step == kill:
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        trainer.learner.update = fatal  # type: ignore[method-assign]
    trainer.train(until)
    processes.leave(0)


def _check_shares(learner: PretrainLearner, world: int) -> None:
    """Each process holds about its share of everything that is large."""
    from torch.distributed.tensor import DTensor

    parameters = list(learner.parts.parameters())
    held = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parameters)
    whole = sum(p.numel() for p in parameters)
    if not held < 1.1 * whole / world + 1000:
        raise RuntimeError(f"this process holds {held} of {whole} weights; expected about one in {world}")


def _check_centring(processes: Processes) -> None:
    """Shared, each process gets its rows of what one would make of all samples."""
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    own = slice(processes.rank * 8 // processes.world, (processes.rank + 1) * 8 // processes.world)
    found = sinkhorn(logits[own], 0.1, shared=processes.world > 1)
    torch.testing.assert_close(found, sinkhorn(logits, 0.1)[own], rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    main()
