# SPDX-License-Identifier: Apache-2.0
"""Training on many devices: the model knows nothing of it, and one function does it all.

Activation checkpointing, then compilation, then FSDP2, block by block: what a block computes is thrown away and
computed anew in the backward pass, and its weights are gathered only when it runs.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from omnistream.errors import ConfigError
from omnistream.model.omnistream import OmniStream


def parallelize(
    model: OmniStream,
    mesh: DeviceMesh,
    *,
    recompute: bool = True,
    compile_blocks: bool = False,
    precision: torch.dtype = torch.float32,
) -> OmniStream:
    """`model` with its weights sharded over the processes of `mesh`, in place; make the optimiser afterwards.

    Every process holds the same weights before, and runs `model(...)` or `model.backbone(...)` on clips of its own, all
    of them in the same order. Gradients are averaged over processes, in float32: a loss that is a mean over equally
    many samples in each gives the gradient of the whole. `model.state_dict()` then holds shards, under the same names.
    AdamW works on shards; Muon needs whole matrices and does not.
    recompute: trade a third more arithmetic for the memory of activations.
    precision: of weights and activations in forward and backward; what the optimiser sees is float32.
    Raises ConfigError for a mesh that is not one-dimensional.
    """
    if mesh.ndim != 1:
        raise ConfigError(f"mesh has {mesh.ndim} dimensions; expected 1, over which weights are sharded")
    blocks = model.backbone.blocks
    for i in range(len(blocks)):
        block: nn.Module = blocks[i]
        if recompute:
            block = checkpoint_wrapper(block)
        if compile_blocks:
            block.compile()
        blocks[i] = block
    narrow = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=narrow)
    # Backbone and heads apart, because some tasks run the backbone alone. What is left of it, tokens and norm, and the
    # heads stay in float32: their losses are.
    wide = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    fully_shard(model.backbone, mesh=mesh, mp_policy=wide)
    if model.heads is not None:
        fully_shard(model.heads, mesh=mesh, mp_policy=wide)
    return model
