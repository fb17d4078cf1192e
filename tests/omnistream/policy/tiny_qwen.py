# SPDX-License-Identifier: Apache-2.0
"""Qwen2.5 at tiny size: its classes and file layout, random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def write_tiny_qwen(folder: Path) -> Path:
    """A directory as transformers writes one: Qwen2ForCausalLM, random and tiny, and a byte-level BPE tokeniser."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(["What action should the robotic arm take to open the drawer?"], trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = transformers.Qwen2Config(
        vocab_size=320,  # larger than the tokeniser's, as Qwen's is
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    transformers.Qwen2ForCausalLM(sizes).save_pretrained(folder)
    return folder
