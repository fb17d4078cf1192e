# SPDX-License-Identifier: Apache-2.0
"""Everything that the next step of a pre-training run depends on, as tensors by name and plain data.

Names are those of the unsharded modules, so that a state does not depend on how many processes wrote it:

    parts.model.backbone.norm.weight    student, projection heads, teacher, decoder; the anchor is made anew and checked
    average.backbone.norm.weight        averaged weights
    AdamW.exp_avg.model.backbone.norm.weight
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import _CHECKPOINT_PREFIX

from omnistream.errors import CheckpointError
from omnistream_training.learner import Progress
from omnistream_training.pretrain.learner import PretrainLearner
from omnistream_training.state_folder import Sizes

ANCHOR = "ssl.anchor."


def state_tensors(learner: PretrainLearner) -> dict[str, Tensor]:
    """References, not copies: what is read into them is what the learner goes on with."""
    found = {f"parts.{k}": v for k, v in learner.parts.state_dict().items() if not k.startswith(ANCHOR)}
    names = [name for name, _ in named(learner.model)]
    found |= {f"average.{k}": v for k, v in zip(names, learner.average.average, strict=True)}
    for optimizer in learner.optimizers.members:
        kind = type(optimizer).__name__
        for name, parameter in named(learner.parts):
            for key, value in optimizer.state.get(parameter, {}).items():
                found[f"{kind}.{key}.{name}"] = value
    return found


def state_plain(learner: PretrainLearner) -> dict[str, Any]:
    """Counters, and what the anchor was made from."""
    return {"progress": vars(learner.progress), "anchor": learner.anchor_digest}


def accept_state(learner: PretrainLearner, plain: dict[str, Any], sizes: Sizes) -> dict[str, Tensor]:
    """Tensors to read a stored state into; the counters are set at once.

    An optimiser's memory of a parameter begins with its first gradient (prototypes are held still at first), so that
    what is stored says what there is. Raises CheckpointError for a state of another network or another initial model.
    """
    if plain["anchor"] != learner.anchor_digest:
        raise CheckpointError(
            f"the initial model is not the one this run began with ({learner.anchor_digest} now, {plain['anchor']} "
            f"then): {learner.config.model.start} has changed; put it back, or start a new run"
        )
    for optimizer in learner.optimizers.members:
        optimizer.state.clear()
        kind = type(optimizer).__name__
        mine = {p for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in named(learner.parts):
            stored = [key for key in sizes if key.startswith(f"{kind}.") and key.endswith(f".{name}")]
            for key in stored if parameter in mine else ():
                entry = key.removeprefix(f"{kind}.").removesuffix(f".{name}")
                if "." not in entry:
                    size, dtype = sizes[key]
                    optimizer.state[parameter][entry] = _blank(parameter, size, dtype)
    wanted = state_tensors(learner)
    missing, foreign = sorted(wanted.keys() - sizes.keys()), sorted(sizes.keys() - wanted.keys())
    if missing or foreign:
        raise CheckpointError(
            f"the state is of another network: it lacks {len(missing)} tensors {missing[:3]} and has {len(foreign)} "
            f"that are not wanted {foreign[:3]}"
        )
    learner.progress = Progress(**plain["progress"])
    return wanted


def _blank(parameter: Tensor, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """Zeros like the parameter, sharded as it is, or a counter on its device."""
    if size == parameter.shape and len(size):
        return torch.zeros_like(parameter, dtype=dtype).detach()
    return torch.zeros(size, dtype=dtype, device=parameter.device)


def named(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters under the names they have without activation checkpointing."""
    return [(name.replace(_CHECKPOINT_PREFIX, ""), p) for name, p in module.named_parameters()]
