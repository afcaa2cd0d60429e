"""Characters in, token ids out."""

from __future__ import annotations

from collections.abc import Iterable


class CharTokenizer:
    """One token per character of the vocabulary, sorted, and one more, `bos`, that opens and closes every document.

    Errors: ValueError if `documents` have no character.
    """

    def __init__(self, documents: Iterable[str]) -> None:
        self.characters = "".join(sorted(set().union(*documents)))
        if not self.characters:
            raise ValueError("a vocabulary needs at least one character, the documents have none")
        self._ids = {character: id for id, character in enumerate(self.characters)}

    @property
    def bos(self) -> int:
        """Id of the token at both ends of a document."""
        return len(self.characters)

    @property
    def vocab_size(self) -> int:
        """Number of characters, and one for `bos`."""
        return len(self.characters) + 1

    def encode(self, document: str) -> list[int]:
        """Return BOS, the ids of the characters, BOS. ValueError names a character outside the vocabulary."""
        try:
            return [self.bos, *[self._ids[character] for character in document], self.bos]
        except KeyError as error:
            raise ValueError(f"character {error} is not in the vocabulary {self.characters!r}") from None

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of `tokens`, BOS left out. ValueError names an id outside the vocabulary."""
        tokens = list(tokens)
        for token in tokens:
            if not 0 <= token <= self.bos:
                raise ValueError(f"token ids are 0 to {self.bos}, got {token}")
        return "".join(self.characters[token] for token in tokens if token != self.bos)
