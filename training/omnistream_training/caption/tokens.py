# SPDX-License-Identifier: Apache-2.0
"""Text as token ids: bytes for a decoder from nothing, Qwen's tokeniser from the user's directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from omnistream.errors import CheckpointError
from omnistream.policy.tokens import import_transformers


class Tokens(Protocol):
    """What the captioner needs of a tokeniser."""

    size: int
    """Ids are 0 .. size - 1."""
    end: int
    """Ends an answer."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class ByteTokens:
    """UTF-8: an id is a byte, and 256 ends an answer. Knows every word of every language, at a few tokens each."""

    size = 257
    end = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        """Up to the end token; what is no UTF-8 becomes the replacement character."""
        taken = list(ids)
        if self.end in taken:
            taken = taken[: taken.index(self.end)]
        return bytes(taken).decode("utf-8", errors="replace")


class DirectoryTokens:
    """The tokeniser of a language model's directory."""

    def __init__(self, directory: str | Path) -> None:
        """Raises CheckpointError if there is none that can be read, ConfigError if transformers is missing."""
        transformers = import_transformers()
        folder = Path(directory).expanduser()
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is not a directory; expected one with a Qwen3 and its tokenizer.json")
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # anything from OSError to KeyError, by what is missing
            raise CheckpointError(f"{folder} holds no tokeniser that can be read: {error}") from error
        if self._tokenizer.eos_token_id is None:
            raise CheckpointError(f"the tokeniser in {folder} has no end-of-text token; expected one")
        self.size = len(self._tokenizer)
        self.end = int(self._tokenizer.eos_token_id)

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
