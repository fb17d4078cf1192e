# SPDX-License-Identifier: Apache-2.0
"""The language model: Qwen2's decoder from transformers, of our own size or from a user's directory, with LoRA or not.

Proven here with small random models of the same class; nobody has run 7B through this file yet.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import nn

from omnistream.errors import CheckpointError, ConfigError
from omnistream.policy.config import LanguageConfig
from omnistream.policy.tokens import MAX_TOKENS, import_transformers

MODEL_TYPE = "qwen2"
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA_MARK = "lora_"
"""In the names of the parameters that peft adds."""
MAX_POSITIONS = 4096
"""Of a model of our own: patches of all cameras and an instruction, by far."""


def new_language_model(config: LanguageConfig, vocabulary: int) -> nn.Module:
    """A random Qwen2 decoder of the sizes in `config`; draws from torch's global generator."""
    transformers = import_transformers()
    sizes = transformers.Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=MAX_POSITIONS + MAX_TOKENS,
    )
    return transformers.Qwen2Model(sizes)


def load_language_model(directory: str | Path, config: LanguageConfig, dtype: torch.dtype | None = None) -> nn.Module:
    """The decoder in a directory of transformers' (safetensors only), with what does not learn frozen.

    dtype: default bfloat16 for `lora` and `frozen`, float32 for `full`, whose optimiser needs small steps.
    Raises CheckpointError for a directory without a Qwen2 model.
    """
    folder = Path(directory).expanduser()
    found = _config_of(folder).get("model_type")
    if found != MODEL_TYPE:
        raise CheckpointError(f"{folder}/config.json has model_type {found!r}; expected {MODEL_TYPE!r}")
    if dtype is None:
        dtype = torch.float32 if config.train == "full" else torch.bfloat16
    transformers = import_transformers()
    try:
        model = transformers.Qwen2Model.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=dtype
        )
    except Exception as error:  # transformers raises anything on a damaged or incomplete directory
        raise CheckpointError(f"{folder} cannot be loaded: {error}") from error
    return prepare(model, config)


def prepare(model: nn.Module, config: LanguageConfig) -> nn.Module:
    """Freeze and add adapters as `config.train` says; returns the same model."""
    if config.train == "full":
        return model
    model.requires_grad_(False)
    if config.train == "lora":
        try:
            import peft
        except ImportError as error:
            raise ConfigError(f"language.train 'lora' needs peft ({error}); pip install 'omnistream[vla]'") from error
        adapters = peft.LoraConfig(
            r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=list(LORA_TARGETS), lora_dropout=0.0
        )
        peft.inject_adapter_in_model(adapters, model)
        for name, parameter in model.named_parameters():
            if LORA_MARK in name:  # adapters learn in float32 whatever the frozen weights are
                parameter.data = parameter.data.float()
    return model


def language_model_hash(directory: str | Path) -> str:
    """16 hex digits that tell one directory of weights from another, without reading gigabytes.

    Over config.json and the size and header (names, shapes, dtypes) of every safetensors file, and its first and last
    mebibyte of values: it catches another model, size or fine-tune, not a single changed weight in the middle.
    """
    folder = Path(directory).expanduser()
    digest = hashlib.sha256(json.dumps(_config_of(folder), sort_keys=True).encode())
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} has no .safetensors file; expected a language model's weights")
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise CheckpointError(f"{path} is no safetensors file: it has {size} bytes")
            header = file.read(min(struct.unpack("<Q", start)[0], size))
            digest.update(json.dumps([path.name, size]).encode() + header + file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def _config_of(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; expected a language model's directory") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a JSON {type(data).__name__}; expected an object")
    return data
