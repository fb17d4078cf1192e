# SPDX-License-Identifier: Apache-2.0
"""A short name for a model's weights, so that features, policies and engines can say which model they belong to."""

from __future__ import annotations

import hashlib

import torch

from omnistream.model.omnistream import OmniStream


def model_hash(model: OmniStream) -> str:
    """First 16 hex digits of the SHA-256 over every tensor's name, shape and float32 bytes, in name order.

    The storage dtype of the file does not enter: the same values saved as float16 give the same hash if they are exact
    in float16. Where the tensors lie does not enter either.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
