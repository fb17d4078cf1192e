# SPDX-License-Identifier: Apache-2.0
"""Projector and autoregressive decoder: L_cap = -mean log P(answer token | patches, question, answer before it).

The sequence is patches, question, answer, end, padding. Attention is causal, so padding behind the end reaches nothing
before it and no mask is needed; logits are computed where an answer is predicted and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnistream.errors import CheckpointError
from omnistream.policy.tokens import import_transformers
from omnistream_training.caption.config import CaptionConfig
from omnistream_training.caption.questions import Question
from omnistream_training.caption.tokens import ByteTokens, DirectoryTokens, Tokens


class Captioner(nn.Module):
    """Learns with the backbone; only the backbone is shipped."""

    def __init__(self, dim: int, config: CaptionConfig) -> None:
        """dim: width of the patches. Draws from torch's global generator.

        Raises ConfigError if transformers is missing, CheckpointError for a directory without a Qwen3.
        """
        super().__init__()
        self.config = config
        self.cut = 0
        """Answers so far that were longer than `CaptionConfig.max_tokens` leaves room for."""
        self.tokens: Tokens
        if config.language_model is None:
            self.tokens = ByteTokens()
            self.decoder = _random_decoder(config, self.tokens.size)
        else:
            self.tokens = DirectoryTokens(config.language_model)
            self.decoder = _decoder_from(config.language_model, self.tokens.size)
        width = self.decoder.config.hidden_size
        self.projector = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, patches: Tensor, questions: Sequence[Question]) -> tuple[Tensor, dict[str, Tensor]]:
        """`loss`. A sharded module gathers its weights when it is called, and not for its other methods."""
        return self.loss(patches, questions)

    def loss(self, patches: Tensor, questions: Sequence[Question]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over all answer tokens of the batch; the mean per kind of question that occurs, by name.

        patches: [B, P, D], the final features of one frame each.
        """
        logits, targets, rows = self._predict(patches, questions)
        each = F.cross_entropy(logits.float(), targets, reduction="none")
        kinds = {question.kind for question in questions}
        asked = [question.kind for question in questions]
        terms = {}
        for kind in sorted(kinds):
            of_kind = torch.tensor([k == kind for k in asked], device=rows.device)[rows]
            terms[kind] = each.detach()[of_kind].mean()
        return each.mean(), terms

    def _predict(self, patches: Tensor, questions: Sequence[Question]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [N, vocabulary] and targets [N] of all answer tokens, and the picture [N] that each is about."""
        asked = [self._asked(question.ask) for question in questions]
        rooms = [max(1, self.config.max_tokens - len(a) - 1) for a in asked]
        answers = [[*self.tokens.encode(question.answer), self.tokens.end] for question in questions]
        self.cut += sum(len(answer) > room + 1 for answer, room in zip(answers, rooms, strict=True))
        # One that is cut does not end there: nobody learns to stop in the middle of a word or of a box.
        answers = [a if len(a) <= room + 1 else a[:room] for a, room in zip(answers, rooms, strict=True)]
        texts = [a + b for a, b in zip(asked, answers, strict=True)]
        longest = max(len(text) for text in texts)
        ids = torch.tensor([text + [self.tokens.end] * (longest - len(text)) for text in texts], device=patches.device)
        hidden = self._hidden(patches, ids)
        rows: list[int] = []
        places: list[int] = []
        targets: list[int] = []
        for row, (question, answer) in enumerate(zip(asked, answers, strict=True)):
            # What stands before a token predicts it; before the text are the patches.
            first = patches.shape[1] + len(question) - 1
            rows += [row] * len(answer)
            places += range(first, first + len(answer))
            targets += answer
        at = torch.tensor(rows, device=patches.device)
        picked = hidden[at, torch.tensor(places, device=patches.device)]
        return self.decoder.lm_head(picked), torch.tensor(targets, device=patches.device), at

    def _asked(self, question: str) -> list[int]:
        """The question on a line of its own."""
        return self.tokens.encode(f"{question}\n")

    def _hidden(self, patches: Tensor, ids: Tensor) -> Tensor:
        """[B, P + L, width]: the decoder's last states."""
        embed = self.decoder.get_input_embeddings()
        words = embed(ids)
        inputs = torch.cat([self.projector(patches).to(words.dtype), words], 1)
        return self.decoder.model(inputs_embeds=inputs, use_cache=False).last_hidden_state

    @torch.no_grad()
    def answer(self, patches: Tensor, ask: str, max_tokens: int = 64) -> list[str]:
        """The most likely token after the other, for patches [B, P, D]; plain and slow, to look at what was learnt."""
        ids = torch.tensor([self._asked(ask)] * len(patches), device=patches.device)
        start = ids.shape[1]
        for _ in range(max_tokens):
            best = self.decoder.lm_head(self._hidden(patches, ids)[:, -1]).argmax(-1, keepdim=True)
            ids = torch.cat([ids, best], 1)
            if bool((ids[:, start:] == self.tokens.end).any(1).all()):
                break
        return [self.tokens.decode(row) for row in ids[:, start:].tolist()]


def _random_decoder(config: CaptionConfig, vocabulary: int) -> Any:
    """A Qwen3 of the sizes in `config.decoder`."""
    transformers = import_transformers()
    sizes = config.decoder
    return transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=sizes.dim,
            intermediate_size=sizes.mlp,
            num_hidden_layers=sizes.depth,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.key_heads,
            head_dim=sizes.dim // sizes.heads,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            attn_implementation="sdpa",
        )
    )


def _decoder_from(directory: str, vocabulary: int) -> Any:
    """The Qwen3 in a directory (safetensors only), float32, all of it trainable."""
    transformers = import_transformers()
    folder = Path(directory).expanduser()
    try:
        decoder = transformers.Qwen3ForCausalLM.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32, attn_implementation="sdpa"
        )
    except Exception as error:  # transformers raises anything on a damaged or incomplete directory
        raise CheckpointError(f"{folder} holds no Qwen3 that can be read: {error}") from error
    if decoder.config.vocab_size < vocabulary:
        raise CheckpointError(
            f"the tokeniser in {folder} has {vocabulary} tokens, the model {decoder.config.vocab_size}; expected more"
        )
    return decoder
