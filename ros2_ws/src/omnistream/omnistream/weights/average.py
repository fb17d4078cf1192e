# SPDX-License-Identifier: Apache-2.0
"""Between two checkpoints of which one was trained on from the other."""

from __future__ import annotations

from pathlib import Path

from omnistream.errors import CheckpointError
from omnistream.weights.checkpoint import Checkpoint
from omnistream.weights.load import open_checkpoint
from omnistream.weights.own import write_checkpoint


def average_checkpoints(
    first: str | Path,
    second: str | Path,
    destination: str | Path,
    *,
    share: float = 0.5,
    dtype: str = "float32",
    made_by: str = "omnistream.weights.average_checkpoints",
    overwrite: bool = False,
) -> Checkpoint:
    """Write `(1 - share) * first + share * second`, weight by weight; returns what was written, opened.

    Training on (on a recording of one's own, say) gains there and loses elsewhere; weights between the two often keep
    most of both (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). Of two that were trained apart
    from the first step on, the average is of no use.

    Raises `CheckpointError` if share is not in 0 .. 1, if the two are not of one architecture, or if either cannot be
    read or the result cannot be written.
    """
    if not 0 <= share <= 1:
        raise CheckpointError(f"share is {share}; expected 0 (the first) to 1 (the second)")
    a, b = open_checkpoint(first), open_checkpoint(second)
    if a.config != b.config:
        raise CheckpointError(f"{a.path} and {b.path} are not of one architecture: {a.config} against {b.config}")
    ours, theirs = a.state_dict(), b.state_dict()
    mean = {name: ((1 - share) * ours[name].double() + share * theirs[name].double()).float() for name in ours}
    parent = {**b.provenance(), "share": share, "averaged_with": a.provenance()}
    written = write_checkpoint(
        a.config, mean, destination, dtype=dtype, made_by=made_by, parent=parent, overwrite=overwrite
    )
    return open_checkpoint(written)
