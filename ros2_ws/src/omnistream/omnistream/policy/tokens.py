# SPDX-License-Identifier: Apache-2.0
"""Instructions as token ids: words of our own for a model trained from nothing, Qwen's tokeniser from its directory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from omnistream.errors import CheckpointError, ConfigError

MAX_TOKENS = 128
"""Of an instruction. Longer ones are refused, not cut: half an instruction may say the opposite."""

QUESTION = "What action should the robotic arm take to {instruction}?"
"""VLM4VLA's prompt."""


@dataclass(frozen=True)
class Encoded:
    """An instruction for the network."""

    ids: tuple[int, ...]
    """Token ids, without those that every prompt shares."""
    unknown: tuple[str, ...] = ()
    """Words that the tokeniser has never seen; the network sees a blank in their place."""


class Tokens(Protocol):
    """Both tokenisers."""

    @property
    def size(self) -> int:
        """Vocabulary: ids are below it."""
        ...

    @property
    def before(self) -> tuple[int, ...]:
        """Ids in front of the picture."""
        ...

    def encode(self, instruction: str) -> Encoded: ...

    def to_dict(self) -> dict[str, Any]:
        """What the checkpoint stores; `tokens_from_dict` is the inverse."""
        ...


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers; punctuation and spaces do not count."""
    return re.findall(r"[^\W_]+", text.lower())


class WordTokens:
    """One id per word of the training data; 0 is padding, 1 any other word. Knows no inflection and no synonyms."""

    PAD, UNKNOWN = 0, 1

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        for word in self.words:
            if words_of(word) != [word]:
                raise ConfigError(f"{word!r} is no word of a vocabulary; expected one lower-case word or number")
        if len(set(self.words)) != len(self.words):
            raise ConfigError("a word is twice in the vocabulary")
        self._ids = {word: number for number, word in enumerate(self.words, start=2)}

    @classmethod
    def of(cls, instructions: Iterable[str]) -> WordTokens:
        """Every word that occurs, sorted, so that the same data give the same ids."""
        return cls(sorted({word for text in instructions for word in words_of(text)}))

    @property
    def size(self) -> int:
        return len(self.words) + 2

    @property
    def before(self) -> tuple[int, ...]:
        return ()

    def encode(self, instruction: str) -> Encoded:
        words = words_of(instruction)
        _check_length(len(words), instruction)
        unknown = tuple(dict.fromkeys(word for word in words if word not in self._ids))
        return Encoded(tuple(self._ids.get(word, self.UNKNOWN) for word in words), unknown)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "words", "words": list(self.words)}


class PretrainedTokens:
    """The tokeniser in a directory of Qwen's, and the prompt in its chat format with the picture after the user's turn
    begins (VLM4VLA)."""

    def __init__(self, directory: str | Path) -> None:
        """Raises CheckpointError if there is no tokeniser in `directory`, ConfigError if transformers is missing."""
        self.directory = Path(directory).expanduser()
        transformers = import_transformers()
        if not self.directory.is_dir():
            raise CheckpointError(f"{self.directory} is not a directory; expected one with tokenizer.json")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(self.directory), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # anything from OSError to KeyError, by what is missing
            raise CheckpointError(f"{self.directory} holds no tokeniser that can be read: {error}") from error
        self._before = tuple(
            self._ids("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n")
        )

    @property
    def size(self) -> int:
        return len(self._tokenizer)

    @property
    def before(self) -> tuple[int, ...]:
        return self._before

    def encode(self, instruction: str) -> Encoded:
        question = QUESTION.format(instruction=" ".join(instruction.split()).rstrip("."))
        ids = self._ids(f"\n{question}<|im_end|>\n<|im_start|>assistant\n")
        _check_length(len(ids), instruction)
        return Encoded(tuple(ids))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "pretrained"}

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def tokens_from_dict(data: dict[str, Any], language_model: str | Path | None) -> WordTokens | PretrainedTokens:
    """From a checkpoint. language_model: the user's directory, which `pretrained` needs."""
    kind = data.get("kind")
    if kind == "words" and isinstance(data.get("words"), list) and all(isinstance(w, str) for w in data["words"]):
        return WordTokens(data["words"])
    if kind == "pretrained":
        if language_model is None:
            raise CheckpointError("this policy uses a pre-trained language model; name its directory (language_model)")
        return PretrainedTokens(language_model)
    raise CheckpointError(f"tokeniser is {data!r}; expected kind 'words' with a list of words, or 'pretrained'")


def import_transformers() -> Any:
    """The package transformers; ConfigError with the line that installs it."""
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(f"policies need transformers ({error}); pip install 'omnistream[vla]'") from error
    return transformers


def _check_length(count: int, instruction: str) -> None:
    if count > MAX_TOKENS:
        raise ConfigError(f"the instruction has {count} tokens, more than {MAX_TOKENS}: {instruction[:60]!r}...")
