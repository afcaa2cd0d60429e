"""Characters in, token ids out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

import microgpt

SHOWN = 100  # characters of a vocabulary in an error


class CharTokenizer:
    """One token per character of the vocabulary, sorted, and one more, `bos`, that opens and closes every document.

    The vocabulary is every character in `documents`: one that holds them all will do, `CharTokenizer(["abc"])`.
    Errors: ValueError if `documents` have no character.
    """

    def __init__(self, documents: Iterable[str]) -> None:
        characters: set[str] = set().union(*documents)
        self._characters = "".join(sorted(characters))
        if not self._characters:
            raise ValueError("a vocabulary needs at least one character, the documents have none")
        self._ids = {character: id for id, character in enumerate(self._characters)}

    @classmethod
    def load(cls, path: str | PathLike[str]) -> CharTokenizer:
        """Return the tokenizer in a checkpoint that `GPT.save(path, tokenizer)` or the training command wrote.

        Errors: OSError if the file cannot be read; ValueError, `path` in it, unless it is whole and holds a vocabulary.
        """
        _, metadata = microgpt.checkpoint.read(path)
        with microgpt.checkpoint.refusals(path):
            return cls.from_checkpoint(metadata)

    @classmethod
    def from_checkpoint(cls, metadata: Mapping[str, Any]) -> CharTokenizer:
        """Return the tokenizer in the metadata that `checkpoint.read` returned. ValueError if there is none."""
        characters = metadata.get("characters")
        if characters is None:
            raise ValueError("it holds no vocabulary, GPT.save was called without a tokenizer")
        if not isinstance(characters, str) or not characters or characters != "".join(sorted(set(characters))):
            raise ValueError("its vocabulary is no string of different characters in order")
        return cls([characters])

    @property
    def characters(self) -> str:
        """The vocabulary, in the order of the ids."""
        return self._characters

    @property
    def bos(self) -> int:
        """Id of the token at both ends of a document."""
        return len(self._characters)

    @property
    def vocab_size(self) -> int:
        """Number of characters, and one for `bos`."""
        return len(self._characters) + 1

    def encode(self, document: str) -> list[int]:
        """Return BOS, the ids of the characters, BOS. ValueError names a character outside the vocabulary."""
        try:
            return [self.bos, *[self._ids[character] for character in document], self.bos]
        except KeyError as error:
            more = len(self.characters) - SHOWN
            vocabulary = repr(self.characters[:SHOWN]) + (f" and {more} more" if more > 0 else "")
            raise ValueError(f"character {error} is not in the vocabulary {vocabulary}") from None

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of `tokens`, BOS left out. ValueError names an id outside the vocabulary."""
        tokens = list(tokens)
        for token in tokens:
            if not 0 <= token <= self.bos:
                raise ValueError(f"token ids are 0 to {self.bos}, got {token}")
        return "".join(self.characters[token] for token in tokens if token != self.bos)
