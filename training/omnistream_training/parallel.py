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
from omnistream.model.backbone import Backbone
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
    of them in the same order. Gradients are averaged over processes, in float32 at least: a loss that is a mean over
    equally many samples in each gives the gradient of the whole. `model.state_dict()` then holds shards, under the same
    names.
    AdamW works on shards; Muon gathers each matrix.
    recompute: trade a third more arithmetic for the memory of activations.
    precision: of weights and activations in forward and backward; what the optimiser sees is float32.
    Raises ConfigError for a mesh that is not one-dimensional.
    """
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP2 takes no other
    # Backbone and heads apart, because some tasks run the backbone alone. The heads stay in float32: their losses are.
    shard_backbone(model.backbone, mesh, recompute=recompute, compile_blocks=compile_blocks, precision=precision)
    if model.heads is not None:
        shard(model.heads, mesh)
    return model


def shard_backbone(
    backbone: Backbone,
    mesh: DeviceMesh,
    *,
    recompute: bool = True,
    compile_blocks: bool = False,
    precision: torch.dtype = torch.float32,
) -> None:
    """Block by block; what is left of it, tokens and norm, stays in float32. See `parallelize`."""
    if mesh.ndim != 1:
        raise ConfigError(f"mesh has {mesh.ndim} dimensions; expected 1, over which weights are sharded")
    blocks = backbone.blocks
    for i in range(len(blocks)):
        block: nn.Module = blocks[i]
        if recompute:
            block = checkpoint_wrapper(block)
        if compile_blocks:
            block.compile()
        blocks[i] = block
    for block in blocks:
        shard(block, mesh, precision)
    shard(backbone, mesh)


def shard(module: nn.Module, mesh: DeviceMesh, precision: torch.dtype | None = None) -> None:
    """What is not sharded yet of a module that is run by calling it."""
    # Resharded after every forward pass, the outermost too: nothing else would let go of the gathered copy in a network
    # without a backward pass (teacher, evaluation), and it would go on computing with old weights.
    weights = next(module.parameters()).dtype
    narrow = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.promote_types(weights, torch.float32))
    fully_shard(module, mesh=mesh, mp_policy=narrow, reshard_after_forward=True)
